"""The pages Why and Trace. Why did it fire for this event, or not? What led to this, and what followed from it?"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.long_queries import LongQueries
from whenthen.engine.http.models.request_models import Page, read_key
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, if_kept, if_there
from whenthen.ui import trace_rows

__all__ = ["why_router"]

_CHOICES = 30  #: decisions and events to choose from
_SUGGESTED = 100  #: automations that the form suggests
_ASKED = ("automation", "event", "at", "key")


def why_router(api: Api, frame: PageFrame, long_queries: LongQueries) -> APIRouter:
    """`/why` and `/trace`."""
    router = frame.router()

    @router.get("/why")
    async def why_page(
        request: Request, automation: Choice = "", event: Choice = "", at: Choice = "", key: Choice = ""
    ) -> Response:
        automation, event, at, key = automation.strip(), event.strip(), at.strip(), key.strip()
        report = about = None
        decided = []
        events = []
        if automation and (event or at):
            pairs = read_key([pair.strip() for pair in key.split(",")]) if key else None
            async with long_queries.turn():
                report = await api.why(
                    automation, event=event or None, key=None if event else pairs, at=None if event else at
                )
            if report.event:
                about = await if_kept(api.get_event(report.event))
        elif event:
            about = await api.get_event(event)
            page = await if_there(
                api.history_page(
                    "decisions", equal={"event": about.id}, labels={}, since=None, until=None,
                    more={"id_prefix": "", "related": "", "text": "", "before": "", "limit": _CHOICES},
                )
            )  # fmt: skip
            decided = [] if page is None else page.items
        elif automation:
            decided = [
                {**each.model_dump(), "automation": automation, "decided": each.at}
                for each in await api.list_decisions(automation, Page(limit=_CHOICES))
            ]
        else:
            events = await api.list_events(Page(limit=10))
        return frame.page(
            request,
            "why.html",
            report=report,
            about=about,
            decided=decided,
            events=events,
            names=await api.automation_names(_SUGGESTED),
            asked={"automation": automation, "event": event, "at": at, "key": key},
        )

    @router.get("/trace")
    async def trace_page(request: Request, id: Choice = "") -> Response:
        wanted = id.strip()
        report, rows = None, []
        if wanted:
            async with long_queries.turn():
                report = await api.trace(wanted)
            rows = trace_rows(report.items, [(link.source, link.target) for link in report.links], asked=report.id)
        events = [] if wanted else await api.list_events(Page(limit=10))
        return frame.page(request, "trace.html", report=report, rows=rows, events=events, wanted=wanted)

    return router
