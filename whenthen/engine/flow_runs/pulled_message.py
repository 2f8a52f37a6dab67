"""A message of a durable pull consumer, which is pending until it is acknowledged or its ack wait is over, and who handles each in turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

import orjson

from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.request_client import RequestClient
from whenthen.schemas.errors import BusUnavailable

__all__ = ["MessageHandler", "PulledMessage"]

log = logging.getLogger(__name__)

#: the server keeps the moment of a delayed redelivery with the consumer; one without a delay it forgets when it is stopped
_LEAST_DELAY_NS = 1_000_000


class PulledMessage:
    """What a durable `PullConsumer` delivered, with the answers that the server knows. Each may raise `BusUnavailable`."""

    def __init__(self, client: RequestClient, position: Position, reply: bytes, data: bytes) -> None:
        self.position = position
        self.data = data
        self._client = client
        self._reply = reply.decode()

    async def ack(self) -> None:
        """Done. Returns when the server knows."""
        await self._client.request(self._reply, b"+ACK")

    def nak(self, delay: timedelta) -> None:
        """Deliver it again after `delay`, also when the server is started anew meanwhile."""
        delay_ns = max(_LEAST_DELAY_NS, int(delay.total_seconds() * 1e9))
        self._client.send(self._reply, b"-NAK " + orjson.dumps({"delay": delay_ns}))

    def in_progress(self) -> None:
        """Still busy with it: the time in which to answer begins anew."""
        self._client.send(self._reply, b"+WPI")


class MessageHandler:
    """Hands the messages of a stream to `handle`, one after the other, and acknowledges each after it. What raises `BusUnavailable` is
    delivered again."""

    def __init__(
        self,
        client: RequestClient,
        handle: Callable[[PulledMessage], Awaitable[None]],
        *,
        stream: str,
        durable: str,
        most_pending: int,
        ack_wait: timedelta,
        retry_pause: timedelta,
        what: str,
    ) -> None:
        """`durable` names the consumer, `most_pending` how many messages may be delivered and not acknowledged (with 1 the order is kept,
        whatever fails), `what` a message in lines of the log."""
        self._client = client
        self._handle = handle
        self._ahead = max(1, most_pending // 2)  #: messages that may wait here
        self._retry_pause = retry_pause
        self._what = what
        self._waiting: deque[PulledMessage] = deque()
        self._changed = asyncio.Event()
        config = {
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait.total_seconds() * 1e9),
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": most_pending,
        }
        self._settings = ConsumerSettings(stream=stream, durable=durable, config=config)

    async def run(self) -> None:
        """Handle until cancelled. Raises whatever ended the reading unexpectedly."""
        self._waiting.clear()
        consumer = PullConsumer(
            self._client,
            self._settings,
            self._deliver,
            demand=lambda asked: max(0, self._ahead - len(self._waiting) - asked),
            changed=self._changed.set,
        )
        consumer.start()
        try:
            while True:
                consumer.check()
                self._changed.clear()
                while self._waiting:
                    message = self._waiting.popleft()
                    consumer.wake()  # there is room for another one, which nothing else tells it
                    await self._handle_one(message)
                    consumer.check()
                await self._changed.wait()
        finally:
            await consumer.stop()

    def _deliver(self, position: Position, reply: bytes, subject: bytes, head: bytes, data: bytes) -> None:
        self._waiting.append(PulledMessage(self._client, position, reply, data))
        self._changed.set()

    async def _handle_one(self, message: PulledMessage) -> None:
        try:
            await self._handle(message)
            await message.ack()
        except BusUnavailable as error:
            log.info("%s is not published yet, trying again: %s", self._what, error)
            with contextlib.suppress(BusUnavailable):
                message.nak(self._retry_pause)
            await asyncio.sleep(self._retry_pause.total_seconds())
