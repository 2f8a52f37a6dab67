"""Firings: newest first, or one by its id."""

from __future__ import annotations

from typing import Any

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.http import Page
from whenthen.engine.http import answer_models as answers
from whenthen.schemas.trace_context import derived_trace, valid_trace

__all__ = ["FiringQueries", "find_firing"]


class FiringQueries:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list_firings(self, page: Page) -> list[answers.FiringSummary]:
        automation = page.filters.get("automation")
        subject = f"engine.firing.{short_token(automation)}.*" if automation else "engine.firing.>"
        return await newest(self._bus.client, ENGINE, subject, limit=page.limit, pick=_summary, before=page.position)


async def find_firing(client: RequestClient, firing_id: str) -> dict[str, Any] | None:
    """A firing as it is stored, by its whole id alone; None when it is not kept. Raises `BusUnavailable`."""
    found: list[dict[str, Any]] = []

    def receive(message: Delivery) -> None:
        if message.data:
            found.append(orjson.loads(message.data))

    request = {"seq": 1, "next_by_subj": f"engine.firing.*.{short_token(firing_id)}", "batch": 1}
    await client.read_stored(ENGINE, request, receive)
    return found[0] if found and found[0].get("id") == firing_id else None


def _summary(message: StoredMessage) -> answers.FiringSummary | None:
    if not message.data:
        return None
    firing: dict[str, Any] = orjson.loads(message.data)
    return answers.FiringSummary(
        id=firing["id"],
        automation=firing["automation"],
        state=firing["state"],
        fired=message.time,
        at=firing["at"],
        key=firing["key"],
        event=_event_id(firing),
        events=[ref[0] for ref in firing["refs"]],
        total=firing.get("total", len(firing["refs"])),
        trace=answers.Trace(**(valid_trace(firing.get("trace")) or derived_trace(firing["id"]))),
        seq=message.seq,
    )


def _event_id(firing: dict[str, Any]) -> str | None:
    """The id of the triggering event; one that is too large to be copied is among those that contributed."""
    event, seq = firing.get("event"), firing.get("seq")
    if event:
        return str(event["id"])
    return next((ref[0] for ref in firing["refs"] if firing.get("by_seq") and ref[1] == seq), None)
