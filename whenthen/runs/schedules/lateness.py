"""Deployments that should have completed by a time of the day and did not: the event `deployment.late`, once for each day.

Any number of processes may watch: the event of a deadline has the same id in all of them, and a position, kept by compare-and-set, says which
deadlines were looked at. Called by `engine.process`. Meaning: docs/deployments.md, "Expected completions".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from whenthen.runs.schedules.late_events import advance, late_event
from whenthen.runs.stores import Deployments, RunFilter, Stores
from whenthen.schemas.calendar import occurrences
from whenthen.schemas.deployments import Deployment, RunState, Schedule
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.events import Event
from whenthen.schemas.times import format_time

__all__ = ["LatenessWatch", "deadline"]

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0  #: between two looks


def deadline(schedule: Schedule, since: datetime, now: datetime) -> tuple[datetime, datetime] | None:
    """The last deadline in (since, now] with the one before it; None when none has passed."""
    times = list(occurrences(schedule, max(since, now - timedelta(days=3)) - timedelta(days=3), now))
    return (times[-2], times[-1]) if len(times) > 1 and times[-1] > since else None


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
            expected = deployment.expectation
            if expected is None or (schedule := expected.times) is None:
                continue
            if (event := await self._look(deployment, schedule, meaning=str(expected.by))) is not None:
                found.append(event)
        return found

    async def _look(self, deployment: Deployment, schedule: Schedule, *, meaning: str) -> Event | None:
        """`meaning` is what `schedule` is made of: another one is another expectation."""
        now, key = self._clock(), f"expected/{deployment.name}"
        position = await self._stores.flags.get(key)
        if position is None or position[0].note != meaning:
            # what was due before it was expected is not missed
            await advance(self._stores.flags, key, now, position[1] if position else 0, note=meaning)
            return None
        passed = deadline(schedule, datetime.fromisoformat(position[0].changed), now)
        if passed is None:
            return None
        before, at = passed
        event = None
        if not await self._completed(deployment.name, before, at):
            event = late_event(deployment, at, since=format_time(before), now=now)
            await self._publish(event)  # before the position: after a crash in between it is the same event again
            log.warning("deployment %s: no run completed by %s", deployment.name, format_time(at))
        await advance(self._stores.flags, key, at, position[1], note=meaning)
        return event

    async def _completed(self, name: str, after: datetime, until: datetime) -> bool:
        start, end = format_time(after), format_time(until)
        wanted = RunFilter(
            deployment=name,
            states=frozenset({RunState.COMPLETED}),
            fits=lambda run: run.ended is not None and start < run.ended <= end,
        )
        return bool(await self._stores.runs.list(wanted, limit=1))
