"""Projects the stream `DECISIONS`: what is committed of it, for each shard (`engine.decisions.committed`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_reader import Received
from whenthen.engine.bus.streams import DECISIONS
from whenthen.engine.bus.watched import WatchedStream
from whenthen.engine.decisions import CommittedBatches, DecisionReader
from whenthen.engine.projection.history_writer import HistoryWriter
from whenthen.engine.projection.stream_projector import clock_of
from whenthen.history import Cursor, CursorMoved, Rows
from whenthen.schemas.decision_records import DecisionBatch

__all__ = ["DecisionProjector"]

IDLE_S = 0.5  #: until the offsets are asked whether they name the last batches


@dataclass(slots=True)
class _Shard:
    """What is known of a shard's batches."""

    cursor: Cursor
    batches: CommittedBatches
    last_seq: int = 0  #: of the last message
    times: dict[int, int] = field(default_factory=dict)  #: of messages that may be committed, by their sequence

    @property
    def held(self) -> bool:
        """Whether a message waits for its commit to be known."""
        return self.last_seq > self.batches.accepted

    def take(self, rows: Rows, given: Sequence[DecisionBatch]) -> None:
        """Add the parts of batches that are committed now."""
        if not given:
            return
        at_us = self.times.get(self.batches.accepted, self.cursor.clock_us)
        row = 0
        for part in given:
            row = rows.add_decisions(part, pos=self.cursor.position(self.batches.accepted), at_us=at_us, row=row)
        self.times = {seq: time_us for seq, time_us in self.times.items() if seq > self.batches.accepted}

    @property
    def now(self) -> Cursor:
        """Where the cursor is, with what was given."""
        return replace(self.cursor, taken=self.batches.accepted)


class DecisionProjector:
    """Reads the stream from where the shard that is least far is, for ever."""

    def __init__(self, bus: Bus, writer: HistoryWriter, *, shards: int) -> None:
        self._stream = WatchedStream(bus.client, DECISIONS, ["decisions.*"])
        self._reader = DecisionReader(bus)
        self._writer = writer
        self._numbers = range(shards)

    async def run(self) -> None:
        """Project until cancelled. Raises `BusUnavailable`; call it again."""
        await self._stream.follow(self._project, again=(CursorMoved,))

    async def _project(self) -> None:
        projection = self._writer.projection
        known = await self._writer.do(lambda: projection.known(DECISIONS))  # first: others may go on meanwhile
        state = await self._stream.look()
        cursors = await self._writer.do(
            lambda: projection.cursors(
                DECISIONS, self._numbers, identity=state.identity, last_seq=state.last_seq, known=known
            )
        )
        shards = {each.shard: _Shard(each, CommittedBatches(each.taken), each.taken) for each in cursors}
        await self._stream.read(after=min(each.taken for each in cursors))
        while True:
            messages = await self._stream.gather(wait_s=IDLE_S)
            rows = await self._writer.do(lambda got=messages: _rows(shards, got))  # type: ignore[misc]
            if self._stream.caught_up:
                await self._take_tails(shards, rows)
            moves = [(each.cursor, each.now) for each in shards.values() if each.cursor != each.now]
            if moves:
                await self._writer.write(moves, rows)
                for shard in shards.values():
                    shard.cursor = shard.now

    async def _take_tails(self, shards: dict[int, _Shard], rows: Rows) -> None:
        """Ask the offsets which of the last batches are committed; read after the messages, as `CommittedBatches` wants it."""
        for number, shard in shards.items():
            if shard.held:
                named = (await self._reader.offset(number)).decisions
                shard.take(rows, shard.batches.offset(named))


def _rows(shards: dict[int, _Shard], messages: Sequence[Received]) -> Rows:
    """What is known to be committed by these messages."""
    rows = Rows()
    for seq, time_us, _, _, data, _ in messages:
        try:
            batch = DecisionBatch.decode(data)
        except (ValueError, KeyError, TypeError, IndexError):
            rows.unreadable += 1
            continue
        shard = shards.get(batch.shard)
        if shard is None or seq <= shard.cursor.taken:
            continue
        shard.last_seq = seq
        clock_us = clock_of(shard.cursor.clock_us, time_us)
        shard.cursor = replace(shard.cursor, clock_us=clock_us)
        shard.times[seq] = clock_us
        shard.take(rows, shard.batches.message(seq, batch))
    return rows
