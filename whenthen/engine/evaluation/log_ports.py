"""What the evaluation of a shard needs of its surroundings, as protocols: events, commits, a store, leases.

`EventLog` and `ShardLog` are what the loop of a shard works with (`engine.evaluation.shard_loop`), `EngineStore` what a commit is
made of (`engine.evaluation.commits.commit`), `LeaseStore` what leases are kept in (`engine.evaluation.leases`). Over NATS: `nats_log`; in
memory, with faults: `memory_log`. One contract suite holds both to what is said here (`tests/contract/test_evaluation_log.py`).

Every operation that ends with `BusUnavailable` has an unknown outcome unless said otherwise: it may have been applied, it may
be applied later, or never. A caller that needs to know sends it again under the same expectation, or reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Unpack

from whenthen.engine.bus.records import Message, NewPosition, Offset
from whenthen.engine.evaluation.event_reader import Received
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.events import Event

__all__ = [
    "CommitRefused",
    "EngineStore",
    "EventCursor",
    "EventLog",
    "Fenced",
    "LeaseEntry",
    "LeaseStore",
    "Received",
    "ShardLog",
    "StoredRecord",
    "WrongRevision",
]


class Fenced(WhenthenError):
    """Another process has committed for this shard. Whatever is held in memory is void; load the shard again."""

    reason = "fenced"


class CommitRefused(WhenthenError):
    """The store refuses a commit again and again, and nothing of it is stored: too large, or for a reason of its own."""

    reason = "commit_refused"


class WrongRevision(Exception):
    """The key has another revision than the expected one; nothing was written."""


class EventCursor(Protocol):
    """A position in the event log that only moves forward. For one task.

    Order and gaps: messages come in the order of their positions, each once; none that the log still keeps and that passes the
    filters is left out. A lost connection, a lost message, a server that was replaced are repaired inside: the
    cursor goes on after the last message that it received, and raises nothing. What is buffered is bounded.
    """

    async def start(self, after: int, filters: Sequence[str]) -> None:
        """Read what follows position `after` on subjects that pass one of `filters`. Drops what was buffered; may be called
        again."""

    async def stop(self) -> None:
        """Read no more; the cursor is not used again."""

    @property
    def buffered(self) -> int:
        """Messages that `take` gives without waiting."""

    @property
    def pending(self) -> int:
        """Messages that are known to follow: those buffered and those that have not been sent."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that the log is known to hold has been taken. False while the log can not be asked."""

    def take(self) -> Received | None:
        """The next message, or None when none is buffered."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait until a message is buffered, `wake` is called or `timeout_s` have passed; whether one is buffered."""

    def wake(self) -> None:
        """End a `wait` early."""


class EventLog(Protocol):
    """The log of all events: positions ascend, and so do the times that the log's own clock gives to messages."""

    def cursor(self) -> EventCursor:
        """A new cursor; nothing is read before its `start`."""

    async def publish(self, event: Event) -> None:
        """Append an event; returns when it is stored. An event whose id the log has seen lately is not appended again.

        Raises:
            BusUnavailable: not known to be stored; publish the same event again.
        """

    async def publish_tick(self, shard: int) -> None:
        """Append a message without content to the shard's tick subject: its time is the log's time now.

        Raises:
            BusUnavailable: not known to be stored. A tick more does no harm.
        """

    async def next_marker(self, after: int) -> int:
        """The revision that the first marker after a position names; 0 when there is none.

        Raises:
            BusUnavailable: no answer.
        """

    async def pauses_after(self, position: int) -> list[PauseChange]:
        """The first pause or resume of each automation behind a position.

        Raises:
            BusUnavailable: no answer.
        """

    async def recent_ids(self, *, since_us: int, before: int) -> list[tuple[str, int]]:
        """Ids and times of the events stored since `since_us` at positions below `before`, oldest first; at least the first
        100,000 of them.

        Raises:
            BusUnavailable: not all could be read.
        """


