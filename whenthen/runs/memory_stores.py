"""The stores of `runs.stores` in memory, for tests. They give the same guarantees as those over NATS, within one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from whenthen.runs.attempts.attempt_logs import PLACE_BITS, LogBefore, LogGaps, LogLine, LogSlice
from whenthen.runs.reports.task_runs import TaskRunMove, TaskRunPage, TaskRuns
from whenthen.runs.run_pages import RunPageCollector
from whenthen.runs.shared.memory_shared import MemoryArtifactStore, MemoryVariableStore
from whenthen.runs.shared.named_limits import Lease, Rate
from whenthen.runs.stores import (
    EVERY_RUN,
    PAGE_BYTES,
    Flag,
    RunFilter,
    RunPage,
    Stored,
    Stores,
)
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import Conflict
from whenthen.schemas.times import format_time
from whenthen.schemas.work_pools import WorkerRecord

__all__ = [
    "MemoryFlagStore",
    "MemoryHeartbeats",
    "MemoryLogStore",
    "MemoryRunQueue",
    "MemoryRunStore",
    "MemorySlotStore",
    "MemoryTaskRunStore",
    "MemoryToldEvents",
    "MemoryWorkerStore",
    "memory_stores",
]


class MemoryRunStore:
    """Runs and all their revisions."""

    def __init__(self) -> None:
        self._runs: dict[str, Stored] = {}
        self.history: list[Stored] = []  #: every revision, oldest first
        self._version = 0
        self._watchers: set[asyncio.Queue[Stored]] = set()

    async def create(self, run: FlowRun) -> Stored:
        return self._runs.get(run.id) or self._store(run)

    async def get(self, run_id: str) -> Stored | None:
        return self._runs.get(run_id)

    async def update(self, run: FlowRun, version: int) -> Stored:
        self._check(run.id, version)
        return self._store(run)

    async def delete(self, run_id: str, version: int) -> None:
        self._check(run_id, version)
        del self._runs[run_id]

    async def list(self, wanted: RunFilter = EVERY_RUN, *, limit: int = 100, most_bytes: int = PAGE_BYTES) -> RunPage:
        page = RunPageCollector(wanted, limit, most_bytes)
        for stored in self._runs.values():
            page.take(stored, len(orjson.dumps(stored.run)))
        return page.page()

    async def watch(self, run_id: str | None = None) -> AsyncGenerator[Stored | None, None]:
        queue: asyncio.Queue[Stored] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            for stored in list(self._runs.values()):
                if run_id in (None, stored.run.id):
                    yield stored
            yield None
            while True:
                stored = await queue.get()
                if run_id in (None, stored.run.id):
                    yield stored
        finally:
            self._watchers.discard(queue)

    def _check(self, run_id: str, version: int) -> None:
        stored = self._runs.get(run_id)
        if stored is None or stored.version != version:
            raise Conflict(f"flow run {run_id} changed since version {version} was read; read it again")

    def _store(self, run: FlowRun) -> Stored:
        self._version += 1
        stored = Stored(run, self._version)
        self._runs[run.id] = stored
        self.history.append(stored)
        for watcher in self._watchers:
            watcher.put_nowait(stored)
        return stored


class MemoryFlagStore:
    def __init__(self) -> None:
        self._flags: dict[str, tuple[Flag, int]] = {}

    async def get(self, key: str) -> tuple[Flag, int] | None:
        return self._flags.get(key)

    async def put(self, key: str, flag: Flag, version: int) -> int:
        newest = self._flags[key][1] if key in self._flags else 0
        if newest != version:
            raise Conflict(f"flag {key!r} changed since version {version} was read; read it again")
        self._flags[key] = (flag, newest + 1)
        return newest + 1

    async def delete(self, key: str, version: int) -> None:
        if self._flags.get(key, (None, 0))[1] != version:
            raise Conflict(f"flag {key!r} changed since version {version} was read; read it again")
        self._flags.pop(key, None)

    async def all(self) -> dict[str, Flag]:
        return {key: flag for key, (flag, _) in self._flags.items()}


class MemoryLogStore:
    def __init__(self) -> None:
        self._batches: dict[str, list[tuple[int, LogBefore | None, list[LogLine]]]] = {}
        self._names = 0

    async def append(self, run_id: str, lines: Sequence[LogLine], *, before: LogBefore | None = None) -> list[int]:
        if not lines:
            return []
        self._names += 1
        self._batches.setdefault(run_id, []).append((self._names, before, list(lines)))
        return [self._names]

    async def drop(self, run_id: str, names: Sequence[int]) -> None:
        self._batches[run_id] = [batch for batch in self._batches.get(run_id, []) if batch[0] not in names]

    async def forget(self, run_id: str) -> None:
        self._batches.pop(run_id, None)

    async def read(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        lines = [line for _, line in self._after(run_id, 0)]
        return lines[len(lines) - min(tail, len(lines)) :] if tail is not None else lines

    async def page(self, run_id: str, *, after: int, limit: int, most_bytes: int) -> LogSlice:
        found: list[LogLine] = []
        size, place = 0, after
        for at, line in self._after(run_id, after):
            size += len(line.text)
            if len(found) == limit or (found and size > most_bytes):
                return LogSlice(lines=found, next=place, more=True)
            found.append(line)
            place = at
        return LogSlice(lines=found, next=place, more=False)

    async def last(self, run_id: str, *, limit: int, most_bytes: int) -> LogSlice:
        found: list[LogLine] = []
        place = size = 0
        for at, line in reversed(list(self._after(run_id, 0))):
            place = place or at
            size += len(line.text)
            if len(found) == limit or (found and size > most_bytes):
                break
            found.append(line)
        return LogSlice(lines=found[::-1], next=place, more=False)

    def _after(self, run_id: str, place: int) -> Iterator[tuple[int, LogLine]]:
        """The lines from a place on, each with the place behind it."""
        tracker = LogGaps()
        for name, before, lines in self._batches.get(run_id, []):
            gap = tracker.gap(lines, before)
            for index, line in enumerate([gap, *lines], 1):
                behind = (name << PLACE_BITS) + index
                if line is not None and behind > place:
                    yield behind, line


class MemoryTaskRunStore:
    def __init__(self) -> None:
        self.runs: dict[str, TaskRuns] = {}

    async def append(self, run_id: str, moves: Sequence[TaskRunMove]) -> None:
        self.runs.setdefault(run_id, TaskRuns()).add(moves)

    async def forget(self, run_id: str) -> None:
        self.runs.pop(run_id, None)

    async def page(self, run_id: str, *, after: int, limit: int) -> TaskRunPage:
        every = self.runs.get(run_id, TaskRuns()).all()
        return TaskRunPage(task_runs=every[after : after + limit], total=len(every))


class MemoryToldEvents:
    def __init__(self) -> None:
        self.waiting: dict[str, tuple[str, dict[str, Any]]] = {}  #: by id: the run, and what it told

    async def put(self, run_id: str, told: dict[str, Any], *, id: str) -> None:
        self.waiting.setdefault(id, (run_id, told))


@dataclass(slots=True)
class _Queued:
    run_id: str
    pool: str
    queue: MemoryRunQueue
    due: float
    deliveries: int = 0
    done: bool = field(default=False)

    async def ack(self) -> None:
        self.done = True
        self.queue._items.pop(self.run_id, None)

    async def nak(self, delay: timedelta) -> None:
        if not self.done:
            self.due = self.queue._time() + delay.total_seconds()
            self.queue._wake()

    async def in_progress(self) -> None:
        self.due = self.queue._time() + self.queue.ack_wait.total_seconds()


class MemoryRunQueue:
    def __init__(self, ack_wait: timedelta = timedelta(seconds=30)) -> None:
        self.ack_wait = ack_wait
        self._items: dict[str, _Queued] = {}
        self._changed = asyncio.Event()

    async def put(self, run_id: str, *, pool: str, deployment: str) -> bool:
        if run_id in self._items:
            return False
        self._items[run_id] = _Queued(run_id, pool, self, self._time())
        self._wake()
        return True

    async def fetch(self, pool: str, *, wait: timedelta) -> _Queued | None:
        until = self._time() + wait.total_seconds()
        while True:
            now = self._time()
            mine = [item for item in self._items.values() if item.pool == pool]
            for item in mine:
                if item.due <= now:
                    item.due = now + self.ack_wait.total_seconds()
                    item.deliveries += 1
                    return item
            if now >= until:
                return None
            pause = min([until, *(item.due for item in mine)]) - now
            try:
                async with asyncio.timeout(max(pause, 0.001)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryHeartbeats:
    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._beats: dict[str, datetime] = {}

    async def beat(self, run_id: str, worker: str) -> None:
        self._beats[run_id] = self._clock()

    async def last(self, run_id: str) -> datetime | None:
        return self._beats.get(run_id)

    async def clear(self, run_id: str) -> None:
        self._beats.pop(run_id, None)


class MemorySlotStore:
    def __init__(self) -> None:
        self._held: dict[str, list[tuple[str, str]]] = {}  #: holder and key
        self._rates: dict[str, tuple[Rate, int]] = {}
        self._leases: dict[str, Lease] = {}
        self._lock = asyncio.Lock()

    async def acquire(
        self,
        name: str,
        holders: Sequence[str],
        limit: int,
        alive: Callable[[str], Awaitable[bool]],
        *,
        key: str = "",
    ) -> bool:
        async with self._lock:
            held = self._held.setdefault(name, [])
            new = [(holder, key) for holder in dict.fromkeys(holders) if (holder, key) not in held]
            if len(new) + sum(other_key == key for _, other_key in held) > limit:
                held = self._held[name] = [
                    each for each in held if each[0] in holders or each[1] != key or await alive(each[0])
                ]
            if len(new) + sum(other_key == key for _, other_key in held) > limit:
                return not new
            held += new
            return True

    async def release(self, name: str, holders: Collection[str]) -> None:
        async with self._lock:
            self._held[name] = [each for each in self._held.get(name, []) if each[0] not in holders]

    async def holders(self, name: str, *, key: str = "") -> list[str]:
        return [holder for holder, other_key in self._held.get(name, []) if other_key == key]

    async def rate(self, name: str) -> tuple[Rate, int] | None:
        return self._rates.get(name)

    async def put_rate(self, name: str, rate: Rate, version: int) -> None:
        newest = self._rates[name][1] if name in self._rates else 0
        if newest != version:
            raise Conflict(f"the slots of {name!r} changed since version {version} was read")
        self._rates[name] = (rate, newest + 1)

    async def lease(self, id: str) -> Lease | None:
        return self._leases.get(id)

    async def put_lease(self, lease: Lease) -> None:
        self._leases[lease.id] = lease

    async def drop_lease(self, id: str) -> None:
        self._leases.pop(id, None)


class MemoryWorkerStore:
    def __init__(self) -> None:
        self._workers: dict[str, WorkerRecord] = {}

    async def put(self, worker: WorkerRecord) -> None:
        self._workers[worker.name] = replace(worker, seen=format_time(datetime.now(UTC)))

    async def remove(self, name: str) -> None:
        self._workers.pop(name, None)

    async def all(self) -> list[WorkerRecord]:
        return [self._workers[name] for name in sorted(self._workers)]


def memory_stores(*, ack_wait: timedelta = timedelta(seconds=30)) -> Stores:
    """New, empty stores."""
    return Stores(
        runs=MemoryRunStore(),
        flags=MemoryFlagStore(),
        logs=MemoryLogStore(),
        task_runs=MemoryTaskRunStore(),
        told_events=MemoryToldEvents(),
        artifacts=MemoryArtifactStore(),
        variables=MemoryVariableStore(),
        queue=MemoryRunQueue(ack_wait),
        heartbeats=MemoryHeartbeats(),
        slots=MemorySlotStore(),
        workers=MemoryWorkerStore(),
    )
