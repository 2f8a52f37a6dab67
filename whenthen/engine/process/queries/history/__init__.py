"""Queries of the history, which another process may have."""
