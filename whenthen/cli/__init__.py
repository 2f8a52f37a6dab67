"""What does a person type? The `whenthen` command: thin, over the HTTP API and the pure core."""
