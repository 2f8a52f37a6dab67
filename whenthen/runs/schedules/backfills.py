"""Runs of a schedule for times of the past: which they would be, and starting them. A time that has had its run gets no second one.

Called by `engine.process`. Meaning: docs/deployments.md, "Backfills".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.run_states import new_run
from whenthen.runs.schedules.past_times import Span, span_of
from whenthen.runs.schedules.scheduler import schedule_run_key
from whenthen.schemas.deployments import Deployment, Schedule
from whenthen.schemas.errors import InvalidInput, NotFound, did_you_mean
from whenthen.schemas.times import format_time

__all__ = ["MOST_BACKFILLED", "Backfill", "Backfills"]

MOST_BACKFILLED: Final = 1000  #: runs of one backfill


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What a backfill is about."""

    deployment: Deployment
    schedule: Schedule
    span: Span


class Backfills:
    """Backfills of one server's deployments."""

    def __init__(self, orchestrator: BuiltInOrchestrator, *, clock: Callable[[], datetime]) -> None:
        self._orchestrator = orchestrator
        self._clock = clock

    async def plan(self, name: str, schedule: str | None, since: datetime, until: datetime) -> Backfill:
        """The runs for the times in [since, until). `schedule` may be left out where there is one.

        Raises:
            NotFound: no such deployment or schedule.
            InvalidInput: the span is none, reaches into the future, or has too many times; says how many.
        """
        deployment = self._orchestrator.deployment(name)
        chosen = _schedule(deployment, schedule)
        if since >= until:
            raise InvalidInput(f"{format_time(since)} is not before the end {format_time(until)}", path=("since",))
        if until > self._clock():
            raise InvalidInput(
                f"{format_time(until)} lies in the future, whose runs the schedule starts", path=("until",)
            )
        span = await asyncio.to_thread(span_of, chosen, since, until, most=MOST_BACKFILLED)
        if span.count > MOST_BACKFILLED:
            raise InvalidInput(
                f"schedule {chosen.name!r} has {'' if span.exact else 'about '}{span.count:,} times from {format_time(since)} to "
                f"{format_time(until)}; a backfill is of at most {MOST_BACKFILLED:,} runs, so take parts of it",
                path=("since",),
            )
        return Backfill(deployment=deployment, schedule=chosen, span=span)

    async def start(self, backfill: Backfill) -> tuple[int, int]:
        """Start the runs; gives how many are new, and how many there were before."""
        started = 0
        deployment, schedule = backfill.deployment, backfill.schedule
        label = f"whenthen.schedule.{deployment.name}.{schedule.name}"
        for at in backfill.span.times:
            now = self._clock()
            run = new_run(
                deployment,
                key=schedule_run_key(deployment.name, schedule.name, at),
                parameters=schedule.parameters,
                now=now,
                scheduled_for=at,
                related=({"id": label, "role": "schedule", "name": schedule.name},),
                triggered_by=f"backfill:{schedule.name}",
            )
            if not await self._orchestrator.has_run(run.id):
                await self._orchestrator.submit(run)
                started += 1
        return started, len(backfill.span.times) - started


def _schedule(deployment: Deployment, name: str | None) -> Schedule:
    known = {schedule.name: schedule for schedule in deployment.schedules}
    if name is not None:
        if name not in known:
            raise NotFound(f"deployment {deployment.name!r} has no schedule {name[:200]!r}{did_you_mean(name, known)}")
        return known[name]
    if len(known) != 1:
        found = f"has {len(known)} schedules ({', '.join(known)}); say which" if known else "has no schedule"
        raise InvalidInput(f"deployment {deployment.name!r} {found}", path=("schedule",))
    return next(iter(known.values()))
