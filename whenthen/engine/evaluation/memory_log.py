"""The ports of the evaluation in memory, with faults: so that loop, commit, recovery and leases are tested in milliseconds.

    server = MemoryServer(clock_us=...)              # what NATS keeps: events, ENGINE, leases; survives every process
    process = MemoryConnection(server, Faults({3: Fault(FaultKind.CRASH_AFTER)}))
    ShardLoop(process.events, FencedShardLog(process.engine, 0), evaluator)

Used by tests only. Nothing is removed but what expires or is deleted, so it grows with what is stored. Guarantees:
`engine.evaluation.log_ports`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from whenthen.cancellation import wait_event
from whenthen.engine.bus import (
    BATCH_MESSAGES,
    BusReason,
    Message,
    Offset,
    StaleBatch,
    decode_window,
    event_subject,
    offset_subject,
    shard_subjects,
    tick_subject,
    unavailable,
)
from whenthen.engine.evaluation.log_ports import Fenced, LeaseEntry, Received, StoredRecord, WrongRevision
from whenthen.schemas import BusUnavailable, Event

__all__ = [
    "Fault",
    "FaultKind",
    "Faults",
    "MemoryConnection",
    "MemoryCursor",
    "MemoryEngineStore",
    "MemoryEventLog",
    "MemoryLeaseStore",
    "MemoryServer",
    "MemoryShardLog",
    "ProcessDied",
]

T = TypeVar("T")
DUPLICATE_WINDOW_US = 120 * 1_000_000


class ProcessDied(BaseException):
    """The process was killed at this operation. No `Exception`, so that nothing in the code under test handles it."""


class FaultKind(StrEnum):
    REQUEST_LOST = "request_lost"  #: not applied, and no answer
    ANSWER_LOST = "answer_lost"  #: applied, and no answer
    REFUSED = "refused"  #: not applied, and the answer says so
    LATE = "late"  #: no answer; applied `late_by` operations later, if its expectation still holds then
    #: applied and answered; delivered again `late_by` operations later or when its expectation has ceased to hold,
    #: whichever is later: NATS delivers a request once, so a copy is one that was sent again, and that is not done before
    DUPLICATED = "duplicated"
    CRASH_BEFORE = "crash_before"  #: the process dies, and nothing was applied
    CRASH_AFTER = "crash_after"  #: the process dies after it was applied


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    late_by: int = 1  #: operations of any process; the message is delivered just before that one


class Faults:
    """Which operations of one process go wrong, by their number from 0, and what operations there were."""

    def __init__(self, plan: Mapping[int, Fault] | None = None) -> None:
        self._plan = dict(plan or {})
        self.operations: list[str] = []
        self.died = False

    def next(self, operation: str) -> Fault | None:
        """Count an operation and give its fault."""
        self.operations.append(operation)
        return self._plan.get(len(self.operations) - 1)


class Appended(NamedTuple):
    """A message of the event log as it is kept."""

    seq: int
    time_us: int
    subject: str
    data: bytes
    event_id: str


class Kept(NamedTuple):
    """A message of `ENGINE` as it is kept; `data` is None for a deletion."""

    seq: int
    subject: str
    data: bytes | None
    expires_us: int


@dataclass(slots=True)
class _InFlight:
    deliver: Callable[[], object]
    left: int  #: operations until it is delivered
    may_come: Callable[[], bool]  #: else it is not delivered yet


class MemoryServer:
    """What all processes share. `clock_us` gives the timestamps, in microseconds; one that goes back is held."""

    def __init__(self, clock_us: Callable[[], int], *, copies: int = 1) -> None:
        self.copies = copies  #: of `ENGINE`; with several, one message at a time may expect something of a subject
        self.lagging_reads = 0  #: so many reads of `ENGINE` are answered by a replica that lags
        self.lag_messages = 1  #: and lacks so many of the last messages
        self.events: list[Appended] = []
        self.history: list[Kept] = []  #: everything that was stored in `ENGINE`, deletions included
        self.on_stored: list[Callable[[Kept], None]] = []
        self.leases: dict[str, LeaseEntry] = {}
        self._clock_us = clock_us
        self._now_us = 0
        self._kept: dict[str, Kept] = {}
        self._event_ids: dict[str, int] = {}
        self._lease_revision = 0
        self._cursors: list[MemoryCursor] = []
        self._in_flight: list[_InFlight] = []

    def now_us(self) -> int:
        self._now_us = max(self._now_us, self._clock_us())
        return self._now_us

    # -- events

    def append(self, subject: str, data: bytes, event_id: str = "") -> int:
        """Append to the event log and give the position; that of the first one when the id was seen lately."""
        now_us = self.now_us()
        known = self._event_ids.get(event_id) if event_id else None
        if known is not None and self.events[known - 1].time_us > now_us - DUPLICATE_WINDOW_US:
            return known
        message = Appended(len(self.events) + 1, now_us, subject, data, event_id)
        self.events.append(message)
        if event_id:
            self._event_ids[event_id] = message.seq
        for cursor in self._cursors:
            cursor.receive(message)
        return message.seq

    def publish(self, event: Event) -> int:
        """Append an event and give its position."""
        return self.append(event_subject(event.name), event.encode(), event.id)

    def subscribe(self, cursor: MemoryCursor) -> None:
        """Hand `cursor` what is appended from now on."""
        self.unsubscribe(cursor)
        self._cursors.append(cursor)

    def unsubscribe(self, cursor: MemoryCursor) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)

    # -- ENGINE

    def get(self, subject: str) -> Kept | None:
        """The last message of a subject."""
        return self._live(self._kept.get(subject))

    def stored(self) -> dict[str, bytes]:
        """Every subject of `ENGINE` with its data."""
        return {kept.subject: kept.data or b"" for kept in self._kept.values() if self._live(kept)}

    def store(self, messages: Sequence[Message], *, subject: str, expect: int | None) -> int:
        """Store messages at once, if `subject` has the last sequence `expect`. Raises `StaleBatch`."""
        last = self.get(subject)
        found = last.seq if last else 0
        if expect is not None and found != expect:
            raise StaleBatch(f"wrong last sequence: {found}")
        for message in messages:
            expires_us = self.now_us() + message.ttl_s * 1_000_000 if message.ttl_s else 0
            self._keep(Kept(len(self.history) + 1, message.subject, message.data, expires_us))
        return len(self.history)

    def delete(self, subject: str) -> None:
        """Delete a subject's message, as the executor does with a task."""
        self._keep(Kept(len(self.history) + 1, subject, None, 0))

    def read(self, filter_subject: str, after: int) -> list[Kept]:
        """The last message of each subject that passes the filter, ascending; from a replica that lags while
        `lagging_reads` lasts."""
        kept: Iterable[Kept] = self._kept.values()
        if self.lagging_reads:
            self.lagging_reads -= 1
            upto = len(self.history) - self.lag_messages
            kept = {message.subject: message for message in self.history[: max(upto, 0)]}.values()
        found = [
            message
            for message in kept
            if message.seq > after and passes(filter_subject, message.subject) and self._live(message)
        ]
        return sorted(found)

    def _keep(self, message: Kept) -> None:
        self.history.append(message)
        self._kept[message.subject] = message
        for listener in list(self.on_stored):
            listener(message)

    def _live(self, message: Kept | None) -> Kept | None:
        if message is None or message.data is None or 0 < message.expires_us <= self.now_us():
            return None
        return message

    # -- leases

    def put_lease(self, key: str, value: bytes, last: int | None = None) -> int:
        """Write a key, if it has the revision `last`; None does not ask. Raises `WrongRevision`."""
        found = self.leases[key].revision if key in self.leases else 0
        if last is not None and found != last:
            raise WrongRevision(f"{key} has revision {found}")
        self._lease_revision += 1
        self.leases[key] = LeaseEntry(key, value, self._lease_revision)
        return self._lease_revision

    # -- messages that are under way

    def send_late(
        self, deliver: Callable[[], object], operations: int, may_come: Callable[[], bool] = lambda: True
    ) -> None:
        """Deliver a message just before the operation after so many from now, and not before `may_come`, whether its process
        lives or not."""
        self._in_flight.append(_InFlight(deliver, operations, may_come))

    def deliver_late(self) -> None:
        """Count one operation, and deliver what is due."""
        for message in self._in_flight:
            message.left -= 1
        due = [message for message in self._in_flight if message.left <= 0 and message.may_come()]
        self._in_flight = [message for message in self._in_flight if message not in due]
        for message in due:
            try:
                message.deliver()
            except (StaleBatch, WrongRevision):
                continue  # refused, and nobody hears of it


