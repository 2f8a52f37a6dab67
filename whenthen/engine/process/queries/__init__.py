"""Which queries does the API have? One file for each kind of thing. Lists are read from the streams, so every process gives the same."""
