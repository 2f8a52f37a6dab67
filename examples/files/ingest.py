"""The functions that the deployments of `rules.yaml` run. What they return is the run's result."""

from __future__ import annotations


def load(source: str, size: int) -> dict[str, int]:
    """Pretend to load a file: one row for each 40 bytes."""
    rows = max(size // 40, 1)
    print(f"loaded {rows} rows from {source}")
    return {"rows": rows}


def report(rows: int) -> None:
    """Pretend to report."""
    print(f"the last load had {rows} rows")