class MemoryConnection:
    """One process's access to a server: its ports, its faults, and whether it is stopped (as by SIGSTOP)."""

    def __init__(self, server: MemoryServer, faults: Faults | None = None) -> None:
        self.server = server
        self.faults = faults or Faults()
        self.events = MemoryEventLog(self)
        self.engine = MemoryEngineStore(self)
        self.leases = MemoryLeaseStore(self)
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
        self._started = False

    async def start(self, after: int, filters: Sequence[str]) -> None:
        """See `EventCursor.start`."""
        self._filters = list(filters)
        self._buffer.clear()
        for message in self._connection.server.events[after:]:
            self.receive(message)
        self._connection.server.subscribe(self)
        self._started = True
        self._arrived.set()

    async def stop(self) -> None:
        """See `EventCursor.stop`."""
        self._connection.server.unsubscribe(self)
        self._started = False

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
        return self._started and not self._buffer and not self._connection.paused

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

    def receive(self, message: Appended) -> None:
        """Called by the server with what is appended."""
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
        failed: list[StaleBatch | BusUnavailable] = []

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
            except (StaleBatch, BusUnavailable) as error:
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


class MemoryShardLog:
    """A `ShardLog` whose commits are atomic whatever their size, as one process with one lock would have them.

    What `FencedShardLog` must be indistinguishable from, for whoever loads the shard and for whoever performs its tasks.
    """

    carries_changes = False

    def __init__(self, server: MemoryServer, shard: int) -> None:
        self.shard = shard
        self.offset = Offset()
        self.stored = 0
        self._server = server

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """See `ShardLog.load`."""
        subject = offset_subject(self.shard)
        found = self._server.get(subject)
        if found is not None:
            self.offset = Offset.decode(found.data or b"", found.seq)
        await self.commit([], seq=self.offset.seq, clock_us=self.offset.clock_us)
        prefix = shard_subjects(self.shard)[:-1] + "window."
        for message in self._server.read(shard_subjects(self.shard), 0):
            if message.subject.startswith(prefix):
                on_window(*decode_window(message.data or b""))
        return self.offset

    async def commit(self, messages: Sequence[Message], *, seq: int, clock_us: int) -> Offset:
        """See `ShardLog.commit`."""
        await asyncio.sleep(0)
        subject = offset_subject(self.shard)
        target = dataclasses.replace(self.offset, seq=seq, clock_us=clock_us, commit=uuid.uuid4().hex)
        try:
            revision = self._server.store(
                [*messages, Message(subject, target.encode())], subject=subject, expect=self.offset.revision
            )
        except StaleBatch:
            raise Fenced(f"shard {self.shard}: another process committed; this one's state is void") from None
        self.offset = dataclasses.replace(target, revision=revision)
        self.stored = seq
        return self.offset


def passes(filter_subject: str, subject: str) -> bool:
    """Whether a subject passes a filter of NATS: `*` is one token, a `>` at the end one or more."""
    wanted, tokens = filter_subject.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(each in ("*", token) for each, token in zip(wanted, tokens, strict=True))
