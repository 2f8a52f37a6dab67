"""Prefect's `runtime`: what code in a run can read of it."""

from whenthen.flows.runtime_values import flow_run, task_run

__all__ = ["flow_run", "task_run"]
