"""Prefect's `concurrency.sync`: limits for sync code."""

from whenthen.flows.flow_errors import (
    ConcurrencySlotAcquisitionError,
)
from whenthen.flows.services.slot_waiting import (
    concurrency,
    rate_limit,
)

__all__ = [
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
