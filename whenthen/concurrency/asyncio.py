"""Prefect's `concurrency.asyncio`: limits for async code."""

from whenthen.flows.flow_errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
)
from whenthen.flows.services.slot_waiting import (
    aconcurrency as concurrency,
)
from whenthen.flows.services.slot_waiting import (
    arate_limit as rate_limit,
)

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
