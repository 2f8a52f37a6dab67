"""The page Sources: who sends events, when was each heard last, what was refused, and why? What of it can be sent again?"""

from __future__ import annotations

import asyncio
from collections import Counter

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.request_models import Page
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, given, if_there, whole_number
from whenthen.ui import refusals_by_cause

__all__ = ["source_router"]

_REFUSALS = 1000  #: the newest ones, which are counted by cause
_LISTED = 50  #: webhooks, and kept requests, that are shown
_SINCE, _DAYS = "7d", "seven days"
MOST_AT_ONCE = 1000  #: requests of one form


def source_router(api: Api, frame: PageFrame) -> APIRouter:
    """`/sources`, and the forms that send refused requests again."""
    router = frame.router()

    @router.get("/sources")
    async def sources_page(
        request: Request, text: Choice = "", what: Choice = "", done: Choice = "", seal: Choice = ""
    ) -> Response:
        wanted = text.strip().casefold()
        webhooks = [each for each in await api.list_webhooks() if wanted in each.name.casefold()]
        filters = {"since": _SINCE, **given(what=what)}
        requests, messages, sources, kept = await asyncio.gather(
            api.list_audit(Page(limit=_REFUSALS, filters={"kind": "request-refused", **filters})),
            api.list_audit(Page(limit=_REFUSALS, filters={"kind": "message-refused", **filters})),
            if_there(api.list_sources()),
            if_there(api.list_refused(None, MOST_AT_ONCE, None)),
        )
        refused = sorted([*requests, *messages], key=lambda note: note.at, reverse=True)
        heard = {each.name: each for each in sources or () if each.kind == "webhook"}
        return frame.page(
            request,
            "sources.html",
            webhooks=[(each, heard.get(each.name)) for each in webhooks[:_LISTED]],
            more=len(webhooks) - _LISTED,
            sources=[each for each in sources or () if each.kind != "webhook" and wanted in each.name.casefold()][
                :_LISTED
            ],
            refused=refusals_by_cause(refused),
            cut=_REFUSALS in (len(requests), len(messages)),
            kept=None if kept is None else kept[:_LISTED],
            kept_by=Counter(each.source for each in kept or ()).most_common(_LISTED),
            days=_DAYS,
            text=text,
            what=what,
            done=frame.told(request, done, seal),
            origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    @router.get("/sources/resend")
    async def resend_page(request: Request, source: Choice = "") -> Response:
        kept = await api.list_refused(source or None, MOST_AT_ONCE, None)
        counts = Counter((each.source, each.field, each.whole) for each in kept)
        return frame.page(
            request,
            "activity/resend.html",
            source=source,
            counts=counts.most_common(),
            taken=len(kept),
            full=len(kept) == MOST_AT_ONCE,
            upto=max((each.seq for each in kept), default=0),
        )

    @router.post("/sources/resend")
    async def resend_form(request: Request) -> Response:
        form = await frame.form(request)
        before = None if form.get("id") else whole_number(form, "upto") + 1
        report = await api.resend(form.get("source") or None, form.get("id") or None, before)
        return frame.tell(request, "/sources", _told(report))

    return router


def _told(report: answers.ResendReport) -> str:
    asked = report.sent + len(report.refused)
    said = f"{report.sent:,} of {asked:,} were taken"
    if report.events:
        said += f", and became {len(report.events):,} event{'s' if len(report.events) > 1 else ''}"
    if report.refused:
        first, others = report.refused[0], len(report.refused) - 1
        said += f"; refused again: {first.source}: {first.detail}" + (f", and {others:,} others" if others else "")
    return said
