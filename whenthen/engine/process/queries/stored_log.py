"""The stream `EVENTS` as lines for `whenthen replay`: events, ticks, markers of rules, pauses and skips in the order of the log.

Sent while it is read, so however long the stream is, no more of it is held than a reader buffers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import Any

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import stream_info
from whenthen.engine.bus.stream_reader import Received, StreamReader
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import marker_number
from whenthen.engine.process.pausing.pause_log import NatsPauseLog
from whenthen.engine.process.queries.moments import time_range
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import Conflict
from whenthen.schemas.events import decode_event
from whenthen.schemas.times import format_us

__all__ = ["StoredLog"]

MOST_READERS = 2
PART_BYTES = 256 << 10  #: of what is sent at one time
WAIT_S = 0.5


class StoredLog:
    """Answers `GET /api/log`. `position_at` gives the last position before a moment."""

    def __init__(
        self,
        bus: Bus,
        position_at: Callable[[int], Awaitable[int]],
        *,
        paused_now: Callable[[], list[PauseChange]],
        clock: Callable[[], datetime],
    ) -> None:
        self._pauses = NatsPauseLog(bus)
        self._paused_now = paused_now
        self._bus = bus
        self._position_at = position_at
        self._clock = clock
        self._readers = 0

    async def stored_log(self, since: str | None, until: str | None) -> AsyncGenerator[bytes, None]:
        """Lines from a time (or how long ago) to another one, exclusive; up to what is stored now without.

        Raises:
            InvalidInput: it is no time.
            Conflict: others read it already.
            BusUnavailable: NATS does not answer.
        """
        now = self._clock()
        since_us, until_us = time_range({"since": since, "until": until}, now)
        if self._readers >= MOST_READERS:
            raise Conflict(f"{MOST_READERS} others read the whole log already; wait until one of them is done")
        info = await stream_info(self._bus.client, EVENTS)
        after = 0 if since_us is None else await self._position_at(since_us)
        return self._parts(after, int(info["state"]["last_seq"]), until_us)

    async def _parts(self, after: int, last: int, until_us: int | None) -> AsyncGenerator[bytes, None]:
        self._readers += 1
        reader = StreamReader(self._bus.client, EVENTS)
        try:
            yield await self._skips()
            pauses = await self._pauses.standing(after, self._paused_now())
            yield b"".join(change.encode() + b"\n" for change in pauses)
            part = bytearray()
            await reader.read({"deliver_policy": "all"}, after=after)
            while True:
                message = reader.take()
                if message is None:
                    if part:
                        yield bytes(part)
                        part.clear()
                    if reader.caught_up:
                        return
                    reader.raise_trouble(patient=True)
                    await reader.wait(WAIT_S)
                    continue
                if message.seq > last or (until_us is not None and message.time_us >= until_us):
                    break
                line = _line(message)
                if line is not None:
                    part += orjson.dumps(line) + b"\n"
                if len(part) >= PART_BYTES:
                    yield bytes(part)
                    part.clear()
                if message.seq == last:
                    break
            if part:
                yield bytes(part)
        finally:
            self._readers -= 1
            await reader.stop()

    async def _skips(self) -> bytes:
        """The skips first, as they are stored after the events that they are about."""
        found: list[bytes] = []

        def receive(message: Delivery) -> None:
            found.append(message.data + b"\n")

        request = {"seq": 1, "next_by_subj": "skips.>", "batch": 10_000}
        await self._bus.client.read_stored(EVENTS, request, receive)
        return b"".join(found)


def _line(message: Received) -> dict[str, Any] | None:
    """A message as a line of a replay; None for one that shards pass over, too."""
    stored = format_us(message.time_us)
    if message.subject.startswith("skips."):
        return None
    if (number := marker_number(message.subject)) is not None:
        return {"rules": number, "at": stored}
    if message.subject.startswith("pauses."):
        try:
            PauseChange.decode(message.data)
        except ValueError:
            return None
        return {**orjson.loads(message.data), "at": stored}
    if not message.subject.startswith("events."):
        return {"tick": stored}
    try:
        event = decode_event(message.data, message.seq)
    except Exception:  # noqa: BLE001  # whatever another program wrote there
        return None
    return {**event.data, "seq": message.seq, "stored": stored}
