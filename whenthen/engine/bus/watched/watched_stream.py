"""A stream that may be made again, or go back, while it is read. Used by the projectors of the history, and by what
shows the streams as they grow (`engine.live`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from whenthen.engine.bus.request_client import BusReason, RequestClient, unavailable
from whenthen.engine.bus.stream_reader import Received, StreamReader

__all__ = ["StreamChanged", "StreamState", "WatchedStream"]

log = logging.getLogger(__name__)

MOST_MESSAGES = 2000  #: of one transaction
MOST_BYTES = 8 << 20
GATHER_S = 0.5  #: that messages are waited for after the first one: a transaction for each few of them costs several times more
LOOK_S = 5.0  #: between two looks at a stream that is quiet
ABSENT_S = 1.0  #: until a stream that is not there is looked for again


class StreamChanged(Exception):
    """It is not the stream any more from which was read."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """Which stream it is, and how far it goes."""

    identity: str  #: when it was created
    last_seq: int
    first_seq: int = 1


class WatchedStream:
    """Reads a stream from a position on, and makes sure that what was read is of the stream that was looked at."""

    def __init__(
        self, client: RequestClient, stream: str, subjects: Sequence[str], *, gather_s: float = GATHER_S
    ) -> None:
        """`gather_s`: how long messages are waited for after the first one, so that several are taken together."""
        self._client = client
        self._stream = stream
        self._subjects = list(subjects)
        self._gather_s = gather_s
        self._reader = StreamReader(client, stream)
        self._found: StreamState | None = None
        self._consumers = 0
        self._after = 0
        self._looked = 0.0

    async def follow(self, project: Callable[[], Awaitable[None]], *, again: tuple[type[Exception], ...] = ()) -> None:
        """Run `project`, which looks, reads and gathers, until cancelled; again after `StreamChanged` and what `again` names.

        Raises:
            BusUnavailable: call it again.
        """
        changes: tuple[type[Exception], ...] = (StreamChanged, *again)
        try:
            while True:
                try:
                    await project()
                except changes as change:
                    log.info("%s is read anew: %r", self._stream, change)
        finally:
            await self._reader.stop()

    async def look(self) -> StreamState:
        """The stream as it is now; waits until there is one. Raises `BusUnavailable`."""
        while (found := await self._state()) is None:
            await asyncio.sleep(ABSENT_S)
        self._found = found
        return found

    async def read(self, *, after: int) -> None:
        """Read on from a position of the stream that `look` found."""
        config = {"deliver_policy": "all", "filter_subjects": self._subjects}
        self._after = after
        self._consumers = -1
        await self._reader.read(config, after=after)

    @property
    def caught_up(self) -> bool:
        """Whether nothing more waits."""
        return self._reader.caught_up

    async def gather(self, *, wait_s: float) -> list[Received]:
        """The next messages; none when none came within `wait_s`.

        Raises:
            StreamChanged: the stream is another one now; what it gave is to be dropped.
            BusUnavailable: it is not known whether it is.
        """
        found: list[Received] = []
        size = 0
        until = time.monotonic() + wait_s
        while len(found) < MOST_MESSAGES and size < MOST_BYTES:
            message = self._reader.take()
            if message is not None:
                if not found:
                    until = time.monotonic() + self._gather_s
                found.append(message)
                size += len(message.data)
            elif (left := until - time.monotonic()) <= 0:
                break
            elif found and self._reader.caught_up:
                await asyncio.sleep(left)  # rather than be woken by each
            else:
                await self._reader.wait(left)
        if found:
            self._after = found[-1].seq
        # a consumer ends with its stream, so that messages of one that was looked at are of the stream that was
        if (found and self._consumers != self._reader.consumers) or time.monotonic() - self._looked > LOOK_S:
            await self._make_sure()
        return found

    async def _make_sure(self) -> None:
        consumers = self._reader.consumers
        now = await self._state()
        if now is None or self._found is None or now.identity != self._found.identity or now.last_seq < self._after:
            raise StreamChanged
        self._consumers = consumers
        self._looked = time.monotonic()

    async def _state(self) -> StreamState | None:
        answer = await self._client.api(f"STREAM.INFO.{self._stream}")
        if "state" in answer:
            state = answer["state"]
            return StreamState(answer["created"], int(state["last_seq"]), int(state["first_seq"]))
        if answer.get("error", {}).get("code") == 404:
            return None
        raise unavailable(f"{self._stream} can not be read: {answer.get('error')}", BusReason.REFUSED)
