"""The pauses that the process of a run asks its worker for. Called by `reports.run_requests`.

A run is Paused while its process waits for the answer; the answer is the input, or that nobody resumed it in time. A run that asks to be suspended is told to
end its process, and becomes Suspended when that has ended, so that it never runs twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, Never

from whenthen.runs.pauses.pause_records import is_over, is_paused_outside, read_pause, waits_for
from whenthen.runs.run_states import transition
from whenthen.runs.stores import Stored, Stores
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.errors import BusUnavailable, Conflict

__all__ = ["AskedPauses"]

_PAUSE_S: Final = 0.5  #: before a store that is away is asked again
_LOOK_S: Final = 5.0  #: at the clock, at the latest


class AskedPauses:
    """Those of one attempt."""

    def __init__(self, run: FlowRun, stores: Stores, *, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._stores = stores
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()  # threads of one run may ask at once, and a run waits for one thing
        self.suspension: dict[str, Any] | None = (
            None  #: with which the run becomes Suspended when its process has ended
        )
        self.suspended = asyncio.Event()

    async def pause(self, body: dict[str, Any]) -> dict[str, Any]:
        """Wait until somebody resumes the run, or its time is over.

        Raises:
            InvalidInput: what is asked for is none.
        """
        async with self._one_at_a_time:
            await self.wait()
            while True:
                try:
                    pause = read_pause(body, self._clock())
                    current = await self._current(pause["key"])
                    if current.run.state is RunState.PAUSED:  # it was stored, and the store did not say so
                        pause = current.run.pause or pause
                        break
                    if pause["key"] in (current.run.inputs or {}):
                        return {"input": (current.run.inputs or {})[pause["key"]]}
                    paused = transition(
                        current.run, RunState.PAUSED, self._clock(), pause=pause, message=waits_for(pause)
                    )
                    await self._stores.runs.update(paused, current.version)
                    break
                except BusUnavailable:
                    await asyncio.sleep(_PAUSE_S)
                except Conflict:
                    continue
            return await self._resumed(pause)

    async def wait(self) -> dict[str, Any]:
        """Wait while somebody has paused the run from outside."""
        while True:
            try:
                stored = await self._stores.runs.get(self._run.id)
                if stored is None or not is_paused_outside(stored.run):
                    return {}
                await self._changed({"until": None})
            except BusUnavailable:
                await asyncio.sleep(_PAUSE_S)

    async def suspend(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the run is given, if it was resumed from this pause before; else its process is told to end.

        Raises:
            InvalidInput: see `pause`. BusUnavailable: it is not known whether it may.
        """
        async with self._one_at_a_time:
            await self.wait()
            pause = read_pause(body, self._clock())
            inputs = (await self._current(pause["key"])).run.inputs or {}
            if pause["key"] in inputs:
                return {"input": inputs[pause["key"]]}
            self.suspension = pause
            self.suspended.set()
            return {"suspended": True}

    async def _current(self, key: str) -> Stored:
        """The run as it is: Running, or Paused with this key. Where it is neither, or in another attempt, its process is being stopped, and is given
        no answer on which its code would go on: it ends as what it is stopped for."""
        stored = await self._stores.runs.get(self._run.id)
        if stored is not None and stored.run.attempt == self._run.attempt:
            waits = stored.run.state is RunState.PAUSED and (stored.run.pause or {}).get("key") == key
            if waits or stored.run.state is RunState.RUNNING:
                return stored
        return await _for_ever()

    async def _resumed(self, pause: dict[str, Any]) -> dict[str, Any]:
        key = pause["key"]
        while True:
            try:
                current = await self._changed(pause)
                if current.run.attempt != self._run.attempt:
                    return await _for_ever()
                if current.run.state is RunState.RUNNING:
                    inputs = current.run.inputs or {}
                    return {"input": inputs[key]} if key in inputs else {"timed_out": True}
                if current.run.state is not RunState.PAUSED:
                    return await _for_ever()
                over = transition(current.run, RunState.RUNNING, self._clock(), message="nobody resumed it in time")
                await self._stores.runs.update(over, current.version)
                return {"timed_out": True}
            except BusUnavailable:
                await asyncio.sleep(_PAUSE_S)
            except Conflict:
                continue  # somebody was faster

    async def _changed(self, pause: dict[str, Any]) -> Stored:
        """The run when it is not Paused any more, or when its pause is over by the clock."""
        async with aclosing(self._stores.runs.watch(self._run.id)) as revisions:
            following = asyncio.ensure_future(anext(revisions))
            newest: Stored | None = None
            try:
                while True:
                    await asyncio.wait({following}, timeout=self._left_s(pause))
                    if following.done():
                        found = following.result()
                        if found is not None:
                            newest = found
                            if found.run.state is not RunState.PAUSED:
                                return found
                        following = asyncio.ensure_future(anext(revisions))
                    if newest is not None and is_over(pause, self._clock()):
                        return newest
            finally:
                following.cancel()
                await asyncio.wait({following})

    def _left_s(self, pause: dict[str, Any]) -> float:
        if pause["until"] is None:
            return _LOOK_S
        left_s = (datetime.fromisoformat(pause["until"]) - self._clock()).total_seconds()
        return min(_LOOK_S, max(left_s, 0.01))


async def _for_ever() -> Never:
    """Wait until the connection of the process ends with it."""
    while True:
        await asyncio.sleep(3600)
