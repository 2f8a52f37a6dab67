"""Streams followed from their end, once for all who watch. A tail reads while somebody listens to it, and no longer.

What it reads it offers to its listeners at once, in the order of the stream; `mark` says how far it is. Nobody waits for a listener.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import stream_info
from whenthen.engine.bus.stream_reader import Received
from whenthen.engine.bus.streams import DECISIONS, TOLD
from whenthen.engine.bus.subjects import decisions_subject
from whenthen.engine.bus.watched import StreamState, WatchedStream
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.live.live_items import STREAMS, CommittedItems, Gap, Item, item_of
from whenthen.engine.live.live_marks import Mark, Place, short_identity
from whenthen.schemas.decision_records import DecisionBatch
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.history_rows import Message

__all__ = ["DecisionTail", "Listener", "MessageTail", "Tail", "next_seq"]

log = logging.getLogger(__name__)

GATHER_S = 0.02  #: that messages are waited for after the first one
IDLE_S = 0.5  #: until the offsets are asked whether they name the last batches
QUIET_S = 5.0  #: between two looks how far a quiet stream is
RETRY_S = 1.0
GIVE_WAY = 100  #: messages, after which others have the event loop


class Listener(Protocol):
    """Who is offered what a tail reads. It never waits."""

    def offer(self, item: Item) -> None: ...

    def offer_gap(self, gap: Gap) -> None: ...


class Tail:
    """One stream. `start`, then `ready` is set once `mark` is known; `stop`."""

    def __init__(self, bus: Bus, letter: str, subjects: Sequence[str]) -> None:
        self.mark: Mark | None = None
        self.ready = asyncio.Event()
        self.listeners: set[Listener] = set()
        self._bus = bus
        self._letter = letter
        self._name = STREAMS[letter]
        self._subjects = subjects
        self._stream = WatchedStream(bus.client, self._name, subjects, gather_s=GATHER_S)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"live {self._name}")

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._stream.follow(self._read)
            except BusUnavailable as error:
                log.info("%s can not be shown live: %s; trying again", self._name, error)
            except Exception:
                log.exception("showing %s live failed and starts again", self._name)
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        state = await self._stream.look()
        after = await self._begin(short_identity(state.identity), state)
        self.ready.set()
        await self._stream.read(after=after)
        now = asyncio.get_running_loop().time
        looked = now()
        while True:
            messages = await self._stream.gather(wait_s=IDLE_S)
            for number, message in enumerate(messages, 1):
                self._take(message)
                if number % GIVE_WAY == 0:
                    await asyncio.sleep(0)
            if self._stream.caught_up:
                await self._caught_up()
            if messages:
                looked = now()
            elif now() - looked > QUIET_S:
                await self._quiet()
                looked = now()

    async def _begin(self, identity: str, state: StreamState) -> int:
        """Set `mark`; gives the position from which is read on."""
        mark = self.mark
        if mark is None:
            self.mark, after = await self._end(identity, state)
            return after
        last = max(place.seq for place in mark.places)
        if mark.identity != identity:
            self._goes_on(
                "made_again",
                "the stream was made again; it is shown from its beginning",
                Mark(identity, [Place()] * len(mark.places)),
            )
            return 0
        if last > state.last_seq:
            end, after = await self._end(identity, state)
            why = f"the stream ends at {state.last_seq}, and was shown up to {last}; what is new begins behind its end"
            self._goes_on("went_back", why, end)
            return after
        return self._resumed(mark)

    def _goes_on(self, reason: str, detail: str, mark: Mark) -> None:
        self.mark = mark
        gap = Gap(self._letter, reason, detail, mark.copy())
        for listener in tuple(self.listeners):
            listener.offer_gap(gap)

    def _offer(self, items: Iterable[Item]) -> None:
        for item in items:
            for listener in tuple(self.listeners):
                listener.offer(item)

    async def _end(self, identity: str, state: StreamState) -> tuple[Mark, int]:
        """The mark of everything that there is, and the position from which is read on."""
        raise NotImplementedError

    def _resumed(self, mark: Mark) -> int:
        """The position from which is read on."""
        raise NotImplementedError

    def _take(self, message: Received) -> None:
        """Offer what a message tells, and move `mark`."""
        raise NotImplementedError

    async def _caught_up(self) -> None:
        """Nothing more waits."""

    async def _quiet(self) -> None:
        """Nothing came for a while."""


class MessageTail(Tail):
    """A stream of which each message is an item."""

    def __init__(self, bus: Bus, letter: str) -> None:
        super().__init__(bus, letter, TOLD[STREAMS[letter]])

    async def _end(self, identity: str, state: StreamState) -> tuple[Mark, int]:
        return Mark(identity, [Place(state.last_seq)]), state.last_seq

    def _resumed(self, mark: Mark) -> int:
        return mark.places[0].seq

    def _take(self, message: Received) -> None:
        assert self.mark is not None
        seq, time_us, _, subject, data, _ = message
        item = item_of(self._letter, self.mark.identity, Message(subject, seq, time_us, data))
        if item is not None:
            self._offer([item])
        self.mark.places[0] = Place(seq)

    async def _quiet(self) -> None:
        """Move on over messages that are of no kind, so that what retention removes of them is nobody's gap."""
        assert self.mark is not None
        state = (await stream_info(self._bus.client, self._name))["state"]
        place = self.mark.places[0].seq
        for subject in self._subjects:
            if await next_seq(self._bus, self._name, subject, place + 1) is not None:
                return
        self.mark.places[0] = Place(max(place, int(state["last_seq"])))


