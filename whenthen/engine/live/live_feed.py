"""All who watch in this process, and the tails that they share: a tail runs while somebody listens to it.

Used by the role `api`. An id from elsewhere, or from before, is held against the streams as they are now: what can not be shown any
more is told as a gap.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from whenthen.cancellation import wait_event
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import BusReason, stream_info, unavailable
from whenthen.engine.bus.streams import DECISIONS
from whenthen.engine.bus.subjects import decisions_subject
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.live.live_client import Begin, LiveClient
from whenthen.engine.live.live_filter import KINDS, Wanted, new_filter
from whenthen.engine.live.live_items import STREAMS, Gap
from whenthen.engine.live.live_marks import Mark, Place, Shown, decode_id, short_identity
from whenthen.engine.live.stored_items import StoredItems
from whenthen.engine.live.stream_tails import DecisionTail, MessageTail, Tail
from whenthen.schemas.decision_records import DecisionBatch

__all__ = ["LiveFeed"]

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0  #: without anything to show
BEGIN_S = 5.0  #: that a tail may take to begin
END_S = 1.0  #: that clients have to be told of the end


class LiveFeed:
    """For one event loop. `open` for each client, and `close` in the end."""

    def __init__(
        self,
        bus: Bus,
        *,
        shards: int,
        most_clients: int,
        kept: timedelta,
        heartbeat_s: float = HEARTBEAT_S,
        clock: Callable[[], float] = time.time,
        counted: Callable[[int], None] = lambda clients: None,
        dropped: Callable[[str, int], None] = lambda kind, count: None,
    ) -> None:
        """`kept`: how long firings and outcomes are, which leave `ENGINE` one by one. `counted` is told how many clients there are,
        `dropped` how many of a kind a client was too slow for."""
        self._bus = bus
        self._shards = shards
        self._most = most_clients
        self._kept_s = kept.total_seconds()
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._counted = counted
        self._dropped = dropped
        self._clients: set[LiveClient] = set()
        self._tails: dict[str, Tail] = {}
        self._stored = StoredItems(bus)
        self._reader = DecisionReader(bus)
        self._closing = asyncio.Event()
        self._empty = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def reading(self) -> set[str]:
        """The streams that are read now."""
        return {STREAMS[letter] for letter in self._tails}

    async def open(self, wanted: Wanted, last_id: str | None = None) -> LiveClient:
        """A client that begins behind `last_id`, without one now. It counts until it is closed.

        Raises:
            InvalidInput: a filter is none, or the id.
            BusUnavailable: a stream can not be read; or there are as many clients as there may be.
        """
        chosen = new_filter(wanted)
        places = {kind.stream: self._shards if kind.stream == "d" else 1 for kind in KINDS.values()}
        shown = decode_id(last_id, places) if last_id else None
        if self._closing.is_set():
            raise unavailable("the server stops; come back", "stopping")
        if len(self._clients) >= self._most:
            why = f"{self._most} clients watch, as many as there may be (stream_clients)"
            raise unavailable(why, "too_many_streams")
        tails = {letter: self._tail(letter) for letter in chosen.streams}
        client = LiveClient(
            chosen,
            tails,
            self._stored,
            heartbeat_s=self._heartbeat_s,
            clock=self._clock,
            closing=self._closing,
            leave=self._leave,
            dropped=self._dropped,
        )
        self._clients.add(client)
        self._counted(len(self._clients))
        for tail in tails.values():
            tail.listeners.add(client)
        try:
            for letter, tail in tails.items():
                if not await wait_event(tail.ready, BEGIN_S):
                    why = f"{STREAMS[letter]} can not be read within {BEGIN_S:g} seconds"
                    raise unavailable(why, BusReason.TIMEOUT)
            client.begin(await self._begin(tails, shown))
        except BaseException:
            client.close()
            raise
        return client

    async def close(self) -> None:
        """Tell all clients that it ends, and stop reading."""
        self._closing.set()
        for client in self._clients:
            client.wake()
        if self._clients:
            await wait_event(self._empty, END_S)
        for client in list(self._clients):  # who does not read
            self._leave(client)
        if self._ending:
            await asyncio.wait(self._ending)

    def _tail(self, letter: str) -> Tail:
        tail = self._tails.get(letter)
        if tail is None:
            tail = DecisionTail(self._bus, self._shards) if letter == "d" else MessageTail(self._bus, letter)
            self._tails[letter] = tail
            tail.start()
        return tail

    def _leave(self, client: LiveClient) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._counted(len(self._clients))
        if not self._clients:
            self._empty.set()
        for letter, tail in client.tails.items():
            tail.listeners.discard(client)
            if not tail.listeners and self._tails.get(letter) is tail:
                del self._tails[letter]
                # its end is waited for elsewhere: this is called where nothing can be waited for
                task = asyncio.create_task(tail.stop())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _begin(self, tails: dict[str, Tail], shown: Shown | None) -> Begin:
        resumed: dict[str, Mark] = {}
        gaps: list[Gap] = []
        for letter in tails:
            if shown is not None and letter in shown.marks:
                resumed[letter] = shown.marks[letter]
                gap = await self._gap(letter, shown.marks[letter], shown.at_s)
                if gap is not None:
                    gaps.append(gap)
                    resumed[letter] = gap.after
        # nothing is awaited from here on: what the tails offer to the client begins behind these marks
        ends = {letter: tail.mark.copy() for letter, tail in tails.items() if tail.mark is not None}
        # of a stream that was made again just now the tail tells
        goals = {
            letter: end
            for letter, end in ends.items()
            if letter in resumed and resumed[letter].identity == end.identity
        }
        gaps = [gap for gap in gaps if gap.stream in goals]
        resumed = {letter: resumed[letter] for letter in goals}
        marks = {letter: resumed.get(letter, end).copy() for letter, end in ends.items()}
        return Begin(marks, goals, gaps)

    async def _gap(self, letter: str, mark: Mark, at_s: int) -> Gap | None:
        """What can not be shown any more of what follows a mark; None when everything can."""
        answer = await stream_info(self._bus.client, STREAMS[letter])
        state, identity = answer["state"], short_identity(answer["created"])
        first, last = int(state["first_seq"]), int(state["last_seq"])
        if identity != mark.identity:
            why = "the stream was made again since; it is shown from its beginning"
            return Gap(letter, "made_again", why, Mark(identity, [Place()] * len(mark.places)))
        ahead = [place.seq for place in mark.places if place.seq > last]
        if ahead:
            why = f"the stream ends at {last}, and the id is of {max(ahead)}; what is new begins behind its end"
            back = [Place(last) if place.seq > last else place for place in mark.places]
            return Gap(letter, "went_back", why, Mark(identity, back))
        if letter == "d":
            removed = [
                place.seq
                for shard, place in enumerate(mark.places)
                if place.seq + 1 < first and await self._lacks(shard, place.seq)
            ]
            if not removed:
                return None
            why = f"decisions behind position {min(removed)} and before {first} are not kept any more"
        elif mark.places[0].seq + 1 < first:
            why = f"positions {mark.places[0].seq + 1} to {first - 1} are not kept any more"
        elif letter == "g" and self._clock() - at_s > self._kept_s:
            why = f"firings and outcomes are kept for {self._kept_s:.0f} seconds, and the id is older; some may be gone"
        else:
            return None
        return Gap(letter, "retention", why, mark)

    async def _lacks(self, shard: int, accepted: int) -> bool:
        """Whether a batch of the shard that followed is gone."""
        if (await self._reader.offset(shard)).decisions == accepted:
            return False
        subject = decisions_subject(shard)
        request = {"seq": accepted + 1, "next_by_subj": subject}
        answer = await self._bus.client.api(f"STREAM.MSG.GET.{DECISIONS}", request)
        if "message" not in answer:
            return True
        try:
            following = DecisionBatch.decode(base64.b64decode(answer["message"].get("data", "")))
        except (ValueError, KeyError, TypeError, IndexError):
            return True
        return following.prev != accepted
