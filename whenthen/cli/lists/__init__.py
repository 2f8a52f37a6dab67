"""How do the commands print lists? What a list consists of, and tables as wide as the terminal."""
