"""A server in memory that keeps events, `ENGINE` and leases as NATS does, and the faults that a test may plan for a process.

Below `engine.evaluation.memory_log`; used by tests only. Nothing is removed but what expires or is deleted, so it grows with
what is stored. There is no I/O: each method is applied at once and whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from whenthen.engine.bus.batches import (
    BATCH_MESSAGES,
    HEADER_BYTES,
    MessageTooLarge,
    StaleBatch,
)
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.subjects import event_subject
from whenthen.engine.evaluation.log_ports import LeaseEntry, WrongRevision
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event

__all__ = ["Appended", "Decided", "Fault", "FaultKind", "Faults", "Kept", "MemoryServer", "ProcessDied", "passes"]

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


class Decided(NamedTuple):
    """A message of the log of decisions as it is kept."""

    seq: int
    shard: int
    data: bytes
    message_id: str


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

    def __init__(self, clock_us: Callable[[], int], *, copies: int = 1, max_payload: int = 8 << 20) -> None:
        self.copies = copies  #: of `ENGINE`; with several, one message at a time may expect something of a subject
        self.max_payload = max_payload  #: bytes of a message, headers included
        self.max_batch = BATCH_MESSAGES
        self.max_bytes = 0  #: of `ENGINE`; 0 is no limit
        self.lagging_reads = 0  #: so many reads of `ENGINE` are answered by a replica that lags
        self.lag_messages = 1  #: and lacks so many of the last messages
        self.events: list[Appended] = []
        self.history: list[Kept] = []  #: everything that was stored in `ENGINE`, deletions included
        self.on_stored: list[Callable[[Kept], None]] = []
        self.leases: dict[str, LeaseEntry] = {}
        self.decisions: list[Decided] = []
        self._clock_us = clock_us
        self._now_us = 0
        self._kept: dict[str, Kept] = {}
        self._event_ids: dict[str, int] = {}
        self._lease_revision = 0
        self._subscribers: list[Callable[[Appended], object]] = []
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
        for receive in self._subscribers:
            receive(message)
        return message.seq

    def publish(self, event: Event) -> int:
        """Append an event and give its position."""
        return self.append(event_subject(event.name), event.encode(), event.id)

    def subscribe(self, receive: Callable[[Appended], object]) -> Callable[[], None]:
        """Call `receive` with what is appended from now on. Gives what ends that."""
        self._subscribers.append(receive)
        return lambda: self._subscribers.remove(receive)

    # -- decisions

    def decide(self, shard: int, data: bytes, message_id: str) -> int:
        """Append to the log of decisions and give the sequence; that of the first one when the id was seen."""
        for known in self.decisions:
            if known.message_id == message_id:
                return known.seq
        self.decisions.append(Decided(len(self.decisions) + 1, shard, data, message_id))
        return len(self.decisions)

    # -- ENGINE

    def get(self, subject: str) -> Kept | None:
        """The last message of a subject."""
        return self._live(self._kept.get(subject))

    def stored(self) -> dict[str, bytes]:
        """Every subject of `ENGINE` with its data."""
        return {kept.subject: kept.data or b"" for kept in self._kept.values() if self._live(kept)}

    def store(self, messages: Sequence[Message], *, subject: str, expect: int | None, whole: bool = False) -> int:
        """Store messages at once, if `subject` has the last sequence `expect`. Raises `StaleBatch`, `MessageTooLarge`, and
        `BusUnavailable` when they are more than `max_bytes` together with what is there."""
        if len(messages) > self.max_batch and not whole:
            raise MessageTooLarge(f"a batch of {len(messages)} messages", batch=True)
        largest = max(len(message.data) for message in messages) + HEADER_BYTES
        if largest > self.max_payload:
            raise MessageTooLarge(f"{largest} bytes, headers included")
        last = self.get(subject)
        found = last.seq if last else 0
        if expect is not None and found != expect:
            raise StaleBatch(f"wrong last sequence: {found}")
        if self.max_bytes and self.size + sum(len(message.data) for message in messages) > self.max_bytes:
            raise unavailable("maximum bytes exceeded (10077)", BusReason.FULL)
        for message in messages:
            expires_us = self.now_us() + message.ttl_s * 1_000_000 if message.ttl_s else 0
            self._keep(Kept(len(self.history) + 1, message.subject, message.data, expires_us))
        return len(self.history)

    @property
    def size(self) -> int:
        """Of everything in `ENGINE`."""
        return sum(len(kept.data or b"") for kept in self._kept.values() if self._live(kept))

    def make_room(self, needed: int) -> int:
        """Delete the oldest firings and outcomes until `needed` bytes fit; gives how many."""
        gone = 0
        old = sorted(kept for kept in self._kept.values() if kept.subject.split(".")[1] in ("firing", "outcome"))
        for kept in old:
            if not self.max_bytes or self.size + needed <= self.max_bytes:
                break
            if self._live(kept):
                self.delete(kept.subject)
                gone += 1
        return gone

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
            except (StaleBatch, WrongRevision, MessageTooLarge, BusUnavailable):
                continue  # refused, and nobody hears of it


def passes(filter_subject: str, subject: str) -> bool:
    """Whether a subject passes a filter of NATS: `*` is one token, a `>` at the end one or more."""
    wanted, tokens = filter_subject.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(each in ("*", token) for each, token in zip(wanted, tokens, strict=True))
