"""Runs that take longer than their deployments expect: the event `deployment.late` of a run that has not ended `within` a time of its start.

Any number of processes may look at once: the event of a run has the same id in all of them, and a position, kept by compare-and-set, says up to
which moment runs were looked at. Called by `engine.process`. Meaning: docs/deployments.md, "Expected completions".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final

from whenthen.cancellation import end_task
from whenthen.runs.schedules.late_events import advance, late_event
from whenthen.runs.stores import Deployments, Stores
from whenthen.schemas.deployments import TERMINAL, Deployment, FlowRun
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.events import Event
from whenthen.schemas.times import format_time

__all__ = ["OverdueRuns"]

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0  #: between two looks


class OverdueRuns:
    """Looks at the runs of deployments that expect them to be done within a time."""

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
        self._open: dict[str, FlowRun] = {}
        self._known = False  #: whether all runs that have not ended are in `_open`

    async def run(self) -> None:
        """Look until cancelled. Errors of the stores are logged, and it begins anew."""
        while True:
            following = asyncio.create_task(self._follow()) if self._expecting() else None
            try:
                while following is None or not following.done():
                    await asyncio.sleep(EVERY_S)
                    if following is None and self._expecting():
                        break  # rules that expect something have come
                    await self.step()
                if following is not None and following.done():
                    following.result()
            except WhenthenError as error:
                log.warning("runs that take long can not be looked at, trying again: %s", error)
            finally:
                if following is not None:
                    await end_task(following)
                    await asyncio.gather(following, return_exceptions=True)  # it may have failed besides

    async def step(self) -> list[Event]:
        """Look at the moments that passed since the last look; gives the events of runs that had not ended by theirs."""
        found: list[Event] = []
        if not self._known:
            return found  # the position would pass runs that are still to be read
        now = self._clock()
        for deployment, within in self._expecting():
            key = f"overdue/{deployment.name}"
            position = await self._stores.flags.get(key)
            if position is None:
                # runs that were over their time before that was asked for are left out
                await advance(self._stores.flags, key, now, 0)
                continue
            since = datetime.fromisoformat(position[0].changed)
            late = [
                (due, run)
                for run in self._open.values()
                if run.deployment == deployment.name
                and run.begun is not None
                and since < (due := datetime.fromisoformat(run.begun) + within) <= now
            ]
            for due, run in late:
                event = late_event(deployment, due, since=run.begun, now=now, run=run)
                await self._publish(event)  # before the position: after a crash in between it is the same event again
                log.warning("deployment %s: run %s was to be done by %s", deployment.name, run.id, format_time(due))
                found.append(event)
            if late or now - since > timedelta(minutes=1):  # a position that moves costs a write
                await advance(self._stores.flags, key, now, position[1])
        return found

    async def look(self) -> None:
        """Know the runs that have not ended, once."""
        await self._follow(once=True)

    def _expecting(self) -> list[tuple[Deployment, timedelta]]:
        return [
            (deployment, expected.within)
            for deployment in self._deployments.current().values()
            if (expected := deployment.expectation) is not None and expected.within is not None
        ]

    async def _follow(self, *, once: bool = False) -> None:
        self._open.clear()
        self._known = False
        async with aclosing(self._stores.runs.watch()) as revisions:
            async for stored in revisions:
                if stored is not None:
                    self._take(stored.run)
                    continue
                self._known = True
                if once:
                    return

    def _take(self, run: FlowRun) -> None:
        if run.state in TERMINAL:
            self._open.pop(run.id, None)
        else:
            self._open[run.id] = run
