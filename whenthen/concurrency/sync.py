"""Prefect's `concurrency.sync`: limits for sync code."""

from whenthen.flows.services.concurrency_limits import (
    concurrency,
    rate_limit,
)
from whenthen.flows.flow_errors import (
    ConcurrencySlotAcquisitionError,
)

__all__ = [
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
