"""Stored events: lists and single ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.http import Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.stored_events import event_fields, stored_event
from whenthen.schemas.errors import NotFound

__all__ = ["EventQueries"]


class EventQueries:
    def __init__(self, bus: Bus, positions: EventPositions, ids: IdPrefixes) -> None:
        self._bus = bus
        self._positions = positions
        self._ids = ids

    async def list_events(self, page: Page) -> list[answers.StoredEvent]:
        def pick(message: StoredMessage) -> answers.StoredEvent | None:
            event = event_fields(message)
            return stored_event(event, message.seq) if _matches(event, page.filters) else None

        return await newest(self._bus.client, EVENTS, "events.>", limit=page.limit, pick=pick, before=page.position)

    async def get_event(self, event_id: str) -> answers.StoredEvent:
        if (seq := self._positions.get(event_id)) is not None:
            event = await self._bus.event_at(seq)
            if event is not None and event.id == event_id and (found := stored_event(event.data, seq)) is not None:
                return found

        fields = await self._ids.event(event_id)
        found = stored_event(fields, fields["seq"])
        if found is None:
            raise NotFound(f"what has the id {event_id[:200]!r} is no event of ours")
        return found


def _matches(event: Mapping[str, Any], filters: Mapping[str, str]) -> bool:
    for name, glob in filters.items():
        value = event.get(name)
        if name == "resource":
            value = value.get("id") if isinstance(value, dict) else None
        if not isinstance(value, str) or not fnmatch.fnmatchcase(value, glob):
            return False
    return True
