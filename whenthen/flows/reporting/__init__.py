"""How does a run tell its worker of itself? Over the socket that its process was given, or else in a file; it never waits for the worker."""
