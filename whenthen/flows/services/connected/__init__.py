"""What the code of runs and programs asks of a server: through the worker, or at `WHENTHEN_URL`."""
