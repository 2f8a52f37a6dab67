"""One client that watches: what waits for it, bounded, and its server-sent events with their ids.

First comes what it missed, read from the streams, then what the tails offer. Where that is more than it reads, the newest is
dropped until it has read what waits, and a `gap` tells how many of what, and from which id they can be had.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from whenthen.cancellation import wait_event
from whenthen.engine.live.live_filter import LiveFilter
from whenthen.engine.live.live_items import Gap, Item, frame
from whenthen.engine.live.live_marks import Mark, encode_id
from whenthen.engine.live.stored_items import StoredItems
from whenthen.engine.live.stream_tails import Tail
from whenthen.schemas.errors import BusUnavailable

__all__ = ["MOST_BYTES", "MOST_ITEMS", "Begin", "LiveClient"]

log = logging.getLogger(__name__)

MOST_ITEMS = 1000  #: that wait for a client
MOST_BYTES = 1 << 20  #: of them; one more comes always
CHUNK_BYTES = 64 << 10  #: that are handed to the connection at once
RETRY_MS = 2000  #: after which a client whose stream ended comes back
AGAIN_S = 1.0  #: until what was missed is read again after a failure


@dataclass(slots=True)
class Begin:
    """Where a client begins."""

    marks: dict[str, Mark]  #: by stream: what it was shown
    goals: dict[str, Mark] = field(default_factory=dict)  #: of streams of which it missed something: up to where
    gaps: list[Gap] = field(default_factory=list)


class LiveClient:
    """A client. `frames` once, and `close` in any case."""

    def __init__(
        self,
        wanted: LiveFilter,
        tails: Mapping[str, Tail],
        stored: StoredItems,
        *,
        heartbeat_s: float,
        clock: Callable[[], float],
        closing: asyncio.Event,
        leave: Callable[[LiveClient], None],
        dropped: Callable[[str, int], None] = lambda kind, count: None,
    ) -> None:
        """`closing`: the process ends; it is set before `wake`."""
        self.filter = wanted
        self.tails = tails
        self._stored = stored
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._closing = closing
        self._leave = leave
        self._dropped = dropped
        self._waiting: deque[Item | Gap] = deque()
        self._bytes = 0  #: of the items that wait
        self._lost: Counter[str] = Counter()  #: items that were dropped, by kind
        self._arrived = asyncio.Event()
        self._begin = Begin({})

    # -- what the tails offer

    def offer(self, item: Item) -> None:
        if not self.filter.takes(item):
            return
        if self._lost or len(self._waiting) >= MOST_ITEMS or (self._waiting and self._bytes > MOST_BYTES):
            self._lost[item.kind] += 1
            return
        self._waiting.append(item)
        self._bytes += len(item.frame)
        self._arrived.set()

    def offer_gap(self, gap: Gap) -> None:
        self._waiting.append(gap)
        self._arrived.set()

    def wake(self) -> None:
        self._arrived.set()

    # -- what the client is sent

    def begin(self, begin: Begin) -> None:
        """Set where it begins."""
        self._begin = begin

    def close(self) -> None:
        """It is gone."""
        self._leave(self)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, until the client is closed or the process ends."""
        marks, now = self._begin.marks, asyncio.get_running_loop().time
        yield b"retry: %d\n" % RETRY_MS + self._with_id(b"\n")
        for gap in self._begin.gaps:
            yield self._with_id(gap.frame(self.filter.of(gap.stream)))
        if self._begin.goals:
            async with aclosing(self._missed(marks, self._begin.goals)) as missed:
                async for part in missed:
                    yield part
        told = now()
        while not self._closing.is_set():
            part = self._taken() or self._told_loss()
            if part:
                yield part
                told = now()
                continue
            self._arrived.clear()
            if not await wait_event(self._arrived, max(0.0, told + self._heartbeat_s - now())):
                self._keep_up()
                yield b": heartbeat\n" + self._with_id(b"\n")
                told = now()
        yield self._with_id(
            frame("end", {"reason": "stopping", "detail": "the server stops; come back with the last id"})
        )

    async def _missed(self, marks: dict[str, Mark], goals: dict[str, Mark]) -> AsyncGenerator[bytes, None]:
        """What lies in the streams up to where the tails' offers begin; again when more was offered meanwhile than waits here."""
        now = asyncio.get_running_loop().time
        told = now()
        while not self._closing.is_set():
            try:
                async with aclosing(self._stored.between(marks, goals)) as items:
                    async for item in items:
                        mark = marks[item.stream]
                        if self._closing.is_set():
                            return
                        if item.shown(mark):
                            continue
                        item.move(mark)
                        if self.filter.takes(item):
                            yield self._with_id(item.frame)
                            told = now()
                        elif now() > told + self._heartbeat_s:
                            yield b": heartbeat\n" + self._with_id(b"\n")
                            told = now()
            except BusUnavailable as error:
                log.info("what a client of the stream missed can not be read: %s; trying again", error)
                yield b": NATS can not be read; trying again\n\n"
                await asyncio.sleep(AGAIN_S)
                continue
            for letter, goal in goals.items():
                marks[letter].advance(goal)
            if not self._lost:
                return
            for gap in [each for each in self._waiting if isinstance(each, Gap)]:
                marks[gap.stream].advance(gap.after)
                yield self._with_id(gap.frame(self.filter.of(gap.stream)))
            # from here to the new goals nothing is awaited, so what is offered next is behind them
            self._waiting.clear()
            self._bytes = 0
            self._lost.clear()
            goals = self._now()
            for letter, goal in goals.items():
                if goal.identity != marks[letter].identity:
                    marks[letter].advance(goal)

    def _taken(self) -> bytes:
        """The next of what waits, as much as the connection is handed at once."""
        marks = self._begin.marks
        parts: list[bytes] = []
        size = 0
        while self._waiting and size < CHUNK_BYTES:
            each = self._waiting.popleft()
            mark = marks[each.stream]
            if isinstance(each, Gap):
                mark.identity, mark.places = each.after.identity, list(each.after.places)
                part = each.frame(self.filter.of(each.stream))
            else:
                self._bytes -= len(each.frame)
                if each.shown(mark):
                    continue
                each.move(mark)
                part = each.frame
            parts.append(self._with_id(part))
            size += len(part)
        return b"".join(parts)

    def _told_loss(self) -> bytes:
        """The gap of what was dropped, once everything before it was sent."""
        if not self._lost:
            return b""
        missed, self._lost = dict(self._lost), Counter()
        for kind, count in missed.items():
            self._dropped(kind, count)
        before = self._id()
        self._keep_up()
        detail = "they came faster than they were read; send `from` as Last-Event-ID to get them"
        fields = {"kinds": sorted(missed), "reason": "slow", "detail": detail, "missed": missed, "from": before}
        return self._with_id(frame("gap", fields))

    def _keep_up(self) -> None:
        """Everything that the tails have read was sent, dropped, or is not for this client."""
        for letter, mark in self._now().items():
            self._begin.marks[letter].advance(mark)

    def _now(self) -> dict[str, Mark]:
        return {letter: tail.mark.copy() for letter, tail in self.tails.items() if tail.mark is not None}

    def _id(self) -> str:
        return encode_id(int(self._clock()), self._begin.marks)

    def _with_id(self, part: bytes) -> bytes:
        return b"id: %s\n%s" % (self._id().encode(), part)
