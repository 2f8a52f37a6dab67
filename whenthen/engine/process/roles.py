"""What a process does."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """One process may have all roles, or a cluster many processes with one each."""

    API = "api"  #: requests in, lists out
    EVALUATOR = "evaluator"  #: events to firings
    EXECUTOR = "executor"  #: firings to actions
    WORKER = "worker"  #: flow runs
    SCHEDULER = "scheduler"  #: schedules, lost runs, announcements of flow runs

    @classmethod
    def all(cls) -> frozenset[Role]:
        """Every role."""
        return frozenset(cls)
