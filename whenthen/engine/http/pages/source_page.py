"""The page Sources: who sends events, when was each heard last, and what was refused, and why?"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models.request_models import Page
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, given
from whenthen.ui import refusals_by_cause

__all__ = ["source_router"]

_REFUSALS = 1000  #: the newest ones, which are counted by cause
_LISTED = 50  #: webhooks of which it is looked up when they were heard last
_SINCE = "7d"
_AT_A_TIME = 8


def source_router(api: Api, frame: PageFrame) -> APIRouter:
    """The route `/sources`."""
    router = frame.router()

    @router.get("/sources")
    async def sources_page(request: Request, text: Choice = "", what: Choice = "") -> Response:
        webhooks = [each for each in await api.list_webhooks() if text.strip().casefold() in each.name.casefold()]
        shown = webhooks[:_LISTED]
        gate = asyncio.Semaphore(_AT_A_TIME)

        async def last_heard(name: str) -> str | None:
            async with gate:
                found = await api.list_events(Page(limit=1, filters={"source": f"webhook:{name}", "since": _SINCE}))
            return found[0].received if found else None

        filters = {"since": _SINCE, **given(what=what)}
        requests, messages, heard, found = await asyncio.gather(
            api.list_audit(Page(limit=_REFUSALS, filters={"kind": "request-refused", **filters})),
            api.list_audit(Page(limit=_REFUSALS, filters={"kind": "message-refused", **filters})),
            asyncio.gather(*(last_heard(each.name) for each in shown)),
            api.list_sources(),
        )
        refused = sorted([*requests, *messages], key=lambda note: note.at, reverse=True)
        return frame.page(
            request,
            "sources.html",
            webhooks=list(zip(shown, heard, strict=True)),
            more=len(webhooks) - len(shown),
            refused=refusals_by_cause(refused),
            cut=_REFUSALS in (len(requests), len(messages)),
            sources=[each for each in found if each.kind != "webhook"],
            since=_SINCE,
            text=text,
            what=what,
            origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    return router
