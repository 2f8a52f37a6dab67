"""What becomes of runs whose worker is gone, or that nobody queued: pure judgements, and the loop that acts on them.

Any number of these loops may run at once; every change is a compare-and-set. Meaning: docs/deployments.md,
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
from whenthen.runs.run_states import due_at, settle, transition
from whenthen.runs.stores import Stored, Stores
from whenthen.schemas import ACTIVE, TERMINAL, WAITING, Conflict, FlowRun, RunState, WhenthenError

__all__ = ["Reaper", "ReaperSettings", "Verdict", "judge", "mark_crashed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaperSettings:
    lost_after: timedelta = timedelta(seconds=60)  #: without a heartbeat for this long a worker is gone
    late_after: timedelta = timedelta(seconds=60)  #: a run that should have started this long ago is Late
    requeue_after: timedelta = timedelta(seconds=20)  #: a waiting run is offered to the queue again this often
    interval: timedelta = timedelta(seconds=5)  #: between two looks


class Verdict(StrEnum):
    """What a look at a run concludes."""

    FINE = "fine"  #: nothing to do
    CRASHED = "crashed"  #: its worker is gone while it ran
    UNCLAIMED = "unclaimed"  #: its worker is gone before it ran
    CANCELLED = "cancelled"  #: its worker is gone while it was being cancelled
    LATE = "late"  #: it should have started
    REQUEUE = "requeue"  #: it waits; make sure that it is queued


def judge(run: FlowRun, beat: datetime | None, now: datetime, settings: ReaperSettings) -> Verdict:
    """What to do about a run. `beat` is its last sign of life, None when there is none."""
    changed = datetime.fromisoformat(run.changed)
    if run.state in ACTIVE:
        if now - max(changed, beat or changed) <= settings.lost_after:
            return Verdict.FINE
        if run.state is RunState.CANCELLING:
            return Verdict.CANCELLED
        return Verdict.CRASHED if run.state is RunState.RUNNING else Verdict.UNCLAIMED
    if run.state is RunState.SCHEDULED and now - due_at(run) > settings.late_after:
        return Verdict.LATE
    if run.state in WAITING and now - changed > settings.requeue_after:
        return Verdict.REQUEUE
    return Verdict.FINE


def mark_crashed(run: FlowRun, verdict: Verdict, now: datetime) -> FlowRun:
    """The run after a verdict that changes it.

    Raises:
        ValueError: the verdict changes nothing.
    """
    if verdict in (Verdict.CRASHED, Verdict.CANCELLED):
        lost = f"worker {run.worker or '?'} gave no sign of life any more"
        return settle(run, RunState.CRASHED, now, message=lost)
    if verdict is Verdict.UNCLAIMED:
        return transition(run, RunState.SCHEDULED, now, message="its worker was gone before it started")
    if verdict is Verdict.LATE:
        return transition(run, RunState.LATE, now, message="no worker has started it yet")
    raise ValueError(f"{verdict} changes no run")


class Reaper:
    """Looks at every run that has not ended, again and again."""

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

    async def run(self) -> None:
        """Look until cancelled. Errors of the store are logged and tried again."""
        while True:
            follow = asyncio.create_task(self._follow())
            try:
                while not follow.done():
                    await self.look()
                    await asyncio.wait({follow}, timeout=self._settings.interval.total_seconds())
                follow.result()
            except WhenthenError as error:
                log.warning("flow runs could not be watched over, trying again: %s", error)
                await asyncio.sleep(self._settings.interval.total_seconds())
            finally:
                await end_task(follow)

    async def look(self, runs: list[Stored] | None = None) -> dict[str, Verdict]:
        """Judge `runs` (without them: all that are known to be open) and act. Gives each verdict that is not fine."""
        verdicts: dict[str, Verdict] = {}
        for stored in list(self._open.values()) if runs is None else runs:
            verdict = await self.reconcile(stored)
            if verdict is not Verdict.FINE:
                verdicts[stored.run.id] = verdict
        return verdicts

    async def reconcile(self, stored: Stored) -> Verdict:
        """Judge one run and act."""
        run, now = stored.run, self._clock()
        verdict = judge(run, None, now, self._settings)
        if run.state in ACTIVE and verdict is not Verdict.FINE:
            verdict = judge(run, await self._stores.heartbeats.last(run.id), now, self._settings)
        if verdict is Verdict.FINE:
            return verdict
        if verdict is Verdict.REQUEUE:
            await self._requeue(stored, now)
            return verdict
        try:
            kept = await self._stores.runs.update(mark_crashed(run, verdict, now), stored.version)
        except Conflict:
            return Verdict.FINE  # somebody moved it meanwhile; the next look sees where to
        log.warning("flow run %s of %s: %s, now %s", run.id, run.deployment, verdict, kept.run.state)
        # its slot is left: whoever needs it sees that the run is not active, and freeing it here could hit the next try
        if kept.run.state in WAITING:
            await self._stores.queue.put(run.id, pool=run.work_pool, deployment=run.deployment)
        return verdict

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
                else:
                    self._open[stored.run.id] = stored
