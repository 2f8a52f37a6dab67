"""The pages of automations. Which are there, and which need somebody? Is this one healthy, why does it fire or not, and what does it
remember?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.request_models import Page, PauseRequest, read_pause_request
from whenthen.engine.http.pages.late_rows import counts_may_follow
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, PageNumber, if_there
from whenthen.schemas.times import parse_duration, parse_time
from whenthen.ui import count_rows

__all__ = ["automation_router"]

_LISTED = 100  #: automations of one page
_FIRINGS = 10
_WINDOWS = 20
_DECISIONS = 15


def automation_router(api: Api, frame: PageFrame) -> APIRouter:
    """`/automations`, `/automation` and its forms. The name stands in a parameter, see `ui.page_links`."""
    router = frame.router()

    @router.get("/automations")
    async def automations_page(
        request: Request, text: Choice = "", state: Choice = "", tag: Choice = "", page: PageNumber = 1
    ) -> Response:
        found = await api.find_automations(text=text, state=state, tag=tag, skip=(page - 1) * _LISTED, limit=_LISTED)
        return frame.page(
            request, "automations.html", found=found, text=text, state=state, tag=tag, number=page, size=_LISTED
        )

    @router.get("/automation")
    async def automation_page(
        request: Request,
        name: Choice,
        reason: Choice = "",
        before: Choice = "",
        windows_before: Choice = "",
        done: Choice = "",
    ) -> Response:
        detail = await api.get_automation(name)
        asked = {"reason": reason} if reason else {}
        status, decisions, windows, firings, counts, dead = await asyncio.gather(
            api.status(),
            api.list_decisions(name, Page(limit=_DECISIONS, before=before or None, filters=asked)),
            if_there(api.list_windows(name, Page(limit=_WINDOWS, before=windows_before or None))),
            if_there(api.list_firings(Page(limit=_FIRINGS, filters={"automation": name}))),
            if_there(
                api.history_counts(
                    "decisions", equal={"automation": name}, by="reason", since="24h", until=None, step="hour"
                )
            ),
            if_there(api.count_dead(name)),
        )
        rows, now = None, datetime.now(UTC)
        if counts is not None:
            rows = count_rows(((each.at, each.value, each.count) for each in counts), now=now)
        passed_over = sum(row.total for row in rows or () if row.value == "paused")
        return frame.page(
            request,
            "automation.html",
            automation=detail,
            aside=status.set_aside.get(name, ""),
            silent=_silent(detail, status, now),
            rows=rows,
            again=counts_may_follow(counts, decisions[0].at if decisions else None),
            passed_over=passed_over,
            decisions=decisions,
            next=(getattr(decisions, "following", None) or {}).get("before"),
            windows=windows,
            next_windows=(getattr(windows, "following", None) or {}).get("before"),
            firings=firings,
            source=await api.rule_source(name),
            dead=dead,
            reason=reason,
            done=done,
            now=now,
        )

    @router.post("/automation/pause")
    async def pause_form(request: Request) -> Response:
        form = await frame.form(request)
        entry = frame.place(request)
        given = {"for": form["for"].strip()} if form.get("for", "").strip() else {}
        pause: PauseRequest = read_pause_request(
            {**given, "reason": form.get("reason", ""), "by": entry.who or "a browser"}
        )
        name = form.get("name", "")
        await api.pause_automation(name, pause)
        return frame.see("/automation", name=name, done="paused")

    @router.post("/automation/resume")
    async def resume_form(request: Request) -> Response:
        name = (await frame.form(request)).get("name", "")
        await api.resume_automation(name)
        return frame.see("/automation", name=name, done="resumed")

    return router


def _silent(detail: answers.AutomationDetail, status: answers.Status, now: datetime) -> timedelta | None:
    """For how long it has not fired, where that is longer than its rule expects; of one that never fired, for how long this process has been up."""
    if not detail.expected_every or detail.state != "active":
        return None
    silent = timedelta(seconds=status.up_seconds) if detail.last_fired is None else now - parse_time(detail.last_fired)
    return silent if silent > parse_duration(detail.expected_every) else None
