"""Prefect's `tasks`: the decorator, its class, and what is given to it."""

from whenthen.flows.caching.cache_policy import task_input_hash
from whenthen.flows.definitions.task_definition import NotSet, Task, exponential_backoff, task

__all__ = ["NotSet", "Task", "exponential_backoff", "task", "task_input_hash"]
