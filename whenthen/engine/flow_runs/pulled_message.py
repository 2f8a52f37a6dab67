"""A message of a durable pull consumer, which is pending until it is acknowledged or its ack wait is over."""

from __future__ import annotations

from datetime import timedelta

import orjson

from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.request_client import RequestClient

__all__ = ["PulledMessage"]

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
