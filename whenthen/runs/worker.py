"""The worker: consumes the run queue of one work pool and executes each run in a process group of its own.

A run belongs to a worker by its state (Pending, then Running, with the worker's name; compare-and-set), by heartbeats,
and by the delivery that is not acknowledged yet. A worker that can not renew its heartbeat stops its processes before
another process may mark the run Crashed, so that no run is executed twice at once. Meaning: docs/deployments.md, "Workers".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from whenthen.cancellation import end_task, wait_unless
from whenthen.runs.attempts.attempt_execution import AttemptExecution
from whenthen.runs.attempts.folder_removal import remove_folder
from whenthen.runs.attempts.run_handling import Handling, Stop, handling
from whenthen.runs.attempts.starting import Shortage, make_folder, pause_file
from whenthen.runs.attempts.stop_reasons import beat_timeout, request_stop, send_heartbeats, watch_state
from whenthen.runs.commands import read_secret
from whenthen.runs.limits.pool_presence import PoolPresence
from whenthen.runs.limits.run_slots import RunSlots
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.reaper import ReaperSettings, assess, mark_crashed
from whenthen.runs.reports.left_reports import LeftReports
from whenthen.runs.run_output import LogLimits
from whenthen.runs.run_states import due_at, finish_attempt, transition
from whenthen.runs.stores import Deployments, QueuedRun, Stored, Stores
from whenthen.runs.warm.warm_pool import MOST_WAITING, WarmPool, WarmSettings
from whenthen.runs.warm.warm_room import MOST_BYTES, WarmRoom
from whenthen.schemas.deployments import (
    ACTIVE,
    TERMINAL,
    WAITING,
    Deployment,
    FlowRun,
    RunState,
)
from whenthen.schemas.errors import (
    BusUnavailable,
    Conflict,
    InvalidInput,
    WhenthenError,
)

__all__ = ["Worker", "WorkerSettings"]

log = logging.getLogger(__name__)

_QUEUES_AGAIN = timedelta(seconds=0.2)  #: from one look at the queues of a pool to the next
MOST_UNFORESEEN = 5  #: errors that nobody foresaw in handling one run, after which it becomes Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    concurrency: int = 4  #: the most runs at once
    heartbeat: timedelta = timedelta(seconds=5)
    lost_after: timedelta = timedelta(seconds=60)  #: the same as the reaper's
    kill_grace: timedelta = timedelta(seconds=10)  #: between TERM and KILL
    drain_grace: timedelta = timedelta(seconds=20)  #: for running processes when the worker stops
    shortage_wait: timedelta = timedelta(seconds=10)  #: until a run is redelivered that could not be started here
    slot_wait: timedelta = timedelta(seconds=1)  #: until a run above the concurrency limit is redelivered
    fetch_wait: timedelta = timedelta(seconds=1)  #: of one fetch from the queue
    retry_pause: timedelta = timedelta(seconds=1)  #: while the stores are unavailable
    left_reports_every: timedelta = timedelta(seconds=30)  #: between two looks for what runs of dead workers left
    max_depth: int = 8  #: of a chain of runs and firings, each started by the one before
    logs: LogLimits = field(default_factory=LogLimits)
    warm_interpreters: int = MOST_WAITING  #: that wait for runs with their imports done
    warm_bytes: int = MOST_BYTES  #: of memory of all of them, where the worker is given no room that it shares


class Worker:
    """One worker of one pool. Any number of workers may share a pool, in any processes."""

    def __init__(
        self,
        stores: Stores,
        deployments: Deployments,
        *,
        root: Path,
        pool: str = "default",
        name: str | None = None,
        settings: WorkerSettings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        resolve: Callable[[str], str] = read_secret,
        environment: Mapping[str, str] | None = None,
        places: asyncio.Semaphore | None = None,
        warm_room: WarmRoom | None = None,
    ) -> None:
        """`places`: how many runs all workers that share it execute at once. `warm_room`: the memory of the interpreters that wait of all workers
        that share it."""
        self.name = name or f"{os.uname().nodename}-{os.getpid()}-{pool}"
        self.pool = pool
        self._stores = stores
        self._deployments = deployments
        self._root = root
        self._settings = settings or WorkerSettings()
        self._clock = clock
        self._resolve = resolve
        self._environment = dict(os.environ if environment is None else environment)
        self._places = places
        self._stopping = asyncio.Event()
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, FlowRun] = {}
        self._presence = PoolPresence(
            stores,
            deployments,
            worker=self.name,
            pool=pool,
            concurrency=self._settings.concurrency,
            every=self._settings.heartbeat,
            clock=clock,
        )
        self._warm = WarmPool(
            deployments,
            pool=pool,
            root=root,
            environment=self._environment,
            kill_grace=self._settings.kill_grace,
            settings=WarmSettings(most=self._settings.warm_interpreters),
            room=warm_room or WarmRoom(self._settings.warm_bytes),
        )
        self._slots = RunSlots(stores, deployments, clock=clock)
        self._left = LeftReports(
            parent=Path(tempfile.gettempdir()),
            stores=stores,
            deployments=deployments,
            resolve=resolve,
            clock=clock,
            limits=self._settings.logs,
        )
        self._suspended: set[str] = (
            set()
        )  #: runs whose attempt here ended for a suspension, and that are still delivered
        self._unforeseen: dict[str, int] = {}  #: runs that ended in an error that nobody foresaw, and how often

    @staticmethod
    def room_of(most_bytes: int) -> WarmRoom:
        """A `warm_room` for the workers of a process."""
        return WarmRoom(most_bytes)

    @property
    def paused(self) -> bool:
        """Whether its pool was paused when it last looked."""
        return self._presence.paused

    @property
    def held(self) -> dict[str, FlowRun]:
        """The runs that this worker executes now, by id."""
        return dict(self._held)

    @property
    def warm(self) -> Counter[str]:
        """How many interpreters wait for runs with their imports done, by deployment."""
        return self._warm.ready

    async def run(self) -> None:
        """Execute runs until `stop`; then wait for running ones within the drain grace, and return the rest to the queue."""
        stopping = asyncio.create_task(self._stopping.wait())
        looking = asyncio.create_task(self._left.run(every=self._settings.left_reports_every))
        present = asyncio.create_task(self._presence.run(lambda: len(self._held)))
        warming = asyncio.create_task(self._warm.run())
        try:
            while not self._stopping.is_set():
                if len(self._tasks) >= self._settings.concurrency:
                    await asyncio.wait({stopping, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
                    continue
                pools = await self._presence.pools()
                if not pools:
                    await asyncio.wait({stopping}, timeout=self._settings.fetch_wait.total_seconds())
                    continue
                item = None
                try:
                    item = await self._fetch(pools)
                except BusUnavailable as error:
                    log.warning("worker %s can not fetch runs, trying again: %s", self.name, error)
                    await asyncio.sleep(self._settings.retry_pause.total_seconds())
                if item is not None:
                    task = asyncio.create_task(self._handle(item))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            await self._warm.close()
            if self._tasks:
                log.info("worker %s finishes %d runs", self.name, len(self._tasks))
                await wait_unless(self._hurry, self._tasks, timeout_s=self._settings.drain_grace.total_seconds())
            self._draining.set()
            if self._tasks:
                await asyncio.wait(set(self._tasks))
        finally:
            await end_task(stopping, looking, present, warming, *self._tasks)
            await self._warm.close()
            await self._presence.leave()

    def stop(self) -> None:
        """Fetch no more runs; `run` returns when the running ones have ended or are back in the queue."""
        self._stopping.set()

    def hurry(self) -> None:
        """After `stop`: kill what still runs, and return it to the queue."""
        self._hurry.set()

    async def _fetch(self, pools: Sequence[str]) -> QueuedRun | None:
        """The next run: of the first pool that has any. It is waited for at the last one, not so long that a run of another would wait."""
        *before, last = pools
        for pool in before:
            if (item := await self._stores.queue.fetch(pool, wait=timedelta(0))) is not None:
                return item
        wait = min(self._settings.fetch_wait, _QUEUES_AGAIN) if before else self._settings.fetch_wait
        return await self._stores.queue.fetch(last, wait=wait)

    # One delivery

    async def _handle(self, item: QueuedRun) -> None:
        alive = asyncio.create_task(self._extend_ack_wait(item))
        try:
            async with self._places or contextlib.nullcontext():
                again = await self._process(item)
            if again is None:
                await item.ack()
                await self._offer_if_resumed(item.run_id)
            else:
                await item.nak(again)
            self._unforeseen.pop(item.run_id, None)
        except BusUnavailable as error:
            # not answered: the queue redelivers it after its ack wait
            log.warning("flow run %s: %s", item.run_id, error)
        except Exception as error:  # noqa: BLE001 - logged there, and counted
            await self._give_up_or_redeliver(item, error)
        finally:
            await end_task(alive)

    async def _offer_if_resumed(self, run_id: str) -> None:
        """Queue a run that was suspended and resumed while its delivery was not acknowledged yet, so that it could not be queued."""
        if run_id not in self._suspended:
            return
        self._suspended.discard(run_id)
        stored = await self._stores.runs.get(run_id)
        if stored is not None and stored.run.state in WAITING:
            run = stored.run
            await self._stores.queue.put(run.id, pool=run.work_pool, deployment=run.deployment)

    async def _give_up_or_redeliver(self, item: QueuedRun, error: Exception) -> None:
        """After an error that nobody foresaw: the queue redelivers the run, but not for ever."""
        self._unforeseen[item.run_id] = count = self._unforeseen.get(item.run_id, 0) + 1
        log.error("flow run %s: unexpected error, time %d of %d", item.run_id, count, MOST_UNFORESEEN, exc_info=error)
        if count < MOST_UNFORESEEN:
            return
        message = f"worker {self.name} could not handle it: {type(error).__name__}: {str(error)[:300]}"
        try:
            stored = await self._stores.runs.get(item.run_id)
            if stored is not None and stored.run.state not in TERMINAL:
                ended = finish_attempt(stored.run, RunState.FAILED, self._clock(), retry=False, message=message)
                await self._stores.runs.update(ended, stored.version)
        except (BusUnavailable, Conflict):
            return  # it comes again
        except Exception:
            log.exception("flow run %s: its record can not be changed; it is removed from the queue", item.run_id)
        self._unforeseen.pop(item.run_id, None)
        with contextlib.suppress(BusUnavailable):
            await item.ack()

    async def _extend_ack_wait(self, item: QueuedRun) -> None:
        pause = self._stores.queue.ack_wait.total_seconds() / 3
        while True:
            await asyncio.sleep(pause)
            with contextlib.suppress(BusUnavailable):
                await item.in_progress()

    async def _process(self, item: QueuedRun) -> timedelta | None:
        """Handle a delivered run. Returns the delay of its redelivery; None to acknowledge it."""
        stored = await self._stores.runs.get(item.run_id)
        if stored is None:
            return None
        run, now = stored.run, self._clock()
        beat = await self._stores.heartbeats.last(run.id) if run.state in ACTIVE or run.suspensions else None
        what, delay = handling(run, beat, now, self._settings.lost_after)
        try:
            if what is Handling.DROP:
                return None
            if what is Handling.MARK_CRASHED:
                assessment = assess(run, beat, now, ReaperSettings(lost_after=self._settings.lost_after))
                await self._stores.runs.update(mark_crashed(run, assessment, now), stored.version)
            if what is not Handling.START:
                return delay
            deployment = self._deployments.current().get(run.deployment)
            if deployment is None:
                message = f"deployment {run.deployment!r} is not in the rules that worker {self.name} has"
                await self._stores.runs.update(
                    finish_attempt(run, RunState.FAILED, now, message=message), stored.version
                )
                return None
            return await self._claim(stored, deployment, item)
        except Conflict:
            return timedelta(0)  # its state changed meanwhile; handle it anew

    async def _claim(self, stored: Stored, deployment: Deployment, item: QueuedRun) -> timedelta | None:
        run = stored.run
        if self._stopping.is_set():
            return timedelta(0)
        if (full := await self._slots.look(run, deployment)) is not None:
            if full.cancel:
                cancelled = transition(run, RunState.CANCELLED, self._clock(), message=full.message)
                await self._stores.runs.update(cancelled, stored.version)
                return None
            return self._settings.slot_wait * min(item.deliveries, 5)
        beaten = asyncio.get_running_loop().time()
        await self._stores.heartbeats.beat(run.id, self.name)
        stored = await self._stores.runs.update(
            transition(run, RunState.PENDING, self._clock(), worker=self.name), stored.version
        )
        try:
            if (full := await self._slots.acquire(stored.run, deployment)) is not None:
                waits = transition(stored.run, RunState.SCHEDULED, self._clock(), message=full.message)
                await self._stores.runs.update(waits, stored.version)
                if run.suspensions:
                    await self._stores.heartbeats.clear(run.id)  # it would be taken for that of the attempt before
                return self._settings.slot_wait
            stored = await self._stores.runs.update(
                transition(stored.run, RunState.RUNNING, self._clock(), worker=self.name), stored.version
            )
            self._held[run.id] = stored.run
            return await self._run_attempt(stored, deployment, beaten)
        except Conflict:
            # only a cancellation changes a pending run of this worker
            await self._store_result(stored.run, lambda current, at: finish_attempt(current, RunState.FAILED, at))
            return timedelta(0)
        finally:
            self._held.pop(run.id, None)

    async def _release(self, run: FlowRun) -> None:
        """Release the slots. Only after this worker stored the state: otherwise the next attempt may have them already."""
        try:
            await self._slots.release(run)
            await self._stores.heartbeats.clear(run.id)
        except WhenthenError as error:
            log.info("flow run %s: slots and heartbeat are left to expire: %s", run.id, error)

    # One attempt

    async def _run_attempt(self, stored: Stored, deployment: Deployment, beaten: float) -> timedelta | None:
        """Run the process in a folder of its own, and store the resulting state. The first heartbeat was at `beaten`."""
        try:
            scratch = make_folder()
        except Shortage as error:
            return await self._hand_back(stored.run, error)
        try:
            return await self._attempt_in(scratch, stored, deployment, beaten)
        finally:
            await remove_folder(scratch)  # after the state is stored: it may take long

    async def _attempt_in(
        self, scratch: Path, running: Stored, deployment: Deployment, beaten: float
    ) -> timedelta | None:
        run = running.run
        stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        watchers = [
            asyncio.create_task(watch)
            for watch in (
                watch_state(
                    self._stores,
                    run,
                    stop,
                    is_ours=self._is_ours,
                    pause=self._settings.retry_pause,
                    paused=pause_file(scratch),
                ),
                send_heartbeats(
                    self._stores,
                    run,
                    stop,
                    worker=self.name,
                    every=self._settings.heartbeat,
                    timeout=beat_timeout(self._settings.lost_after, self._settings.kill_grace),
                    beaten=beaten,
                ),
                self._wait_for_drain(stop),
            )
        ]
        try:
            ending = await self._execution(run, deployment).run(scratch, stop)
        except Shortage as error:
            return await self._hand_back(run, error)
        finally:
            await end_task(*watchers)
        if ending is None:
            if stop.result() is Stop.SUSPENDED:
                self._suspended.add(run.id)
                await self._release(run)
                return None
            if stop.result() is Stop.LOST:
                log.warning(
                    "flow run %s does not belong to worker %s any more; its processes were stopped", run.id, self.name
                )
                return self._settings.retry_pause
            message = f"returned to the queue by worker {self.name}, which is stopping"
            await self._return_to_queue(run, message)
            return timedelta(0)
        done = await self._store_result(
            run,
            lambda current, at: finish_attempt(
                current,
                ending.state,
                at,
                retry=ending.retry,
                message=ending.message,
                exit_code=ending.exit_code,
                result=ending.result,
                pause=ending.pause,
            ),
            newest=running,
        )
        if done is not None and done.state is RunState.SUSPENDED:
            self._suspended.add(run.id)
        if done is not None and done.state is RunState.RETRYING:
            return max(due_at(done) - self._clock(), timedelta(0))
        return None if done is not None else self._settings.retry_pause

    async def _hand_back(self, run: FlowRun, shortage: Shortage) -> timedelta:
        """Make a run wait again that could not be started here; gives the delay of its redelivery."""
        message = f"worker {self.name} could not start it: {shortage}"
        log.error("flow run %s is returned to the queue: %s", run.id, message)
        await self._return_to_queue(run, message)
        return self._settings.shortage_wait

    async def _return_to_queue(self, run: FlowRun, message: str) -> None:
        """Make the run wait again; the attempt does not count."""
        await self._store_result(
            run,
            lambda current, at: (
                finish_attempt(current, RunState.CANCELLED, at)
                if current.state is RunState.CANCELLING
                else transition(current, RunState.SCHEDULED, at, message=message, attempt=run.attempt - 1)
            ),
        )

    def _execution(self, run: FlowRun, deployment: Deployment) -> AttemptExecution:
        return AttemptExecution(
            run,
            deployment,
            self._stores,
            BuiltInOrchestrator(self._stores, self._deployments, clock=self._clock),
            root=self._root,
            environment=self._environment,
            resolve=self._resolve,
            clock=self._clock,
            kill_grace=self._settings.kill_grace,
            limits=self._settings.logs,
            hurry=self._hurry,
            warm=self._warm,
            max_depth=self._settings.max_depth,
        )

    async def _store_result(
        self, run: FlowRun, change: Callable[[FlowRun, datetime], FlowRun], *, newest: Stored | None = None
    ) -> FlowRun | None:
        """Store the next state, retrying until it is stored. None when the run does not belong to this worker any more. `newest`: what this
        worker stored last, which few runs change meanwhile."""
        lean = False
        while True:
            try:
                stored, newest = newest or await self._stores.runs.get(run.id), None
                if stored is None or not self._is_ours(stored.run, run):
                    return None
                changed = change(stored.run, self._clock())
                if lean:
                    changed = replace(changed, result=None, message="its result and message could not be stored")
                kept = (await self._stores.runs.update(changed, stored.version)).run
                await self._release(kept)
                return kept
            except Conflict:
                continue
            except BusUnavailable as error:
                log.warning("flow run %s: its state can not be stored, trying again: %s", run.id, error)
                await asyncio.sleep(self._settings.retry_pause.total_seconds())
            except (InvalidInput, TypeError, ValueError) as error:
                # the same record would be refused for ever; the state counts more than what came with it
                if lean:
                    raise
                lean = True
                log.error("flow run %s: its state is stored without result and message: %s", run.id, error)

    def _is_ours(self, current: FlowRun, run: FlowRun) -> bool:
        return current.state in ACTIVE and current.worker == self.name and current.attempt == run.attempt

    async def _wait_for_drain(self, stop: asyncio.Future[Stop]) -> None:
        await self._draining.wait()
        request_stop(stop, Stop.DRAIN)
