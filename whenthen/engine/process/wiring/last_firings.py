"""When did each automation fire last, before this process began? Read once from the stored firings, for metrics and the API."""

from __future__ import annotations

from datetime import datetime

import orjson

from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.schemas.times import format_time

__all__ = ["read_last_firings"]

_FIRINGS_READ = 2000  #: the newest ones


async def read_last_firings(parts: ProcessParts) -> None:
    """Tell the metrics and the observation of `parts` when automations fired last.

    Raises:
        BusUnavailable: no answer.
    """

    def pick(message: StoredMessage) -> tuple[str, str] | None:
        firing = orjson.loads(message.data) if message.data else {}
        return (firing["automation"], message.time) if firing.get("state") == "Triggered" else None

    for automation, stored in await newest(parts.bus.client, ENGINE, "engine.firing.>", limit=_FIRINGS_READ, pick=pick):
        fired = datetime.fromisoformat(stored)
        parts.observation.seed(automation, format_time(fired))
        parts.metrics.fired_before(automation, fired.timestamp())
