"""The pages of events. What comes in, and what did the rules make of it? What is this one, and who decided what about it?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.long_queries import LongQueries
from whenthen.engine.http.models.request_models import Page
from whenthen.engine.http.pages.late_rows import counts_may_follow
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, following, given, if_there
from whenthen.ui import rule_texts

__all__ = ["event_router"]

_LISTED = 50
_DECISIONS = 200
_FIRINGS = 20


def event_router(api: Api, frame: PageFrame, long_queries: LongQueries) -> APIRouter:
    """`/events`, `/event`, and `/recorded`, which makes a test of what happened."""
    router = frame.router()

    @router.get("/events")
    async def events_page(
        request: Request,
        name: Choice = "",
        source: Choice = "",
        resource: Choice = "",
        text: Choice = "",
        since: Choice = "",
        until: Choice = "",
        before: Choice = "",
    ) -> Response:
        asked = given(event=name, source=source, resource=resource, text=text, since=since, until=until)
        events = await api.list_events(Page(limit=_LISTED, before=before or None, filters=asked))
        reasons = await if_there(api.event_reasons([each.id for each in events]))
        return frame.page(
            request,
            "activity/events.html",
            events=events,
            reasons=reasons,
            again=bool(events) and counts_may_follow(reasons, events[0].received or events[0].occurred),
            next=following(events),
            notes=list(getattr(events, "notes", ())),
            asked={"name": name, "source": source, "resource": resource, "text": text, "since": since, "until": until},
            filtered=bool(asked),
        )

    @router.get("/event")
    async def event_page(request: Request, id: Choice) -> Response:
        event = await api.get_event(id.strip())
        more = {"id_prefix": "", "related": "", "text": "", "before": ""}
        reasons, decisions, firings = await asyncio.gather(
            if_there(api.event_reasons([event.id])),
            if_there(
                api.history_page(
                    "decisions", equal={"event": event.id}, labels={}, since=None, until=None,
                    more={**more, "limit": _DECISIONS},
                )
            ),
            if_there(
                api.history_page(
                    "firings", equal={"event": event.id}, labels={}, since=None, until=None, more={**more, "limit": _FIRINGS}
                )
            ),
        )  # fmt: skip
        return frame.page(
            request,
            "activity/event.html",
            event=event,
            payload=event.payload,
            reasons=None if reasons is None else reasons.get(event.id, {}),
            decisions=None if decisions is None else decisions.items,
            again=counts_may_follow(decisions, event.received or event.occurred),
            more=decisions is not None and decisions.next is not None,
            firings=[] if firings is None else firings.items,
            rest=_rest(event.model_dump(mode="json", exclude_unset=True)),
        )

    @router.get("/recorded")
    async def recorded_page(
        request: Request, firing: Choice = "", automation: Choice = "", event: Choice = ""
    ) -> Response:
        async with long_queries.turn():
            found = await api.record(firing=firing or None, automation=automation or None, event=event or None)
        return frame.page(
            request,
            "activity/recorded.html",
            recorded=found,
            text=rule_texts.yaml_text({"tests": [found.test]}),
            firing=firing,
            automation=automation,
            event=event,
        )

    return router


def _rest(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "payload" and value not in (None, [], {}, "")}
