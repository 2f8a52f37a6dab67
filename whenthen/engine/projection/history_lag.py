"""How far is the history behind the streams? Measured from outside the projectors, so that one that stands still is seen, too.

What a projector has not taken is asked of each stream: the first message behind the cursor, and how many follow it. `DECISIONS` is
measured up to what the shards' offsets name, as what was never committed is never taken. Meaning: docs/history.md, "How far it is".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.streams import DECISIONS
from whenthen.engine.bus.subjects import decisions_subject
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.projection.stream_projector import PROJECTED
from whenthen.history import Cursor, Database, HistoryUnavailable, read_cursors
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.times import parse_time, to_us

__all__ = ["HistoryLag", "StreamLag"]

log = logging.getLogger(__name__)

EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class StreamLag:
    """What of a stream, or of a shard of one, is not in the history."""

    messages: int = 0
    oldest_us: int = 0  #: when the first of them was stored; 0 without one

    def seconds(self, now_us: int) -> float:
        return max(0, now_us - self.oldest_us) / 1e6 if self.messages else 0.0


class HistoryLag:
    """Measures every `EVERY_S`, and reports messages and seconds by stream."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        *,
        report: Callable[[Mapping[str, tuple[int, float]]], None],
        shards: int,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._bus = bus
        self._database = database
        self._report = report
        self._shards = range(shards)
        self._reader = DecisionReader(bus)
        self._now_us = now_us
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._found: dict[tuple[str, int], StreamLag] = {}
        self._looked: dict[
            str, tuple[str, int, list[int]]
        ] = {}  #: where each stream and its cursors were when nothing was behind

    def now(self) -> dict[tuple[str, int], tuple[int, float]]:
        """Messages and seconds, by stream and shard, as they were measured last."""
        now_us = self._now_us()
        return {place: (each.messages, each.seconds(now_us)) for place, each in self._found.items()}

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.measure()
            except BusUnavailable as error:
                log.debug("how far the history is behind is not known: %s", error)
            await asyncio.sleep(EVERY_S)

    async def measure(self) -> None:
        """Look once. While the database can not be read, what was read last counts; before that, nothing is known to be in it.

        Raises:
            BusUnavailable: NATS does not answer.
        """
        try:
            cursors = await asyncio.to_thread(read_cursors, self._database)
            self._cursors = {(each.stream, each.shard): each for each in cursors}
        except HistoryUnavailable as error:
            log.debug("how far the history is can not be read: %s", error)
        streams = {stream: {0: subjects} for stream, subjects in PROJECTED.items()}
        streams[DECISIONS] = {shard: [decisions_subject(shard)] for shard in self._shards}
        for stream, shards in streams.items():
            await self._look(stream, shards)
        self._report({stream: self._of(stream, shards) for stream, shards in streams.items()})

    def _of(self, stream: str, shards: Iterable[int]) -> tuple[int, float]:
        """Messages and seconds of all shards."""
        found = [self._found[stream, shard] for shard in shards]
        return sum(each.messages for each in found), max(each.seconds(self._now_us()) for each in found)

    async def _look(self, stream: str, subjects: Mapping[int, Sequence[str]]) -> None:
        info = await self._bus.client.api(f"STREAM.INFO.{stream}")
        if "state" in info:
            identity, last_seq = info["created"], int(info["state"]["last_seq"])
        elif info.get("error", {}).get("code") == 404:
            identity, last_seq = "", 0
        else:
            raise unavailable(f"{stream} can not be asked: {info.get('error')}", BusReason.REFUSED)
        taken = [self._taken(stream, shard, identity) for shard in subjects]
        if self._looked.get(stream) == (identity, last_seq, taken):
            return
        for shard, after in zip(subjects, taken, strict=True):
            self._found[stream, shard] = await self._behind(stream, shard, subjects[shard], after, last_seq)
        if any(self._found[stream, shard].messages for shard in subjects):
            self._looked.pop(stream, None)
        else:
            self._looked[stream] = identity, last_seq, taken

    def _taken(self, stream: str, shard: int, identity: str) -> int:
        """The last sequence that is in the history; of a stream that was made again, nothing is."""
        cursor = self._cursors.get((stream, shard))
        return cursor.taken if cursor is not None and cursor.identity == identity else 0

    async def _behind(self, stream: str, shard: int, subjects: Sequence[str], after: int, last_seq: int) -> StreamLag:
        if after >= last_seq:
            return StreamLag()
        if stream == DECISIONS and (await self._reader.offset(shard)).decisions <= after:
            return StreamLag()
        found = [await self._first(stream, subject, after) for subject in subjects]
        return StreamLag(
            sum(each.messages for each in found), min((each.oldest_us for each in found if each.messages), default=0)
        )

    async def _first(self, stream: str, subject: str, after: int) -> StreamLag:
        """The first message behind a position, and how many there are from it on."""
        found = StreamLag()

        def receive(message: Delivery) -> None:
            nonlocal found
            headers = message.headers
            found = StreamLag(
                1 + int(headers.get("Nats-Num-Pending", "0")), to_us(parse_time(headers["Nats-Time-Stamp"]))
            )

        await self._bus.client.read_stored(stream, {"seq": after + 1, "next_by_subj": subject, "batch": 1}, receive)
        return found
