"""What runs, when, where, and in which state is it? Deployments, run states, schedules, and the worker that starts processes.

State is stored behind the protocols of `Stores`: in memory here, over NATS in `engine.flow_runs`. Meaning: docs/deployments.md.
"""

from __future__ import annotations

from whenthen.runs import reports, schedules
from whenthen.runs.attempts import attempt_logs
from whenthen.runs.limits import pause_flags
from whenthen.runs.orchestrator import (
    BuiltInOrchestrator,
)
from whenthen.runs.reaper import (
    Reaper,
    ReaperSettings,
)
from whenthen.runs.run_pages import (
    RunPageCollector,
)
from whenthen.runs.run_states import (
    flow_run_event,
    run_from_record,
)
from whenthen.runs.stores import (
    EVERY_RUN,
    PAGE_BYTES,
    Flag,
    FlagStore,
    RunFilter,
    RunPage,
    Stored,
    Stores,
)
from whenthen.runs.worker import (
    Worker,
    WorkerSettings,
)

__all__ = [
    "EVERY_RUN",
    "PAGE_BYTES",
    "BuiltInOrchestrator",
    "Flag",
    "FlagStore",
    "Reaper",
    "ReaperSettings",
    "RunFilter",
    "RunPage",
    "RunPageCollector",
    "Stored",
    "Stores",
    "Worker",
    "WorkerSettings",
    "attempt_logs",
    "flow_run_event",
    "pause_flags",
    "reports",
    "run_from_record",
    "schedules",
]
