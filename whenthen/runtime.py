"""Prefect's `runtime`: what code in a run can read of it."""

from whenthen.flows.runtime_values import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
