"""Halting runs, letting them go on and ending them, by compare-and-set: of two who resume one run, one does. Called by `runs.orchestrator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from whenthen.runs.pauses.input_checks import checked_input
from whenthen.runs.pauses.pause_records import is_over, outside_pause
from whenthen.runs.run_states import transition
from whenthen.runs.stores import Stored, Stores
from whenthen.schemas.deployments import ACTIVE, HALTED, TERMINAL, FlowRun, RunState, is_run_id
from whenthen.schemas.errors import Conflict, NotFound
from whenthen.schemas.times import format_time

__all__ = ["NotPaused", "PauseChanges", "PauseOver"]

_TRIES: Final = 20  #: of a compare-and-set that fails again and again


class NotPaused(Conflict):
    """A run was to be resumed that waits for nobody."""

    reason = "not_paused"


class PauseOver(Conflict):
    """A run was to be resumed whose time for that is over."""

    reason = "pause_timed_out"


@dataclass(frozen=True, slots=True)
class PauseChanges:
    """Changes of the runs in `stores`."""

    stores: Stores
    clock: Callable[[], datetime]

    async def resume(
        self, run_id: str, given: Any, *, key: str | None = None, by: str = "", since: str | None = None
    ) -> FlowRun:
        """Let a paused run go on, or a suspended one wait for a worker, with input of the type that it waits for. A second call with one `key`
        changes nothing. `since` is that of the pause which is meant: a run may have come to its next one meanwhile.

        Raises:
            NotFound: no such run.
            NotPaused: it waits for nobody, was resumed already, or waits at another pause.
            PauseOver: it is too late.
            InvalidInput: the input does not fit; names each field.
        """

        def change(run: FlowRun, now: datetime) -> FlowRun | None:
            if key is not None and run.resumed == key:
                return None
            if run.state not in HALTED:
                raise NotPaused(f"flow run {run.id} is {run.state}; only one that is Paused or Suspended is resumed")
            pause: Mapping[str, Any] = run.pause or {}
            if since is not None and pause.get("since") != since:
                raise NotPaused(
                    f"flow run {run.id} waits at another pause by now, since {pause.get('since')}; look at it again"
                )
            if is_over(pause, now):
                raise PauseOver(f"flow run {run.id} could be resumed until {pause['until']}; start it again")
            before = run.inputs or {}
            value = checked_input(pause, given, before)
            inputs = {**before, pause["key"]: value} if pause.get("key") else run.inputs
            changes: dict[str, Any] = {
                "inputs": inputs,
                "resumed": key,
                "message": f"resumed by {by}" if by else "resumed",
            }
            if run.state is RunState.PAUSED:
                return transition(run, RunState.RUNNING, now, **changes)
            changes["not_before"] = max(format_time(now), run.scheduled_for)
            return transition(run, RunState.SCHEDULED, now, **changes)

        run = await self._changed(run_id, change)
        if run.state is RunState.SCHEDULED:
            await self.stores.queue.put(run.id, pool=run.work_pool, deployment=run.deployment)
        return run

    async def pause(self, run_id: str, *, by: str = "") -> FlowRun:
        """Let a run that runs wait where it next begins a task or a flow, in its process. One that is paused stays so.

        Raises:
            NotFound: no such run.
            Conflict: it does not run.
        """

        def change(run: FlowRun, now: datetime) -> FlowRun | None:
            if run.state is RunState.PAUSED:
                return None
            message = f"paused by {by}" if by else "paused by request"
            return transition(run, RunState.PAUSED, now, pause=outside_pause(now), message=message)

        return await self._changed(run_id, change)

    async def suspend(self, run_id: str, *, timeout_s: float | None = None, by: str = "") -> FlowRun:
        """Halt a run: one that waits for a worker is kept back, the process of one that runs is stopped. One that is suspended stays so.

        Raises:
            NotFound: no such run.
            Conflict: it has ended, or is being started or cancelled.
        """

        def change(run: FlowRun, now: datetime) -> FlowRun | None:
            if run.state is RunState.SUSPENDED:
                return None
            # what a paused run waits for, it waits for then
            pause = run.pause if run.state is RunState.PAUSED else outside_pause(now, timeout_s=timeout_s)
            message = f"suspended by {by}" if by else "suspended by request"
            return transition(run, RunState.SUSPENDED, now, pause=pause, message=message)

        return await self._changed(run_id, change)

    async def cancel(self, run_id: str) -> FlowRun:
        """Cancel a run: at once when no worker has it, else it becomes Cancelling, and its worker stops its processes. One that has ended, or is
        being cancelled, stays so.

        Raises:
            NotFound: no such run.
        """

        def change(run: FlowRun, now: datetime) -> FlowRun | None:
            if run.state in TERMINAL or run.state is RunState.CANCELLING:
                return None
            to = RunState.CANCELLING if run.state in ACTIVE else RunState.CANCELLED
            return transition(run, to, now, message="cancelled by request")

        return await self._changed(run_id, change)

    async def end(self, run_id: str, to: RunState, *, message: str) -> FlowRun:
        """Put a run into an end that somebody decides. A worker that has it stops its processes then. One that is in it stays so.

        Raises:
            NotFound: no such run.
            Conflict: the table of states does not have the move.
        """

        def change(run: FlowRun, now: datetime) -> FlowRun | None:
            return None if run.state is to else transition(run, to, now, message=message)

        return await self._changed(run_id, change)

    async def stored(self, run_id: str) -> Stored:
        """The run as it is.

        Raises:
            NotFound: no such run.
        """
        found = await self.stores.runs.get(run_id) if is_run_id(run_id) else None
        if found is None:
            raise NotFound(f"there is no flow run {run_id[:80]!r}; `whenthen runs` lists them")
        return found

    async def _changed(self, run_id: str, change: Callable[[FlowRun, datetime], FlowRun | None]) -> FlowRun:
        """The run after a change, of what it is at that moment. None of it changes nothing."""
        for _ in range(_TRIES):
            stored = await self.stored(run_id)
            changed = change(stored.run, self.clock())
            if changed is None:
                return stored.run
            try:
                return (await self.stores.runs.update(changed, stored.version)).run
            except Conflict:
                continue
        raise Conflict(f"flow run {run_id} keeps changing; try again")
