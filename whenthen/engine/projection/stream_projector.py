"""Projects one stream: events, what the engine stores of firings and actions, flow runs, or the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import Received
from whenthen.engine.bus.streams import TOLD
from whenthen.engine.bus.watched import WatchedStream
from whenthen.engine.projection.history_writer import HistoryWriter
from whenthen.history import Cursor, CursorMoved, Message, Rows, message_rows

__all__ = ["PROJECTED", "StreamProjector", "clock_of"]

PROJECTED = TOLD  #: message by message
IDLE_S = 1.0


class StreamProjector:
    """Reads a stream from where the history is, for ever."""

    def __init__(self, client: RequestClient, writer: HistoryWriter, stream: str) -> None:
        self._name = stream
        self._stream = WatchedStream(client, stream, PROJECTED[stream])
        self._writer = writer

    async def run(self) -> None:
        """Project until cancelled. Raises `BusUnavailable`; call it again."""
        await self._stream.follow(self._project, again=(CursorMoved,))

    async def _project(self) -> None:
        projection = self._writer.projection
        known = await self._writer.do(lambda: projection.known(self._name))  # first: others may go on meanwhile
        state = await self._stream.look()
        cursor = await self._writer.do(
            lambda: projection.cursor(self._name, identity=state.identity, last_seq=state.last_seq, known=known)
        )
        await self._stream.read(after=cursor.taken)
        while True:
            messages = await self._stream.gather(wait_s=IDLE_S)
            if messages:
                old = cursor
                rows, cursor = await self._writer.do(lambda old=old, got=messages: _rows(old, got))  # type: ignore[misc]
                await self._writer.write([(old, cursor)], rows)


def _rows(cursor: Cursor, messages: Sequence[Received]) -> tuple[Rows, Cursor]:
    """What messages become, and where the cursor is then."""
    rows = Rows()
    clock_us = cursor.clock_us
    for seq, time_us, _, subject, data, _ in messages:
        clock_us = clock_of(clock_us, time_us)
        message_rows(rows, Message(subject, seq, clock_us, data), pos=cursor.position(seq), at_us=clock_us)
    return rows, replace(cursor, taken=messages[-1].seq, clock_us=clock_us)


def clock_of(clock_us: int, time_us: int) -> int:
    """The time of a message in the history, where time never goes back."""
    return max(clock_us, time_us)
