"""Stored events: lists and single ones."""

from __future__ import annotations

from typing import Any

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import ALL_EVENTS
from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.lists.asked_list import read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import (
    MOST_BYTES,
    ListedItem,
    ListKind,
    MergedLists,
    sequence,
)
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.queries.stored_events import event_fields, stored_event
from whenthen.schemas.errors import NotFound
from whenthen.schemas.history_rows import LEFT_OUT

__all__ = ["EventQueries"]


class EventQueries:
    def __init__(
        self,
        bus: Bus,
        positions: EventPositions,
        ids: IdPrefixes,
        lists: MergedLists,
        names: KnownNames,
        whole: WholeIds,
    ) -> None:
        self._whole_ids = whole
        self._bus = bus
        self._positions = positions
        self._ids = ids
        self._lists = lists
        self._names = names

    async def list_events(self, page: Page) -> Listing[answers.StoredEvent]:
        if "firing" in page.filters:
            page = page.with_filter("firing", await self._whole_ids.firing(page.filters["firing"]))
        asked = read_asked(
            "events", page, columns={"name": "event"}, filters={"event": "name"}, now=self._lists.clock()
        )
        listed = await self._lists.page(_EVENTS, asked)
        items: list[answers.StoredEvent] = []
        room, lost, cut = MOST_BYTES, 0, None
        for last, each in enumerate(listed):
            fields = each.fields
            size = fields.get(LEFT_OUT)
            if isinstance(size, int):
                if items and size > room:
                    cut = listed[last - 1].place
                    break
                room -= size
                fields = await self._whole(each)
                lost += LEFT_OUT in fields
            event = stored_event(fields, fields["seq"])
            if event is not None:
                items.append(event)
        found = self._names.noted(page, listed, items)
        if cut is not None:
            found.following = {"before": str(cut)}
        if lost:
            found.notes = [*found.notes, f"{lost} large payloads are not kept any more; `payload_bytes` says how large"]
        return found

    async def _whole(self, listed: ListedItem) -> dict[str, Any]:
        """The event with its large payload, if the stream still has it."""
        event = await self._bus.event_at(listed.fields["seq"])
        if event is None or event.id != listed.fields["id"]:
            return {"resource": {"id": ""}, **listed.fields}
        return {**event.data, "seq": listed.fields["seq"]}

    async def get_event(self, event_id: str) -> answers.StoredEvent:
        try:
            fields = await self.kept_event(event_id)
        except NotFound:
            row = await self._whole_ids.row("events", event_id)
            if row is None:
                raise
            fields = _from_row(dict(row))
        found = stored_event(fields, fields["seq"])
        if found is None:
            raise NotFound(f"what has the id {event_id[:200]!r} is no event of ours")
        return found

    async def kept_event(self, event_id: str) -> dict[str, Any]:
        """An event as its stream keeps it, with its position as `seq`: among the newest by itself, further back where the history knows of it.

        Errors: see `IdPrefixes.event`.
        """
        if (seq := self._positions.get(event_id)) is not None:
            event = await self._bus.event_at(seq)
            if event is not None and event.id == event_id:
                return {**event.data, "seq": seq}
        try:
            fields = await self._ids.event(event_id)
        except NotFound:
            found = await self._further_back(event_id, exact=False)
            if found is None:
                raise
            return found
        if fields["id"] == event_id:
            return fields
        # an id that is whole comes before those that begin with it, however old
        return await self._further_back(event_id, exact=True) or fields

    async def _further_back(self, event_id: str, *, exact: bool) -> dict[str, Any] | None:
        row = await self._whole_ids.row("events", event_id, exact=exact)
        if row is None:
            return None
        event = await self._bus.event_at(seq := sequence(row["pos"]))
        return None if event is None or event.id != row["id"] else {**event.data, "seq": seq}


def _item(message: StoredMessage) -> dict[str, Any] | None:
    event = event_fields(message)
    if not isinstance(event.get("id"), str) or not isinstance(event.get("event"), str):
        return None
    return {**event, "seq": message.seq}


def _from_row(row: dict[str, Any]) -> dict[str, Any]:
    event = {name: value for name, value in row.items() if name not in ("pos", "at_us", "name")}
    return {"event": row["name"], **event, "seq": sequence(row["pos"])}


_EVENTS = ListKind(
    stream=EVENTS,
    subjects=lambda _: [ALL_EVENTS],
    all_subjects=(ALL_EVENTS,),
    item=_item,
    from_row=_from_row,
)
