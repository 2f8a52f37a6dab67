"""The stream `DECISIONS` as the evaluation of a shard uses it: a port, and the port over NATS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.streams import DECISIONS
from whenthen.engine.bus.subjects import decisions_subject

__all__ = ["DecisionLog", "NatsDecisionLog", "read_decisions"]

READ_MESSAGES = 1000  #: of one request
READ_BYTES = 8 << 20


class DecisionLog(Protocol):
    """Where batches of decisions are put, in an order that never changes."""

    @property
    def largest(self) -> int:
        """Bytes of the largest message that can be stored."""

    async def append(self, shard: int, data: bytes, message_id: str) -> int:
        """Append a message and give its sequence, which ascends unless the log was made anew; that of the first one when the
        id was seen lately.

        Raises:
            BusUnavailable: not known to be stored; append it again.
            InvalidInput: larger than the server takes.
        """

    async def read(self, shard: int, *, after: int, receive: Callable[[int, bytes], None]) -> None:
        """Hand sequence and data of the shard's messages after a sequence to `receive`, ascending.

        Raises:
            BusUnavailable: not all came.
        """


class NatsDecisionLog:
    """The `DecisionLog` over NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @property
    def largest(self) -> int:
        """See `DecisionLog.largest`."""
        return self._bus.nc.max_payload - 1024

    async def append(self, shard: int, data: bytes, message_id: str) -> int:
        """See `DecisionLog.append`."""
        return (await self._bus.store(decisions_subject(shard), data, message_id)).seq

    async def read(self, shard: int, *, after: int, receive: Callable[[int, bytes], None]) -> None:
        """See `DecisionLog.read`."""
        await read_decisions(self._bus, shard, after=after, receive=receive)


async def read_decisions(bus: Bus, shard: int, *, after: int, receive: Callable[[int, bytes], None]) -> None:
    """Hand the stored messages of a shard after a sequence to `receive`. Raises `BusUnavailable`."""
    seen = after
    more = True

    def deliver(message: Delivery) -> None:
        nonlocal seen
        seen = int(message.headers["Nats-Sequence"])
        receive(seen, message.data)

    while more:
        request = {
            "seq": seen + 1,
            "next_by_subj": decisions_subject(shard),
            "batch": READ_MESSAGES,
            "max_bytes": READ_BYTES,
        }
        more = await bus.client.read_stored(DECISIONS, request, deliver)
