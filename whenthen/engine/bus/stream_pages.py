"""What a stream keeps of some subjects, newest first: for listings, whatever else the stream holds.

Called by `engine.process.api`. Reads straight from the stream (no consumer), in blocks from its end towards its beginning. A
block is handed to `pick` message by message as it comes, and what is not wanted is let go at once: held are the results, at
most `MOST_BYTES` of messages' worth, and what NATS has sent and was not read yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import RequestClient, stream_info

__all__ = ["StoredMessage", "StreamPage", "first_since", "newest"]

T = TypeVar("T")
_BLOCK = 500  #: positions of the first look back; each further one takes twice as many, if they are small
_MAX_SCANNED = 50_000  #: messages of the subject for one answer; what others lie between them counts for nothing
_MAX_BLOCK = 1 << 24  #: positions; the server passes over what has other subjects by its index
_BLOCK_BYTES = 16 << 20  #: a block of more is left, and a smaller one read
MOST_BYTES = 8 << 20  #: of the messages behind one answer; their results take several times as much


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream keeps it. `time` is RFC 3339, when the server stored it."""

    subject: str
    seq: int
    time: str
    data: bytes


class StreamPage(list[T]):
    """Results, the newest first. `next` is the `before` of the page that goes on where this one was cut for its bytes;
    None when it was not cut."""

    next: int | None = None


@dataclass(frozen=True, slots=True)
class _Picked(Generic[T]):
    item: T
    seq: int
    size: int


async def newest(
    client: RequestClient,
    stream: str,
    subject: str,
    *,
    limit: int,
    pick: Callable[[StoredMessage], T | None],
    before: int | None = None,
    after: int = 0,
    most_bytes: int = MOST_BYTES,
) -> StreamPage[T]:
    """Up to `limit` results of `pick` over messages of `subject` (may have wildcards), the newest first.

    `pick` gives None for what is not wanted. It may see a message twice, and messages of a block in ascending order. After
    50,000 messages of the subject the rest is left to the next page (`next`). `before` excludes that position and what follows, `after` that one and what is
    older. The messages behind the results have
    `most_bytes` at most, unless the first one alone has more.

    Raises:
        BusUnavailable: no answer.
    """
    info = await stream_info(client, stream)
    state = info["state"]
    end = min(before if before is not None else state["last_seq"] + 1, state["last_seq"] + 1)
    found: StreamPage[T] = StreamPage()
    held = 0
    mean = max(1, state["bytes"] // max(1, state["messages"]))
    block = max(1, min(_BLOCK, _BLOCK_BYTES // mean))
    floor = max(state["first_seq"], after + 1)
    scanned = 0
    while end > floor and len(found) < limit:
        start = max(floor, end - block)
        read = _Block(pick, limit - len(found), most_bytes - held, keep_one=not found)
        if not await read.read(client, stream, subject, start, end):
            block = max(1, (end - start) // 8)
            continue
        found += [picked.item for picked in reversed(read.picked)]
        held += read.held
        scanned += read.messages
        if read.cut:
            found.next = read.picked[0].seq if read.picked else end
            break
        end = start
        if scanned >= _MAX_SCANNED and end > floor and len(found) < limit:
            found.next = end
            break
        block = min(block * 2, _MAX_BLOCK) if read.seen < _BLOCK_BYTES // 4 else block
    return found


async def first_since(client: RequestClient, stream: str, subject: str, moment: str) -> int | None:
    """The position of the first message of `subject` that was stored at a moment (RFC 3339) or later; None when there is none yet.

    Raises:
        BusUnavailable: no answer.
    """
    found: list[int] = []

    def receive(message: Delivery) -> None:
        found.append(int(message.headers["Nats-Sequence"]))

    await client.read_stored(stream, {"start_time": moment, "next_by_subj": subject, "batch": 1}, receive)
    return found[0] if found else None


class _Block(Generic[T]):
    """One block: of what `pick` wants of it the last `limit`, and of these the last that have `most_bytes`."""

    def __init__(
        self, pick: Callable[[StoredMessage], T | None], limit: int, most_bytes: int, *, keep_one: bool
    ) -> None:
        self.picked: deque[_Picked[T]] = deque()
        self.held = 0
        self.seen = 0  #: bytes of all messages
        self.messages = 0
        self.cut = False  #: whether something was let go for its bytes
        self._pick = pick
        self._limit = limit
        self._most_bytes = most_bytes
        self._least = int(keep_one)

    async def read(self, client: RequestClient, stream: str, subject: str, start: int, end: int) -> bool:
        """Read messages of `subject` with positions in [start, end), ascending. False: they are too many bytes."""
        more = True

        def receive(message: Delivery) -> None:
            nonlocal start
            headers = message.headers
            seq = int(headers["Nats-Sequence"])
            start = max(start, seq + 1)
            if seq < end:
                self._take(StoredMessage(headers["Nats-Subject"], seq, headers["Nats-Time-Stamp"], message.data))

        first = start
        while more and start < end:
            if start > first and self.seen > _BLOCK_BYTES and end - first > 1:
                return False
            request = {
                "seq": start,
                "next_by_subj": subject,
                "batch": min(end - start, _MAX_SCANNED),
                "max_bytes": _BLOCK_BYTES,
            }
            more = await client.read_stored(stream, request, receive)
        return True

    def _take(self, message: StoredMessage) -> None:
        size = len(message.data)
        self.seen += size
        self.messages += 1
        item = self._pick(message)
        if item is None:
            return
        self.picked.append(_Picked(item, message.seq, size))
        self.held += size
        if len(self.picked) > self._limit:
            self.held -= self.picked.popleft().size
        while self.held > self._most_bytes and len(self.picked) > self._least:
            self.held -= self.picked.popleft().size
            self.cut = True
