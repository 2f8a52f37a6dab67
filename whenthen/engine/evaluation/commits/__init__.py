"""What a commit consists of, how it is stored so that it is there whole or not at all, and what is done about one that is refused."""
