"""The ports of the evaluation in memory, with faults: so that loop, commit, recovery and leases are tested in milliseconds.

    server = MemoryServer(clock_us=...)              # what NATS keeps: events, ENGINE, leases; survives every process
    process = MemoryConnection(server, Faults({3: Fault(FaultKind.CRASH_AFTER)}))
    ShardLoop(process.events, FencedShardLog(process.engine, 0), evaluator)

Used by tests only. What is kept is in `engine.evaluation.memory_server`, what each port guarantees in
`engine.evaluation.log_ports`; a whole shard without faults is in `engine.evaluation.memory_shard_log`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from whenthen.cancellation import wait_event
from whenthen.engine.bus.batches import (
    BATCH_MESSAGES,
    HEADER_BYTES,
    MessageTooLarge,
    StaleBatch,
)
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.subjects import marker_number, tick_subject
from whenthen.engine.evaluation.log_ports import LeaseEntry, Received, StoredRecord
from whenthen.engine.evaluation.memory_server import (
    Appended,
    Fault,
    FaultKind,
    Faults,
    MemoryServer,
    ProcessDied,
    passes,
)
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event

__all__ = [
    "MemoryConnection",
    "MemoryCursor",
    "MemoryDecisionLog",
    "MemoryEngineStore",
    "MemoryEventLog",
    "MemoryLeaseStore",
]

T = TypeVar("T")


class MemoryConnection:
    """One process's access to a server: its ports, its faults, and whether it is stopped (as by SIGSTOP)."""

    def __init__(self, server: MemoryServer, faults: Faults | None = None) -> None:
        self.server = server
        self.faults = faults or Faults()
        self.events = MemoryEventLog(self)
        self.engine = MemoryEngineStore(self)
        self.leases = MemoryLeaseStore(self)
        self.decisions = MemoryDecisionLog(self)
        self._running = asyncio.Event()
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def pause(self) -> None:
        """Let no operation begin or return until `resume`. Clocks go on."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def operate(
        self,
        operation: str,
        apply: Callable[[], T],
        *,
        late: bool = True,
        expects: Callable[[], bool] = lambda: False,
    ) -> T:
        """One request to the server, with the fault that is planned for it. `late` is False for what reads; `expects` tells
        whether the expectation of a request holds that leaves it as it is."""
        await asyncio.sleep(0)
        await self._running.wait()
        if self.faults.died:
            raise ProcessDied(operation)
        fault = self.faults.next(operation)
        self.server.deliver_late()
        result = self._apply(operation, apply, fault, late=late, expects=expects)
        await self._running.wait()
        return result

    def _apply(
        self, operation: str, apply: Callable[[], T], fault: Fault | None, *, late: bool, expects: Callable[[], bool]
    ) -> T:
        kind = None if fault is None else fault.kind
        if fault is None or kind is None:
            return apply()
        if kind is FaultKind.REFUSED:
            raise unavailable(f"{operation}: refused by a fault", BusReason.REFUSED)
        if kind is FaultKind.CRASH_BEFORE:
            self.faults.died = True
            raise ProcessDied(operation)
        if kind in (FaultKind.REQUEST_LOST, FaultKind.LATE):
            if kind is FaultKind.LATE and late:
                self.server.send_late(apply, fault.late_by)
            raise unavailable(f"{operation}: lost by a fault", BusReason.TIMEOUT)
        result = apply()
        if kind is FaultKind.CRASH_AFTER:
            self.faults.died = True
            raise ProcessDied(operation)
        if kind is FaultKind.ANSWER_LOST:
            raise unavailable(f"{operation}: its answer was lost by a fault", BusReason.TIMEOUT)
        if late:
            self.server.send_late(apply, fault.late_by, lambda: not expects())
        return result


class MemoryCursor:
    """An `EventCursor` over a server's events."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._buffer: deque[Appended] = deque()
        self._filters: list[str] = []
        self._arrived = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self, after: int, filters: Sequence[str]) -> None:
        """See `EventCursor.start`."""
        await self.stop()
        self._filters = list(filters)
        self._buffer.clear()
        for message in self._connection.server.events[after:]:
            self._receive(message)
        self._unsubscribe = self._connection.server.subscribe(self._receive)
        self._arrived.set()

    async def stop(self) -> None:
        """See `EventCursor.stop`."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    @property
    def buffered(self) -> int:
        """See `EventCursor.buffered`."""
        return 0 if self._connection.paused else len(self._buffer)

    @property
    def pending(self) -> int:
        """See `EventCursor.pending`."""
        return len(self._buffer)

    @property
    def caught_up(self) -> bool:
        """See `EventCursor.caught_up`."""
        return self._unsubscribe is not None and not self._buffer and not self._connection.paused

    def take(self) -> Received | None:
        """See `EventCursor.take`."""
        if not self.buffered:
            return None
        message = self._buffer.popleft()
        return Received(message.seq, message.time_us, len(self._buffer), message.subject, message.data)

    async def wait(self, timeout_s: float) -> bool:
        """See `EventCursor.wait`."""
        if not self.buffered:
            self._arrived.clear()
            await wait_event(self._arrived, timeout_s)
        return bool(self.buffered)

    def wake(self) -> None:
        """See `EventCursor.wake`."""
        self._arrived.set()

    def _receive(self, message: Appended) -> None:
        if any(passes(each, message.subject) for each in self._filters):
            self._buffer.append(message)
            self._arrived.set()


class MemoryEventLog:
    """An `EventLog` over a server's events. Reading has no faults; a process that died reads on in vain."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    def cursor(self) -> MemoryCursor:
        """See `EventLog.cursor`."""
        return MemoryCursor(self._connection)

    async def publish(self, event: Event) -> None:
        """See `EventLog.publish`."""
        await self._connection.operate(f"publish {event.name}", lambda: self._connection.server.publish(event))

    async def publish_tick(self, shard: int) -> None:
        """See `EventLog.publish_tick`."""
        subject = tick_subject(shard)
        await self._connection.operate(f"publish {subject}", lambda: self._connection.server.append(subject, b""))

    async def next_marker(self, after: int) -> int:
        """See `EventLog.next_marker`."""

        def first() -> int:
            found = (marker_number(each.subject) for each in self._connection.server.events[after:])
            return next((number for number in found if number is not None), 0)

        return await self._connection.operate("next marker", first, late=False)

    async def pauses_after(self, position: int) -> list[PauseChange]:
        """See `EventLog.pauses_after`."""

        def first() -> list[PauseChange]:
            found: dict[str, PauseChange] = {}
            for each in self._connection.server.events[position:]:
                if each.subject.startswith("pauses."):
                    with suppress(ValueError):
                        change = PauseChange.decode(each.data)
                        found.setdefault(change.automation, change)
            return list(found.values())

        return await self._connection.operate("read pauses", first, late=False)

    async def recent_ids(self, *, since_us: int, before: int) -> list[tuple[str, int]]:
        """See `EventLog.recent_ids`."""

        def ids() -> list[tuple[str, int]]:
            earlier = self._connection.server.events[: before - 1]
            return [(each.event_id, each.time_us) for each in earlier if each.event_id and each.time_us >= since_us]

        return await self._connection.operate("read recent ids", ids, late=False)


