"""What runs, when, where, and in which state is it? Deployments, run states, schedules, and the worker that starts processes.

State is stored behind the protocols of `Stores`: in memory here, over NATS in `engine.flow_runs`. Meaning: docs/deployments.md.
"""

from __future__ import annotations

from whenthen.runs import reports, run_states, schedules, shared
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
    "pause_flags",
    "reports",
    "run_states",
    "schedules",
    "shared",
]
