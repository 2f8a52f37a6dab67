"""What a client missed while it was away, read from the streams up to where the tails are, a page at a time.

The pages of all clients take turns, so that many that come back at once cost no more memory than a few.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.streams import DECISIONS, TOLD
from whenthen.engine.bus.subjects import decisions_subject
from whenthen.engine.live.live_items import STREAMS, CommittedItems, Item, item_of
from whenthen.engine.live.live_marks import Mark
from whenthen.engine.live.stream_tails import next_seq
from whenthen.schemas.decision_records import DecisionBatch
from whenthen.schemas.history_rows import Message
from whenthen.schemas.times import parse_us

__all__ = ["PAGES_AT_ONCE", "StoredItems"]

PAGES_AT_ONCE = 4
PAGE = 256  #: messages
PAGE_BYTES = 2 << 20
LAGS_S = 0.05  #: until a replica that lags is asked again

Items = AsyncGenerator[Item, None]


class StoredItems:
    """Reads for all clients."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._turns = asyncio.Semaphore(PAGES_AT_ONCE)

    def between(self, marks: dict[str, Mark], goals: dict[str, Mark]) -> Items:
        """What lies between the marks and the goals of the same streams, by the time when it was stored; of one stream in its order.

        Raises:
            BusUnavailable: it can not be read.
        """
        sources: list[Items] = []
        for letter, goal in goals.items():
            mark = marks[letter]
            for part, (place, end) in enumerate(zip(mark.places, goal.places, strict=True)):
                if place.seq >= end.seq:
                    continue
                if STREAMS[letter] == DECISIONS:
                    sources.append(self._decisions(goal.identity, part, place.seq, end.seq))
                else:
                    subjects = TOLD[STREAMS[letter]]
                    parts = [self._items(letter, goal.identity, subject, place.seq, end.seq) for subject in subjects]
                    sources.append(parts[0] if len(parts) == 1 else _merged(parts, in_order=True))
        return _merged(sources, in_order=False)

    async def _items(self, letter: str, identity: str, subject: str, after: int, until: int) -> Items:
        async with aclosing(self._messages(STREAMS[letter], subject, after, until)) as messages:
            async for message in messages:
                item = item_of(letter, identity, message)
                if item is not None:
                    yield item

    async def _decisions(self, identity: str, shard: int, after: int, until: int) -> Items:
        """Of a shard, whose batch at `until` is committed."""
        committed = CommittedItems(identity, shard, after)
        async with aclosing(self._messages(DECISIONS, decisions_subject(shard), after, until)) as messages:
            async for message in messages:
                try:
                    batch = DecisionBatch.decode(message.data)
                except (ValueError, KeyError, TypeError, IndexError):
                    continue
                for item in committed.message(message.seq, message.time_us, batch):
                    yield item
        for item in committed.offset(until):
            yield item

    async def _messages(self, stream: str, subject: str, after: int, until: int) -> AsyncGenerator[Message, None]:
        place = after + 1
        while place <= until:
            page: list[Message] = []

            def receive(message: Delivery, page: list[Message] = page) -> None:
                headers = message.headers
                seq, time_us = int(headers["Nats-Sequence"]), parse_us(headers["Nats-Time-Stamp"])
                page.append(Message(headers["Nats-Subject"], seq, time_us, message.data))

            request = {"seq": place, "next_by_subj": subject, "batch": PAGE, "max_bytes": PAGE_BYTES}
            async with self._turns:
                await self._bus.client.read_stored(stream, request, receive)
            for message in page:
                if message.seq > until:
                    return
                yield message
                place = message.seq + 1
            if not page and place <= until:
                # the page may be a replica's that lags; the leader knows whether this is the end
                following = await next_seq(self._bus, stream, subject, place)
                if following is None or following > until:
                    return
                await asyncio.sleep(LAGS_S)


async def _merged(sources: Sequence[Items], *, in_order: bool) -> Items:
    """The items of several sources: by their positions in one stream (`in_order`), or by when they were stored."""
    heads: list[tuple[Item, Items]] = []
    try:
        for source in sources:
            if (first := await anext(source, None)) is not None:
                heads.append((first, source))
        while heads:
            heads.sort(key=lambda head: head[0].seq if in_order else head[0].row["at_us"])
            item, source = heads[0]
            yield item
            following = await anext(source, None)
            heads[:1] = [] if following is None else [(following, source)]
    finally:
        for source in sources:
            await source.aclose()
