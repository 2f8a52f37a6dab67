"""The ids of recent events, read back from the stream: so that a follower is not held for an event that came long ago.

Called by the evaluation loop when the first event that names a predecessor shows: until then nobody remembered ids, and the
shard's consumer left out what its rules do not ask for. Only headers are sent, 100,000 events at most.
"""

from __future__ import annotations

from contextlib import aclosing
from urllib.parse import unquote

from whenthen.engine.bus.protocol import read_headers
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.streams import EVENTS
from whenthen.schemas.times import format_time, from_us

__all__ = ["recent_ids"]

_MAX_IDS = 100_000


async def recent_ids(client: RequestClient, *, since_us: int, before: int) -> list[tuple[str, int]]:
    """Ids and times of the events stored since `since_us`, at positions below `before`, oldest first.

    Raises:
        BusUnavailable: no answer.
    """
    config = {
        "deliver_policy": "by_start_time",
        "opt_start_time": format_time(from_us(max(since_us, 0))),
        "filter_subject": "events.>",
        "headers_only": True,
    }
    found: list[tuple[str, int]] = []
    async with aclosing(stored_messages(client, EVENTS, config)) as messages:
        async for message in messages:
            if message.seq >= before:
                break
            name = read_headers(message.head).get("Nats-Msg-Id")
            if name is not None:
                found.append((unquote(name), message.time_us))
            if len(found) >= _MAX_IDS:
                break
    return found
