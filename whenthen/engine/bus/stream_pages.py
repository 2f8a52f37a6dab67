"""What a stream keeps, newest first: for listings, which look at the last few thousand messages and no further.

Called by `engine.process.api`. Reads straight from the stream (no consumer), in blocks from its end towards its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import RequestClient

__all__ = ["StoredMessage", "newest"]

T = TypeVar("T")
_BLOCK = 500  #: messages of the first look back; each further one takes twice as many
_MAX_SCANNED = 50_000
_MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream keeps it. `time` is RFC 3339, when the server stored it."""

    subject: str
    seq: int
    time: str
    data: bytes


async def newest(
    client: RequestClient,
    stream: str,
    subject: str,
    *,
    limit: int,
    pick: Callable[[StoredMessage], T | None],
    before: int | None = None,
) -> list[T]:
    """Up to `limit` results of `pick` over messages of `subject` (may have wildcards), the newest first.

    `pick` gives None for what is not wanted. At most 50,000 positions are looked at. `before` excludes that position
    and what follows.

    Raises:
        BusUnavailable: no answer.
    """
    info = await client.api(f"STREAM.INFO.{stream}")
    state = info["state"]
    end = min(before if before is not None else state["last_seq"] + 1, state["last_seq"] + 1)
    found: list[T] = []
    block = _BLOCK
    floor = max(state["first_seq"], end - _MAX_SCANNED)
    while end > floor and len(found) < limit:
        start = max(floor, end - block)
        picked = [
            item for kept in reversed(await _between(client, stream, subject, start, end)) if (item := pick(kept))
        ]
        found += picked
        end = start
        block *= 2
    return found[:limit]


async def _between(client: RequestClient, stream: str, subject: str, start: int, end: int) -> list[StoredMessage]:
    """Messages of `subject` with positions in [start, end), ascending."""
    found: list[StoredMessage] = []
    more = True

    def receive(message: Delivery) -> None:
        nonlocal start
        headers = message.headers
        seq = int(headers["Nats-Sequence"])
        if seq < end:
            found.append(StoredMessage(headers["Nats-Subject"], seq, headers["Nats-Time-Stamp"], message.data))
        start = max(start, seq + 1)

    while more and start < end:
        request = {"seq": start, "next_by_subj": subject, "batch": end - start, "max_bytes": _MAX_BYTES}
        more = await client.read_stored(stream, request, receive)
    return found
