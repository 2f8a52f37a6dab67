"""The reaper: finds runs whose worker died and runs that are not queued; a pure assessment, and the loop that acts on it.

Any number of reapers may run at once; every change is a compare-and-set. Meaning: docs/deployments.md,
"When a worker dies".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from whenthen.cancellation import end_task
from whenthen.runs.pauses.pause_records import is_over
from whenthen.runs.run_states import due_at, finish_attempt, transition
from whenthen.runs.stores import Stored, Stores
from whenthen.schemas.deployments import (
    ACTIVE,
    TERMINAL,
    WAITING,
    FlowRun,
    RunState,
)
from whenthen.schemas.errors import BusUnavailable, Conflict, WhenthenError

__all__ = ["Assessment", "Reaper", "ReaperSettings", "assess", "mark_crashed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaperSettings:
    lost_after: timedelta = timedelta(seconds=60)  #: without a heartbeat for this long a run's worker counts as dead
    late_after: timedelta = timedelta(seconds=60)  #: a run that should have started this long ago is Late
    requeue_after: timedelta = timedelta(seconds=20)  #: a waiting run is put into the queue again this often
    interval: timedelta = timedelta(seconds=5)  #: between two sweeps


class Assessment(StrEnum):
    """The condition of a run that has not ended."""

    FINE = "fine"  #: nothing to do
    CRASHED = "crashed"  #: Running or Paused, and its worker died
    UNCLAIMED = "unclaimed"  #: Pending, and its worker died before it started the run
    CANCELLED = "cancelled"  #: Cancelling, and its worker died
    EXPIRED = "expired"  #: Suspended, and nobody resumed it in time
    LATE = "late"  #: it should have started
    REQUEUE = "requeue"  #: it waits, and may not be in the queue


def assess(run: FlowRun, beat: datetime | None, now: datetime, settings: ReaperSettings) -> Assessment:
    """Assess a run. `beat` is the time of its last heartbeat, None when there is none."""
    changed = datetime.fromisoformat(run.changed)
    if run.state in ACTIVE:
        if now - max(changed, beat or changed) <= settings.lost_after:
            return Assessment.FINE
        if run.state is RunState.CANCELLING:
            return Assessment.CANCELLED
        return Assessment.UNCLAIMED if run.state is RunState.PENDING else Assessment.CRASHED
    if run.state is RunState.SUSPENDED and is_over(run.pause, now):
        return Assessment.EXPIRED
    if run.state is RunState.SCHEDULED and now - due_at(run) > settings.late_after:
        return Assessment.LATE
    if run.state in WAITING and now - changed > settings.requeue_after:
        return Assessment.REQUEUE
    return Assessment.FINE


def mark_crashed(run: FlowRun, assessment: Assessment, now: datetime) -> FlowRun:
    """The next revision of a run that is lost or late.

    Raises:
        ValueError: the assessment calls for no new state.
    """
    if assessment in (Assessment.CRASHED, Assessment.CANCELLED):
        lost = f"no heartbeat of worker {run.worker or '?'} any more"
        return finish_attempt(run, RunState.CRASHED, now, message=lost)
    if assessment is Assessment.UNCLAIMED:
        return transition(run, RunState.SCHEDULED, now, message="its worker died before it started")
    if assessment is Assessment.EXPIRED:
        return transition(run, RunState.FAILED, now, message="it was suspended, and nobody resumed it in time")
    if assessment is Assessment.LATE:
        return transition(run, RunState.LATE, now, message="no worker has started it yet")
    raise ValueError(f"{assessment} changes no run")


class Reaper:
    """Sweeps all runs that have not ended, at an interval."""

    def __init__(
        self,
        stores: Stores,
        *,
        settings: ReaperSettings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._settings = settings or ReaperSettings()
        self._clock = clock
        self._open: dict[str, Stored] = {}
        self._offered: dict[str, tuple[int, datetime]] = {}
        self._unchangeable: dict[str, int] = {}  #: open runs that could not be swept, and the version of each

    async def run(self) -> None:
        """Sweep until cancelled. Errors of the store are logged and the sweep is repeated."""
        while True:
            follow = asyncio.create_task(self._follow())
            try:
                while not follow.done():
                    await self.sweep()
                    await asyncio.wait({follow}, timeout=self._settings.interval.total_seconds())
                follow.result()
            except WhenthenError as error:
                log.warning("flow runs can not be swept, trying again: %s", error)
                await asyncio.sleep(self._settings.interval.total_seconds())
            finally:
                await end_task(follow)

    async def sweep(self, runs: list[Stored] | None = None) -> dict[str, Assessment]:
        """Reconcile `runs` (default: all that have not ended); return each assessment that is not FINE."""
        assessments: dict[str, Assessment] = {}
        for stored in list(self._open.values()) if runs is None else runs:
            if self._unchangeable.get(stored.run.id) == stored.version:
                continue
            try:
                assessment = await self.reconcile(stored)
            except BusUnavailable:
                raise
            except Exception:
                # trying again can not help, and the other runs must not wait for ever
                log.exception("flow run %s can not be swept until it changes", stored.run.id)
                self._unchangeable[stored.run.id] = stored.version
                continue
            if assessment is not Assessment.FINE:
                assessments[stored.run.id] = assessment
        return assessments

    async def reconcile(self, stored: Stored) -> Assessment:
        """Assess one run and act on it."""
        run, now = stored.run, self._clock()
        assessment = assess(run, None, now, self._settings)
        if run.state in ACTIVE and assessment is not Assessment.FINE:
            assessment = assess(run, await self._stores.heartbeats.last(run.id), now, self._settings)
        if assessment is Assessment.FINE:
            return assessment
        if assessment is Assessment.REQUEUE:
            await self._requeue(stored, now)
            return assessment
        try:
            kept = await self._stores.runs.update(mark_crashed(run, assessment, now), stored.version)
        except Conflict:
            return Assessment.FINE  # its state changed meanwhile; the next sweep assesses the new one
        # one that ends with it leaves its warning as every failed run does
        level = logging.INFO if kept.run.state in TERMINAL else logging.WARNING
        log.log(level, "flow run %s of %s: %s, now %s", run.id, run.deployment, assessment, kept.run.state)
        # its slot stays: an acquirer sees that the run is not active, and releasing it here could hit the next attempt
        if kept.run.state in WAITING:
            await self._stores.queue.put(run.id, pool=run.work_pool, deployment=run.deployment)
        return assessment

    async def _requeue(self, stored: Stored, now: datetime) -> None:
        version, at = self._offered.get(stored.run.id, (0, now))
        if version == stored.version and now - at < self._settings.requeue_after:
            return
        run = stored.run
        if await self._stores.queue.put(run.id, pool=run.work_pool, deployment=run.deployment):
            log.warning("flow run %s of %s waited without being queued; it is queued now", run.id, run.deployment)
        self._offered[run.id] = (stored.version, now)

    async def _follow(self) -> None:
        self._open.clear()
        async with aclosing(self._stores.runs.watch()) as revisions:
            async for stored in revisions:
                if stored is None:
                    continue
                if stored.run.state in TERMINAL:
                    self._open.pop(stored.run.id, None)
                    self._offered.pop(stored.run.id, None)
                    self._unchangeable.pop(stored.run.id, None)
                else:
                    self._open[stored.run.id] = stored
