"""Why a worker stops a process that still runs: its run was cancelled or suspended, or belongs to another worker, or soon may.

Called by `worker`, which waits for `stop`; the first reason counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta

from whenthen.runs.attempts.run_handling import Stop
from whenthen.runs.pauses.pause_records import is_paused_outside
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.errors import BusUnavailable

__all__ = ["beat_timeout", "request_stop", "send_heartbeats", "watch_state"]


#: where a run is that was suspended by somebody, and perhaps resumed already; from a running attempt nothing else leads there
_SUSPENDED = frozenset({RunState.SUSPENDED, RunState.SCHEDULED, RunState.LATE})


def request_stop(stop: asyncio.Future[Stop], reason: Stop) -> None:
    """Ask for the processes to be stopped, if nothing has yet."""
    if not stop.done():
        stop.set_result(reason)


async def watch_state(
    stores: Stores,
    run: FlowRun,
    stop: asyncio.Future[Stop],
    *,
    is_ours: Callable[[FlowRun, FlowRun], bool],
    pause: timedelta,
    paused: Callable[[bool], None] = lambda is_paused: None,
) -> None:
    """Stop the processes when the run is cancelled or suspended, or belongs to another worker. `pause` is between tries of a store that is
    away; `paused` is told whether somebody has paused the run from outside."""
    while not stop.done():
        try:
            async with aclosing(stores.runs.watch(run.id)) as revisions:
                async for stored in revisions:
                    if stored is None:
                        continue
                    if stored.run.state in _SUSPENDED and stored.run.attempt == run.attempt:
                        request_stop(stop, Stop.SUSPENDED)
                    elif not is_ours(stored.run, run):
                        request_stop(stop, Stop.LOST)
                    elif stored.run.state is RunState.CANCELLING:
                        request_stop(stop, Stop.CANCELLED)
                    else:
                        paused(is_paused_outside(stored.run))
        except BusUnavailable:
            await asyncio.sleep(pause.total_seconds())


def beat_timeout(lost_after: timedelta, kill_grace: timedelta) -> timedelta:
    """How long heartbeats may fail: the processes must have exited before the reaper's `lost_after`."""
    return max(lost_after - kill_grace, lost_after / 2) * 0.8


async def send_heartbeats(
    stores: Stores,
    run: FlowRun,
    stop: asyncio.Future[Stop],
    *,
    worker: str,
    every: timedelta,
    timeout: timedelta,
    beaten: float,
) -> None:
    """Renew the heartbeat, which was at `beaten` by the loop's clock; when that fails for `timeout`, stop the processes before another worker
    may start the run."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every.total_seconds())
        began = loop.time()
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await stores.heartbeats.beat(run.id, worker)
            beaten = began
        except (BusUnavailable, TimeoutError):
            if loop.time() - beaten > timeout.total_seconds():
                request_stop(stop, Stop.LOST)
