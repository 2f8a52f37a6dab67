"""Where are flow runs kept while many processes share them? The stores of `runs` over NATS, and the events that tell of each state."""

from __future__ import annotations

from whenthen.engine.flow_runs.run_events import (
    RunEventPublisher,
)
from whenthen.engine.flow_runs.run_stores import (
    FlowStoreSettings,
    ensure_flow_stores,
    nats_stores,
)

__all__ = [
    "FlowStoreSettings",
    "RunEventPublisher",
    "ensure_flow_stores",
    "nats_stores",
]
