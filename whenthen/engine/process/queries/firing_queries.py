"""Firings: newest first, or one by its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.queries.action_queries import ActionQueries
from whenthen.engine.process.queries.lists.asked_list import AskedList, read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import ListKind, MergedLists, sequence
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.schemas.errors import NotFound
from whenthen.schemas.firings import FiringState
from whenthen.schemas.times import format_us, parse_time, to_us
from whenthen.schemas.trace_context import derived_trace, valid_trace

__all__ = ["FiringQueries", "find_firing"]

_COLUMNS = {"automation": "automation", "state": "state", "event": "event"}


class FiringQueries:
    def __init__(
        self, client: RequestClient, lists: MergedLists, names: KnownNames, ids: WholeIds, actions: ActionQueries
    ) -> None:
        self._client = client
        self._ids = ids
        self._actions = actions
        self._lists = lists
        self._names = names

    async def list_firings(self, page: Page) -> Listing[answers.FiringSummary]:
        state = page.choice("state", [state.value for state in FiringState])
        if state is not None:
            page = page.with_filter("state", state)
        asked = read_asked(
            "firings", page, columns=_COLUMNS, filters={name: name for name in _COLUMNS}, now=self._lists.clock()
        )
        found = await self._lists.page(_FIRINGS, asked)
        return self._names.noted(page, found, [answers.FiringSummary.model_validate(each.fields) for each in found])

    async def get_firing(self, firing_id: str) -> answers.FiringDetail:
        """A firing with its actions. Raises NotFound, Conflict (the beginning of several)."""
        whole = await self._ids.firing(firing_id)
        page = Page(limit=1, filters={"id": whole})
        asked = read_asked("firings", page, columns=_COLUMNS, filters={}, now=self._lists.clock())
        kind = replace(_FIRINGS, subjects=lambda _: [f"engine.firing.*.{short_token(whole)}"])
        for each in await self._lists.page(kind, asked):
            if each.fields["id"] == whole:
                return answers.FiringDetail(
                    **answers.FiringSummary.model_validate(each.fields).model_dump(),
                    actions=await self._actions.of_firing(whole),
                )
        raise NotFound(f"there is no firing {whole[:200]!r}; `whenthen firings` lists them")


async def find_firing(client: RequestClient, firing_id: str) -> dict[str, Any] | None:
    """A firing as it is stored, by its whole id alone; None when it is not kept. Raises `BusUnavailable`."""
    found: list[dict[str, Any]] = []

    def receive(message: Delivery) -> None:
        if message.data:
            found.append(orjson.loads(message.data))

    request = {"seq": 1, "next_by_subj": f"engine.firing.*.{short_token(firing_id)}", "batch": 1}
    await client.read_stored(ENGINE, request, receive)
    return found[0] if found and found[0].get("id") == firing_id else None


def _subjects(asked: AskedList) -> list[str]:
    automation = asked.equal.get("automation")
    return [f"engine.firing.{short_token(automation)}.*" if automation else "engine.firing.>"]


def _item(message: StoredMessage) -> dict[str, Any] | None:
    if not message.data:
        return None
    firing: dict[str, Any] = orjson.loads(message.data)
    return {
        "id": firing["id"],
        "automation": firing["automation"],
        "state": firing["state"],
        "fired": format_us(to_us(parse_time(message.time))),  # as the history has it
        "at": firing["at"],
        "key": firing["key"],
        "event": _event_id(firing),
        "events": [ref[0] for ref in firing["refs"]],
        "total": firing.get("total", len(firing["refs"])),
        "trace": _trace(firing),
        "seq": message.seq,
    }


def _from_row(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        key = orjson.loads(row["key"])
    except orjson.JSONDecodeError:  # it was cut
        key = {"": row["key"]}
    return {
        "id": row["id"],
        "automation": row["automation"],
        "state": row["state"],
        "fired": format_us(row["at_us"]),
        "at": row.get("at") or format_us(row["at_us"]),
        "key": key if isinstance(key, dict) else {"": key},
        "event": row["event"] or None,
        "events": row.get("events") or [],
        "total": row.get("total", 0),
        "trace": _trace(row),
        "seq": sequence(row["pos"]),
    }


def _trace(firing: Mapping[str, Any]) -> dict[str, str]:
    return valid_trace(firing.get("trace")) or derived_trace(firing["id"])


def _event_id(firing: dict[str, Any]) -> str | None:
    """The id of the triggering event; one that is too large to be copied is among those that contributed."""
    event, seq = firing.get("event"), firing.get("seq")
    if event:
        return str(event["id"])
    return next((ref[0] for ref in firing["refs"] if firing.get("by_seq") and ref[1] == seq), None)


_FIRINGS = ListKind(
    stream=ENGINE, subjects=_subjects, all_subjects=("engine.firing.>",), item=_item, from_row=_from_row
)
