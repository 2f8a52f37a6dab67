"""The flags that pause deployments, schedules and work pools: their keys, and what they mean with the rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from whenthen.runs.stores import Flag
from whenthen.schemas.deployments import Schedule
from whenthen.schemas.work_pools import WorkPool

__all__ = ["deployment_flag", "is_paused", "is_pool_paused", "pool_flag", "schedule_flag"]


def deployment_flag(name: str) -> str:
    """The key of a deployment's flag."""
    return f"deployment/{name}"


def schedule_flag(deployment: str, name: str) -> str:
    """The key of a schedule's flag."""
    return f"schedule/{deployment}/{name}"


def pool_flag(name: str) -> str:
    """The key of a work pool's flag."""
    return f"work-pool/{name}"


def is_paused(deployment: str, schedule: Schedule, flags: Mapping[str, Flag]) -> bool:
    """Whether a schedule is paused: by the newest pause flag of it or its deployment, else by `active`."""
    said = [flags.get(deployment_flag(deployment)), flags.get(schedule_flag(deployment, schedule.name))]
    latest = max((flag for flag in said if flag is not None), key=lambda flag: flag.changed, default=None)
    return not schedule.active if latest is None else latest.paused


def is_pool_paused(pool: WorkPool, flag: Flag | None) -> bool:
    """Whether a work pool is paused: by its flag, else by `paused` of the rules."""
    return pool.paused if flag is None else flag.paused
