"""What the API can be asked: one file for each kind of thing. Lists come from the streams, so every process gives the same."""
