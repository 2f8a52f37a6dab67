"""Stream positions by event id, of the events that this process stored last: they are found without a search."""

from __future__ import annotations

__all__ = ["EventPositions"]

MOST = 50_000  #: ids that are remembered; past it a tenth, the oldest, is forgotten


class EventPositions:
    """Positions in `EVENTS` by event id."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def add(self, event_id: str, seq: int) -> None:
        self._positions[event_id] = seq
        if len(self._positions) > MOST:
            for oldest in list(self._positions)[: MOST // 10]:
                del self._positions[oldest]

    def get(self, event_id: str) -> int | None:
        return self._positions.get(event_id)