class MemoryEngineStore:
    """An `EngineStore` over a server's `ENGINE`. A batch is one operation, each message of `publish_fenced` too."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def has_one_copy(self) -> bool:
        """See `EngineStore.has_one_copy`."""
        return await self._connection.operate("info", lambda: self._connection.server.copies == 1, late=False)

    @property
    def largest(self) -> int:
        """See `EngineStore.largest`."""
        return self._connection.server.max_payload - HEADER_BYTES

    async def make_room(self, needed: int) -> int:
        """See `EngineStore.make_room`."""
        return await self._connection.operate(
            "make room", lambda: self._connection.server.make_room(needed), late=False
        )

    async def last(self, subject: str, *, timeout_s: float = 5.0) -> StoredRecord | None:
        """See `EngineStore.last`."""

        def get() -> StoredRecord | None:
            kept = self._connection.server.get(subject)
            return None if kept is None else StoredRecord(kept.seq, kept.data or b"")

        return await self._connection.operate(f"get {subject}", get, late=False)

    async def publish_batch(self, messages: Sequence[Message], *, expect: int | None) -> int:
        """See `EngineStore.publish_batch`."""
        assert 0 < len(messages) <= BATCH_MESSAGES, f"a batch of {len(messages)} messages"
        batch = list(messages)
        subject = batch[-1].subject
        store = self._connection.server.store
        return await self._connection.operate(
            f"batch of {len(batch)}, {subject}", lambda: store(batch, subject=subject, expect=expect)
        )

    async def publish_fenced(self, messages: Sequence[Message], *, subject: str, expect: int) -> None:
        """See `EngineStore.publish_fenced`."""
        failed: list[StaleBatch | MessageTooLarge | BusUnavailable] = []

        def holds() -> bool:
            last = self._connection.server.get(subject)
            return expect == (last.seq if last else 0)

        for number, message in enumerate(messages):
            try:
                if number and self._connection.server.copies > 1:
                    raise StaleBatch("a message of the same expectation is being stored")
                await self._connection.operate(
                    f"fenced {message.subject}", self._fenced(message, subject, expect), expects=holds
                )
            except (StaleBatch, MessageTooLarge, BusUnavailable) as error:
                failed.append(error)
        if failed:
            raise min(failed, key=lambda error: isinstance(error, BusUnavailable))

    def _fenced(self, message: Message, subject: str, expect: int) -> Callable[[], int]:
        return lambda: self._connection.server.store([message], subject=subject, expect=expect)

    async def read(self, filter_subject: str, *, after: int, receive: Callable[[str, bytes], None]) -> int:
        """See `EngineStore.read`."""
        server = self._connection.server
        found = await self._connection.operate(
            f"read {filter_subject}", lambda: server.read(filter_subject, after), late=False
        )
        for message in found:
            receive(message.subject, message.data or b"")
        return found[-1].seq if found else after


class MemoryDecisionLog:
    """A `DecisionLog` over a server's."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    @property
    def largest(self) -> int:
        """See `DecisionLog.largest`."""
        return self._connection.server.max_payload - HEADER_BYTES

    async def append(self, shard: int, data: bytes, message_id: str) -> int:
        """See `DecisionLog.append`."""
        server = self._connection.server
        return await self._connection.operate("append decisions", lambda: server.decide(shard, data, message_id))

    async def read(self, shard: int, *, after: int, receive: Callable[[int, bytes], None]) -> None:
        """See `DecisionLog.read`."""
        server = self._connection.server
        found = await self._connection.operate("read decisions", lambda: server.decisions[after:], late=False)
        for message in found:
            if message.shard == shard:
                receive(message.seq, message.data)


class MemoryLeaseStore:
    """A `LeaseStore` over a server's leases."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection

    async def put(self, key: str, value: bytes) -> None:
        """See `LeaseStore.put`."""
        await self._connection.operate(f"put {key}", lambda: self._connection.server.put_lease(key, value))

    async def update(self, key: str, value: bytes, *, last: int) -> int:
        """See `LeaseStore.update`."""
        server = self._connection.server
        return await self._connection.operate(f"update {key}", lambda: server.put_lease(key, value, last))

    async def get(self, key: str) -> LeaseEntry | None:
        """See `LeaseStore.get`."""
        leases = self._connection.server.leases
        entry = await self._connection.operate(f"get {key}", lambda: leases.get(key), late=False)
        return entry if entry is not None and entry.value else None

    async def delete(self, key: str) -> None:
        """See `LeaseStore.delete`."""
        await self._connection.operate(f"delete {key}", lambda: self._connection.server.put_lease(key, b""))

    async def entries(self) -> list[LeaseEntry]:
        """See `LeaseStore.entries`."""
        leases = self._connection.server.leases
        return await self._connection.operate("list leases", lambda: list(leases.values()), late=False)
