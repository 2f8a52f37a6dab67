"""Prefect's `task_worker`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import task_worker as task_worker
