"""The functions that two deployments run. A plain function is enough; what it returns is the run's result."""

from __future__ import annotations


def load(source: str, size: int) -> dict[str, int]:
    """Pretend to load a file: one row for each 40 bytes."""
    rows = size // 40
    print(f"loaded {rows} rows from {source}")
    return {"rows": rows}


def report(source: str, rows: int) -> str:
    """Pretend to write a report."""
    print(f"report: {rows} new rows came from {source}")
    return f"{rows} rows"
