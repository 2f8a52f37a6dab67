"""The roles of a process."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """A process has one role or several; without `--role` it has all."""

    API = "api"  #: serves HTTP: events and webhooks, queries and commands
    EVALUATOR = "evaluator"  #: evaluates events, commits firings
    EXECUTOR = "executor"  #: performs actions
    WORKER = "worker"  #: executes flow runs
    SCHEDULER = "scheduler"  #: creates runs of schedules, finds lost runs, publishes the events of flow runs
    SOURCE = "source"  #: reads folders, addresses and brokers
    HISTORY = "history"  #: projects what happened into SQL

    @classmethod
    def all(cls) -> frozenset[Role]:
        """Every role."""
        return frozenset(cls)
