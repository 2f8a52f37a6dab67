"""Prefect's `client.schemas`: what the client gives and takes."""
