"""Prefect's `task_runners`: where submitted tasks run."""

from whenthen.flows.execution.runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

#: an older name of the same
ConcurrentTaskRunner = ThreadPoolTaskRunner

__all__ = ["ConcurrentTaskRunner", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]
