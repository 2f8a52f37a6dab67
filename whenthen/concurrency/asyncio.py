"""Prefect's `concurrency.asyncio`: limits for async code."""

from whenthen.flows.services.concurrency_limits import (
    aconcurrency as concurrency,
    arate_limit as rate_limit,
)
from whenthen.flows.flow_errors import (
    ConcurrencySlotAcquisitionError,
    SlotTimeoutError as AcquireConcurrencySlotTimeoutError,
)

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
