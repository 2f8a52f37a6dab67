"""Deployments that should have completed by a time of the day and did not: the event `deployment.late`, once for each day.

Any number of processes may watch: the event of a deadline has the same id in all of them, and a position, kept by compare-and-set, says which
deadlines were looked at. Called by `engine.process`. Meaning: docs/deployments.md, "Expected completions".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from whenthen.runs.stores import Deployments, Flag, RunFilter, Stores
from whenthen.schemas.calendar import occurrences
from whenthen.schemas.deployments import Deployment, RunState, Schedule
from whenthen.schemas.errors import Conflict, WhenthenError
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.times import format_time

__all__ = ["LatenessWatch", "deadline", "late_event"]

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0  #: between two looks


def deadline(schedule: Schedule, since: datetime, now: datetime) -> tuple[datetime, datetime] | None:
    """The last deadline in (since, now] with the one before it; None when none has passed."""
    times = list(occurrences(schedule, max(since, now - timedelta(days=3)) - timedelta(days=3), now))
    return (times[-2], times[-1]) if len(times) > 1 and times[-1] > since else None


def late_event(deployment: Deployment, before: datetime, at: datetime, *, now: datetime) -> Event:
    """The event of a deadline that passed without a completed run since the one before."""
    name = deployment.name
    digest = hashlib.blake2b(f"{name}\n{format_time(at)}".encode(), digest_size=16).hexdigest()
    return new_event(
        "deployment.late",
        id=f"late-{digest}",
        resource={"id": f"whenthen.deployment.{name}", "name": name, "deployment": name},
        related=[
            {"id": f"whenthen.work-pool.{deployment.work_pool}", "role": "work-pool", "name": deployment.work_pool},
            *({"id": f"whenthen.tag.{tag}", "role": "tag", "name": tag} for tag in deployment.tags),
        ],
        payload={"deployment": name, "expected_by": format_time(at), "since": format_time(before)},
        occurred=at,
        now=now,
        source="flow-runs",
    )


class LatenessWatch:
    """Looks at the deadlines of all deployments."""

    def __init__(
        self,
        stores: Stores,
        deployments: Deployments,
        publish: Callable[[Event], Awaitable[object]],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._stores = stores
        self._deployments = deployments
        self._publish = publish
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled. Errors of the store are logged, and the look is repeated."""
        while True:
            try:
                await self.step()
            except WhenthenError as error:
                log.warning("expected completions can not be looked at, trying again: %s", error)
            await asyncio.sleep(EVERY_S)

    async def step(self) -> list[Event]:
        """Look at the deadlines that passed since the last look; gives the events of those that were missed."""
        found = []
        for deployment in self._deployments.current().values():
            schedule = deployment.expected_times
            if schedule is not None and (event := await self._look(deployment, schedule)) is not None:
                found.append(event)
        return found

    async def _look(self, deployment: Deployment, schedule: Schedule) -> Event | None:
        now, key = self._clock(), f"expected/{deployment.name}"
        position = await self._stores.flags.get(key)
        meaning = str(deployment.expectation and deployment.expectation.by)
        if position is None or position[0].note != meaning:
            # what was due before it was expected is not missed
            await self._advance(key, now, meaning, position[1] if position else 0)
            return None
        passed = deadline(schedule, datetime.fromisoformat(position[0].changed), now)
        if passed is None:
            return None
        before, at = passed
        event = None
        if not await self._completed(deployment.name, before, at):
            event = late_event(deployment, before, at, now=now)
            await self._publish(event)  # before the position: after a crash in between it is the same event again
            log.warning("deployment %s: no run completed by %s", deployment.name, format_time(at))
        await self._advance(key, at, meaning, position[1])
        return event

    async def _completed(self, name: str, after: datetime, until: datetime) -> bool:
        start, end = format_time(after), format_time(until)
        wanted = RunFilter(
            deployment=name,
            states=frozenset({RunState.COMPLETED}),
            fits=lambda run: run.ended is not None and start < run.ended <= end,
        )
        return bool(await self._stores.runs.list(wanted, limit=1))

    async def _advance(self, key: str, at: datetime, meaning: str, version: int) -> None:
        try:
            await self._stores.flags.put(key, Flag(paused=False, changed=format_time(at), note=meaning), version)
        except Conflict:
            log.debug("%s was advanced by another process", key)
