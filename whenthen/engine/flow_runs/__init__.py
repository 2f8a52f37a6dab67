"""Where are flow runs kept while many processes share them? The stores of `runs` over NATS, one file each, and one event for each state."""

from __future__ import annotations

from whenthen.engine.flow_runs.flow_streams import (
    FlowStoreSettings,
    ensure_flow_stores,
)
from whenthen.engine.flow_runs.nats_stores import (
    nats_stores,
)
from whenthen.engine.flow_runs.run_endings import (
    RunEndings,
)
from whenthen.engine.flow_runs.run_events import (
    RunEventPublisher,
)
from whenthen.engine.flow_runs.told_events import (
    ToldEventPublisher,
)

__all__ = [
    "FlowStoreSettings",
    "RunEndings",
    "RunEventPublisher",
    "ToldEventPublisher",
    "ensure_flow_stores",
    "nats_stores",
]
