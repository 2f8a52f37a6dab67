"""Prefect's `results`: where results are kept."""

from whenthen.flows.caching.result_store import ResultStore

__all__ = ["ResultStore"]
