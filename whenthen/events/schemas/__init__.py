"""Prefect's `events.schemas`."""
