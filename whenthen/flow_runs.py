"""Prefect's `flow_runs`: pausing runs, and waiting for one."""

from whenthen.flows.services.other_runs import (
    wait_for_flow_run,
)
from whenthen.flows.services.run_pauses import (
    apause_flow_run,
    aresume_flow_run,
    asuspend_flow_run,
    pause_flow_run,
    resume_flow_run,
    suspend_flow_run,
)

__all__ = [
    "apause_flow_run",
    "aresume_flow_run",
    "asuspend_flow_run",
    "pause_flow_run",
    "resume_flow_run",
    "suspend_flow_run",
    "wait_for_flow_run",
]
