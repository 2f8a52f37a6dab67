"""Prefect's `concurrency`: not more than so many at once."""

from whenthen.flows.services.slot_waiting import (
    concurrency,
    rate_limit,
)

__all__ = [
    "concurrency",
    "rate_limit",
]
