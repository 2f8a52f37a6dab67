"""Queries that only the pages ask."""
