"""Messages of a stream in order and without gaps, in a bounded buffer: for ever, or all that are stored now.

Used by the evaluation loop (`engine.evaluation.event_reader`) and whoever reads a stream from the start. It reads through an ordered
`PullConsumer`, from the stream's leader. Bounds: `LOW_WATER` + `PULL_MESSAGES` messages, and `PULL_BYTES` more than one pull request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

from whenthen.cancellation import wait_event
from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.request_client import BusReason, RequestClient, unavailable
from whenthen.schemas.errors import BusUnavailable

__all__ = ["Received", "StreamReader", "stored_messages"]

PULL_MESSAGES = 2000
PULL_BYTES = 32 << 20  #: of one pull request
LOW_WATER = 1000  #: buffered and asked-for messages below which more are asked for
COUNT_AGAIN_S = 1.0  #: without a message, after which the server is asked how many there still are
IDLE_S = 10.0  #: how long stored messages may fail to come


class Received(NamedTuple):
    """One message of a stream."""

    seq: int
    time_us: int  #: when the server stored it
    pending: int  #: how many more the server had when it sent this one
    subject: str
    data: bytes
    head: bytes = b""  #: its header block


class StreamReader:
    """A self-healing reader. `start`, then `wait` and `take`, and `stop`. For one task."""

    def __init__(self, client: RequestClient, stream: str, *, ahead: int = PULL_MESSAGES) -> None:
        """`ahead` is how many messages are asked for at one time: few where most that follow are not wanted."""
        self._client = client
        self._stream = stream
        self._ahead = ahead
        self._low = min(LOW_WATER, ahead)
        self._buffer: deque[Received] = deque()
        self._bytes = 0  #: of what is buffered
        self._arrived = asyncio.Event()
        self._consumer: PullConsumer | None = None
        self._received = self._created = 0  #: by consumers before this one

    async def read(self, config: Mapping[str, object], *, after: int = 0) -> None:
        """Read what a consumer with this configuration gives, from position `after` on; what was buffered is dropped."""
        await self.stop()
        settings = ConsumerSettings(stream=self._stream, config=config, max_bytes=PULL_BYTES)
        self._consumer = PullConsumer(
            self._client, settings, self._deliver, demand=self._demand, changed=self._arrived.set, after=after
        )
        self._consumer.start()

    async def stop(self) -> None:
        """End reading, and drop what is buffered."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
            self._received += consumer.received
            self._created += consumer.created
        # only now: what came while it ended would be read before what the next one begins with
        self._buffer.clear()
        self._bytes = 0

    @property
    def received(self) -> int:
        """Messages, over all consumers."""
        return self._received + (self._consumer.received if self._consumer is not None else 0)

    @property
    def consumers(self) -> int:
        """How many were created."""
        return self._created + (self._consumer.created if self._consumer is not None else 0)

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def pending(self) -> int:
        """Messages known to wait: buffered here and not sent yet."""
        return len(self._buffer) + (self._consumer.pending if self._consumer is not None else 0)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there has been taken."""
        consumer = self._consumer
        return consumer is not None and consumer.live and not self._buffer and consumer.pending == 0

    def take(self) -> Received | None:
        """The next message, or None when none has arrived."""
        if not self._buffer:
            return None
        message = self._buffer.popleft()
        self._bytes -= len(message.data)
        consumer = self._consumer
        if len(self._buffer) < self._low and consumer is not None and self._demand(consumer.asked):
            consumer.wake()
        return message

    async def wait(self, timeout_s: float) -> bool:
        """Wait until a message is buffered, at most `timeout_s`; whether there is one. May return early without.

        Raises whatever ended the reading, once the buffer is empty.
        """
        if not self._buffer:
            self._check()
            self._arrived.clear()
            await wait_event(self._arrived, timeout_s)
            if not self._buffer:
                self._check()
        return bool(self._buffer)

    async def count_again(self) -> None:
        """See `PullConsumer.count_again`."""
        if self._consumer is not None and self._consumer.live and not self._buffer:
            await self._consumer.count_again()

    def wake(self) -> None:
        """End a `wait` early."""
        self._arrived.set()

    def raise_trouble(self, *, patient: bool = False) -> None:
        """For who would rather fail than wait. With `patient`, a server that has not answered yet is no reason: it is asked again.

        Raises:
            BusUnavailable: reading is interrupted now.
        """
        trouble = self._consumer.trouble if self._consumer is not None else None
        if trouble is not None and not (patient and trouble.reason == BusReason.TIMEOUT):
            raise trouble

    def _check(self) -> None:
        if self._consumer is not None:
            self._consumer.check()

    def _demand(self, asked: int) -> int:
        low = asked + len(self._buffer) < self._low and self._bytes < PULL_BYTES
        return self._ahead if low else 0

    def _deliver(self, position: Position, reply: bytes, subject: bytes, head: bytes, data: bytes) -> None:
        _, seq, _, time_us, pending = position
        self._bytes += len(data)
        self._buffer.append(Received(seq, time_us, pending, subject.decode(), data, head))
        self._arrived.set()


async def stored_messages(
    client: RequestClient, stream: str, config: Mapping[str, object], *, ahead: int = PULL_MESSAGES
) -> AsyncGenerator[Received, None]:
    """What a consumer with this configuration gives until it has caught up, in order. Close it when you stop early, with `ahead` small
    where it is likely (see `StreamReader`).

    With `last_per_subject`, a subject may come again when messages were lost on the way.

    Raises:
        BusUnavailable: no answer, or nothing came for `IDLE_S`.
    """
    now = asyncio.get_running_loop().time
    reader = StreamReader(client, stream, ahead=ahead)
    await reader.read(config)
    deadline = now() + IDLE_S
    try:
        while True:
            while (message := reader.take()) is not None:
                yield message
                if message.pending == 0:
                    return
                deadline = now() + IDLE_S
            if reader.caught_up:
                return
            reader.raise_trouble(patient=True)  # one request that a busy server left unanswered is not worth a failure
            if await reader.wait(min(COUNT_AGAIN_S, deadline - now())):
                continue
            if now() >= deadline:
                raise unavailable(f"NATS sent nothing of {stream} for {IDLE_S:g} s", BusReason.TIMEOUT)
            try:
                await reader.count_again()
            except BusUnavailable as error:
                if error.reason != BusReason.TIMEOUT:
                    raise
    finally:
        await reader.stop()
