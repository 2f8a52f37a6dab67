"""Reading `EVENTS` in order and without gaps from a given position.

Called by the evaluation loop. The consumer acknowledges nothing, as the position is the shard's offset alone; what interrupts
the reading, and what is buffered, is said by `engine.bus.pull_consumer` and `engine.bus.stream_reader`.
"""

from __future__ import annotations

from collections.abc import Sequence

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_reader import Received, StreamReader
from whenthen.engine.bus.streams import EVENTS

__all__ = ["EventReader", "Received"]


class EventReader(StreamReader):
    """A self-healing reader. `start`, then `wait` and `take`, and `stop`. For one task."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus.client, EVENTS)

    async def start(self, after: int, filters: Sequence[str]) -> None:
        """Read what follows position `after` on subjects that pass `filters`; what was buffered is dropped."""
        config: dict[str, object] = {"deliver_policy": "all"}
        if len(filters) == 1:
            config["filter_subject"] = filters[0]
        elif filters:
            config["filter_subjects"] = list(filters)
        await self.read(config, after=after)