class DecisionTail(Tail):
    """`DECISIONS`, of which the batches that are committed are shown."""

    def __init__(self, bus: Bus, shards: int) -> None:
        super().__init__(bus, "d", ["decisions.*"])
        self._shards = shards
        self._reader = DecisionReader(bus)
        self._committed: list[CommittedItems] = []

    async def _end(self, identity: str, state: StreamState) -> tuple[Mark, int]:
        offsets = await asyncio.gather(*(self._reader.offset(shard) for shard in range(self._shards)))
        # of a stream that was made again since, the offset's position says nothing
        ends = [offset.decisions if offset.decisions <= state.last_seq else 0 for offset in offsets]
        mark = Mark(identity, [Place(end) for end in ends])
        self._follow(mark)
        following = await asyncio.gather(
            *(
                next_seq(self._bus, DECISIONS, decisions_subject(shard), end + 1 if end else state.last_seq + 1)
                for shard, end in enumerate(ends)
            )
        )
        return mark, min([state.last_seq, *(seq - 1 for seq in following if seq is not None)])

    def _resumed(self, mark: Mark) -> int:
        self._follow(mark)
        return min(place.seq for place in mark.places)

    def _goes_on(self, reason: str, detail: str, mark: Mark) -> None:
        self._follow(mark)
        super()._goes_on(reason, detail, mark)

    def _follow(self, mark: Mark) -> None:
        self._committed = [CommittedItems(mark.identity, shard, place.seq) for shard, place in enumerate(mark.places)]

    def _take(self, message: Received) -> None:
        try:
            batch = DecisionBatch.decode(message.data)
        except (ValueError, KeyError, TypeError, IndexError):
            return
        if 0 <= batch.shard < self._shards:
            self._accept(batch.shard, self._committed[batch.shard].message(message.seq, message.time_us, batch))

    async def _caught_up(self) -> None:
        for shard, committed in enumerate(self._committed):
            if committed.held:
                named = (await self._reader.offset(shard)).decisions
                self._accept(shard, committed.offset(named))

    def _accept(self, shard: int, items: Iterable[Item]) -> None:
        assert self.mark is not None
        self._offer(items)
        self.mark.places[shard] = Place(self._committed[shard].accepted)


async def next_seq(bus: Bus, stream: str, subject: str, seq: int) -> int | None:
    """The first message of a subject from a position on, as the stream's leader has it. Raises `BusUnavailable`."""
    answer = await bus.client.api(f"STREAM.MSG.GET.{stream}", {"seq": seq, "next_by_subj": subject})
    return int(answer["message"]["seq"]) if "message" in answer else None
