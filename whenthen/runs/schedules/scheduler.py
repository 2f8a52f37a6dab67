"""The scheduler: which runs schedules create now, as a pure function, and the loop that creates them.

Each time of a schedule creates one run, however many schedulers run and restart, because the time is part of
the run's key. Of the times that passed while no scheduler ran, the latest of the last hour creates a run, which
starts as Late, and the others are skipped, unless the schedule says otherwise (`catch_up`). Meaning: docs/deployments.md, "Schedules".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from whenthen.runs.limits.pause_flags import deployment_flag, is_paused, schedule_flag
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.run_states import new_run
from whenthen.runs.schedules.past_times import missed
from whenthen.runs.stores import Deployments, Flag, Stores
from whenthen.schemas.calendar import next_after
from whenthen.schemas.deployments import Deployment, Schedule
from whenthen.schemas.errors import BusUnavailable, Conflict, WhenthenError
from whenthen.schemas.times import format_time

__all__ = ["Due", "Plan", "Scheduler", "SchedulerSettings", "due", "schedule_run_key"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    late_after: timedelta = timedelta(seconds=30)  #: a time that passed longer ago than this is missed
    longest_wait: timedelta = timedelta(
        seconds=1
    )  #: between two steps; changes of rules and pause flags take this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A run to create."""

    deployment: Deployment
    schedule: Schedule
    at: datetime
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The runs to create now, oldest first, and the time of the next one."""

    due: tuple[Due, ...]
    positions: Mapping[str, Flag]  #: flags to store once the runs exist
    next_at: datetime | None


def schedule_run_key(deployment: str, schedule: str, at: datetime) -> str:
    """The idempotency key of a schedule's run."""
    return f"schedule/{deployment}/{schedule}/{format_time(at)}"


def due(
    deployments: Iterable[Deployment], flags: Mapping[str, Flag], now: datetime, settings: SchedulerSettings
) -> Plan:
    """The runs that the schedules create at `now`.

    `flags` hold pauses and, for each schedule, the last time for which a run was created. A new or edited schedule starts
    now, a resumed one when it was resumed.
    """
    found: list[Due] = []
    positions: dict[str, Flag] = {}
    upcoming: list[datetime] = []
    for deployment in deployments:
        for schedule in deployment.schedules:
            if is_paused(deployment.name, schedule, flags):
                continue
            key = _position_key(deployment.name, schedule.name)
            meaning = _meaning(schedule)
            position = flags.get(key)
            if position is None or position.note != meaning:
                positions[key] = Flag(paused=False, changed=format_time(now), note=meaning)
                since = now
            else:
                switches = (deployment_flag(deployment.name), schedule_flag(deployment.name, schedule.name))
                said = [position, *(flags[switch] for switch in switches if switch in flags)]
                since = max(_changed(flag, now) for flag in said)
            fresh, old = missed(schedule, since, now, late_after=settings.late_after)
            found.extend(Due(deployment=deployment, schedule=schedule, at=at, late=True) for at in old)
            found.extend(Due(deployment=deployment, schedule=schedule, at=at, late=False) for at in fresh)
            if times := [*old, *fresh]:
                positions[key] = Flag(paused=False, changed=format_time(times[-1]), note=meaning)
            if (following := next_after(schedule, now)) is not None:
                upcoming.append(following)
    found.sort(key=lambda item: item.at)
    return Plan(due=tuple(found), positions=positions, next_at=min(upcoming, default=None))


def _changed(flag: Flag, now: datetime) -> datetime:
    """When a flag was set; now when that can not be read, so that one flag does not end all schedules."""
    try:
        found = datetime.fromisoformat(flag.changed)
    except ValueError:
        log.error("a flag was set at %.40r, which is no time; its schedule starts now", flag.changed)
        return now
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _position_key(deployment: str, schedule: str) -> str:
    return f"position/{deployment}/{schedule}"


def _meaning(schedule: Schedule) -> str:
    """What identifies the times of a schedule; it changes when the schedule is edited."""
    times = (schedule.cron, schedule.interval, schedule.anchor, schedule.rrule, schedule.timezone)
    return hashlib.blake2b(repr(times).encode(), digest_size=8).hexdigest()


class Scheduler:
    """Creates the runs of all schedules. Any number may run at once."""

    def __init__(
        self,
        stores: Stores,
        deployments: Deployments,
        orchestrator: BuiltInOrchestrator,
        *,
        settings: SchedulerSettings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._deployments = deployments
        self._orchestrator = orchestrator
        self._settings = settings or SchedulerSettings()
        self._clock = clock

    async def step(self) -> Plan:
        """Create the runs that are due."""
        now = self._clock()
        plan = due(self._deployments.current().values(), await self._stores.flags.all(), now, self._settings)
        for item in plan.due:
            await self._create(item, now)
        for key, flag in plan.positions.items():
            await self._advance(key, flag)
        return plan

    async def _create(self, item: Due, now: datetime) -> None:
        """Create one run. One that is refused is logged and left out: the schedules behind it must not wait for ever."""
        name = schedule_name(item)
        try:
            run = new_run(
                item.deployment,
                key=schedule_run_key(item.deployment.name, item.schedule.name, item.at),
                parameters=item.schedule.parameters,
                now=now,
                scheduled_for=item.at,
                late=item.late,
                related=({"id": f"whenthen.schedule.{name}", "role": "schedule", "name": item.schedule.name},),
                triggered_by=f"schedule:{item.schedule.name}",
            )
            created = await self._orchestrator.submit(run)
        except (BusUnavailable, Conflict):
            raise
        except WhenthenError as error:
            log.error("schedule %s: the run for %s is refused and left out: %s", name, item.at, error)
            return
        except Exception:
            log.exception("schedule %s: the run for %s can not be created and is left out", name, item.at)
            return
        log.info("schedule %s: flow run %s for %s", name, created.id, created.scheduled_for)

    async def run(self) -> None:
        """Create runs until cancelled. Errors of the store are logged and the step is repeated."""
        while True:
            wait = self._settings.longest_wait
            try:
                plan = await self.step()
                if plan.next_at is not None:
                    wait = min(wait, max(plan.next_at - self._clock(), timedelta(0)))
            except WhenthenError as error:
                log.warning("schedules can not be evaluated, trying again: %s", error)
            await asyncio.sleep(wait.total_seconds())

    async def _advance(self, key: str, flag: Flag) -> None:
        found = await self._stores.flags.get(key)
        if found is not None and found[0].note == flag.note and found[0].changed >= flag.changed:
            return
        try:
            await self._stores.flags.put(key, flag, found[1] if found else 0)
        except Conflict:
            log.debug("%s was advanced by another scheduler", key)


def schedule_name(item: Due) -> str:
    """Deployment and schedule, for logs and resource ids."""
    return f"{item.deployment.name}.{item.schedule.name}"
