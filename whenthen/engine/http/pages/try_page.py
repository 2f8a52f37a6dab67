"""The page "Try a rule": what would these rules do for these events? With a virtual clock; nothing is touched."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models.page_answers import TriedRules
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice
from whenthen.ui import rule_texts

__all__ = ["try_router"]


def try_router(api: Api, frame: PageFrame) -> APIRouter:
    """The route `/try`: a form, filled with a rule in force (`automation`) or one made of an event (`event`), and what comes of it."""
    router = frame.router()

    @router.get("/try")
    async def try_page(request: Request, automation: Choice = "", event: Choice = "") -> Response:
        rules, steps = ("", "") if automation or event else (rule_texts.EXAMPLE_RULE, rule_texts.EXAMPLE_STEPS)
        if automation:
            source = await api.rule_source(automation)
            rules = "" if source is None else source.text
        if event:
            about = (await api.get_event(event)).model_dump(mode="json", exclude_unset=True)
            steps = rule_texts.steps_of_event(about)
            rules = rules or rule_texts.rule_of_event(about)
        return shown(request, rules, steps, False, None)

    @router.post("/try")
    async def tried_page(request: Request) -> Response:
        form = await frame.form(request)
        # browsers send lines of a form with CR LF
        rules, steps = (form.get(name, "").replace("\r\n", "\n") for name in ("rules", "events"))
        follow = bool(form.get("follow"))
        return shown(request, rules, steps, follow, await api.try_rules(rules, steps, follow=follow))

    def shown(request: Request, rules: str, steps: str, follow: bool, found: TriedRules | None) -> Response:
        return frame.page(request, "try.html", rules=rules, steps=steps, follow=follow, found=found)

    return router
