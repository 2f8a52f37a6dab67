"""The ids of recent events, read back from the stream: so that a follower is not held for an event that came long ago.

Called by the evaluation loop when the first event that names a predecessor shows: until then nobody remembered ids, and the
shard's consumer left out what its rules do not ask for. Only headers are sent, 100,000 events at most.
"""

from __future__ import annotations

from urllib.parse import unquote

import orjson

from whenthen.engine.bus import ACK, EVENTS, BusReason, Delivery, RequestClient, read_position, unavailable
from whenthen.schemas import format_time, from_us

__all__ = ["recent_ids"]

_BATCH = 5000
_MAX_IDS = 100_000
_FORGET_S = 10  #: after which the server forgets the consumer


async def recent_ids(client: RequestClient, *, since_us: int, before: int) -> list[tuple[str, int]]:
    """Ids and times of the events stored since `since_us`, at positions below `before`, oldest first.

    Raises:
        BusUnavailable: no answer.
    """
    found: list[tuple[str, int]] = []
    consumer = await _consumer(client, since_us)
    left = 0  #: of the batch that was asked for
    more = True

    def receive(message: Delivery) -> bool:
        nonlocal left, more
        reply = message.reply.encode()
        if not reply.startswith(ACK):
            if message.headers.get("Status") not in ("404", "408"):
                why = f"recent events can not be read: {message.headers.get('Description')}"
                raise unavailable(why, BusReason.REFUSED)
            more = False
            return False
        at = read_position(reply)
        left -= 1
        more = at.seq < before and at.pending > 0
        name = message.headers.get("Nats-Msg-Id")
        if name is not None and at.seq < before:
            found.append((unquote(name), at.time_us))
        return more and left > 0

    while more and len(found) < _MAX_IDS:
        left = _BATCH
        request = orjson.dumps({"batch": _BATCH, "no_wait": True})
        await client.stream_of(f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{consumer}", request, receive)
    return found


async def _consumer(client: RequestClient, since_us: int) -> str:
    config = {
        "deliver_policy": "by_start_time",
        "opt_start_time": format_time(from_us(max(since_us, 0))),
        "ack_policy": "none",
        "filter_subject": "events.>",
        "headers_only": True,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _FORGET_S * 1_000_000_000,
    }
    answer = await client.api(f"CONSUMER.CREATE.{EVENTS}", {"stream_name": EVENTS, "config": config})
    if error := answer.get("error"):
        raise unavailable(f"recent events can not be read: {error.get('description')}", BusReason.REFUSED)
    name: str = answer["name"]
    return name