class ShardLog(Protocol):
    """The memory of one shard, for the one process that evaluates it. Not for concurrent calls: `load`, then one `commit`
    after the other.

    Fencing: of all processes that have loaded the shard only the last one can commit; a commit that another one begins
    after that is stored nowhere, and ends with `Fenced`. Atomicity: after a crash at any moment, the process that loads the
    shard next finds each commit whole or not at all. Tasks: a task is stored once, also when it was performed and deleted before
    its commit was known to be stored. After `Fenced`, or a cancellation, the object is void: make a new one and load.
    """

    @property
    def shard(self) -> int: ...

    @property
    def offset(self) -> Offset:
        """The last commit that is known to be stored."""

    @property
    def stored(self) -> int:
        """The event position up to which all windows, firings and tasks are stored as messages of their own."""

    @property
    def carries_changes(self) -> bool:
        """Whether the offset as stored carries changes of its commit, which a loader would have to check one by one; an empty
        commit ends that."""

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """Fence out the process that had the shard, finish its last commit, and hand every window (trigger, key, state) to `on_window`.

        A later message of a window replaces an earlier one; an empty state means that it is forgotten.

        Raises:
            Fenced: another process loaded it meanwhile.
            BusUnavailable: not loaded; load again, with what came through `on_window` discarded.
            SetupError: the store holds windows that no commit covers.
        """

    async def commit(self, messages: Sequence[Message], **to: Unpack[NewPosition]) -> Offset:
        """Store `messages` and the new position as one, with the revision of the rules that is in force there; tries until the
        outcome is known.

        Windows of any size are stored, in parts; another message must fit (`largest`). While the store is full, room is made
        of what only tells what was, and the commit is tried until it is stored.

        Raises:
            Fenced: another process took the shard over. The commit is stored whole if it was applied before that, else not
                at all; the new holder's offset tells.
            CommitRefused: see there. Another commit may follow.
        """

    async def firings_after(self, trigger: str, receive: Callable[[bytes], None]) -> None:
        """Hand every firing, of whatever shard, that was stored after the window of `trigger` with an empty key to `receive`; all
        that there are when there is no such window. Those of one commit count in the order of its messages.

        Raises:
            BusUnavailable: not all came; call again, with what came discarded.
        """

    async def takes(self, messages: Sequence[Message]) -> bool:
        """Whether the store takes messages like these, whatever their subjects: for whoever looks for the one that makes it
        refuse a commit.

        Raises:
            BusUnavailable: no answer, or the store is full.
        """

    @property
    def largest(self) -> int:
        """Bytes of the largest firing or task that can be stored; changes when the server does."""

    @property
    def full(self) -> bool:
        """Whether a commit waits because the store is full and holds nothing that may go."""


class StoredRecord(NamedTuple):
    """The last message of a subject."""

    seq: int
    data: bytes


class EngineStore(Protocol):
    """A stream that keeps the last message of each subject, with one sequence over all subjects.

    An expectation names the last sequence of a subject, 0 for none. It is checked and the message stored in one step, so a
    message that was sent long ago and arrives after the subject has moved on is refused.
    """

    async def has_one_copy(self) -> bool:
        """Whether the stream has a single replica; then several messages may expect the same subject at the same time.

        Raises:
            BusUnavailable: no answer.
        """

    @property
    def largest(self) -> int:
        """Bytes of the largest message that the store takes, without headers; changes when the server does."""

    async def make_room(self, needed: int) -> int:
        """Delete the oldest of what only tells what was, firings and outcomes, until `needed` bytes are free and somewhat
        more; gives how many messages went. 0 when nothing may go, or the store has no limit of its own.

        Raises:
            BusUnavailable: no answer; some may be deleted.
        """

    async def last(self, subject: str, *, timeout_s: float = 5.0) -> StoredRecord | None:
        """The subject's last message as the leader has it; None when there is none.

        Raises:
            BusUnavailable: no answer within `timeout_s`.
        """

    async def publish_batch(self, messages: Sequence[Message], *, expect: int | None) -> int:
        """Store 1 to 1,000 messages all or none, in order; gives the last one's sequence. `expect` is the last sequence of the
        last message's subject before the batch; None does not ask.

        Raises:
            StaleBatch: it is another one; nothing was stored.
            MessageTooLarge: of a message or of the batch; nothing was stored.
            BusUnavailable: not known to be stored.
        """

    async def publish_fenced(self, messages: Sequence[Message], *, subject: str, expect: int) -> None:
        """Store each message by itself as long as `subject`, which is none of theirs, has the last sequence `expect`.

        Raises:
            StaleBatch: at least one was refused for its expectation.
            MessageTooLarge: at least one is too large.
            BusUnavailable: at least one is not known to be stored. In all cases nothing is known of any of them.
        """

    async def read(self, filter_subject: str, *, after: int, receive: Callable[[str, bytes], None]) -> int:
        """Hand subject and data of the messages that pass the filter and follow sequence `after` to `receive`, ascending; gives
        the sequence of the last one, `after` when there was none. A replica may answer that lags behind the leader.

        Raises:
            BusUnavailable: not all came.
        """


class LeaseEntry(NamedTuple):
    """A key as it stands. `value` is empty for a key that was deleted; its revision counts all the same."""

    key: str
    value: bytes
    revision: int


class LeaseStore(Protocol):
    """A small key-value store with a revision for each write; compare-and-set is its only means of exclusion.

    Every operation may end with `BusUnavailable`: it is not known to be applied.
    """

    async def put(self, key: str, value: bytes) -> None:
        """Write, whatever is there."""

    async def update(self, key: str, value: bytes, *, last: int) -> int:
        """Write if the key has the revision `last`, 0 for a key that was never written; gives the new revision.

        Raises:
            WrongRevision: it has another one.
        """

    async def get(self, key: str) -> LeaseEntry | None:
        """The key, maybe from a replica that lags; None when it was never written or was deleted."""

    async def delete(self, key: str) -> None:
        """Delete, whatever is there."""

    async def entries(self) -> list[LeaseEntry]:
        """All keys, those deleted included, in no order, maybe from a replica that lags."""
