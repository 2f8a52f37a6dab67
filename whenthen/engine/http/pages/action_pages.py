"""The pages of firings and of their actions. What fired, and how does what it asked for stand? What failed for good, and what becomes of it?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.request_models import Page
from whenthen.engine.http.pages.late_rows import tries_may_follow
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, following, given, if_there, whole_number
from whenthen.schemas.errors import NotFound, WhenthenError
from whenthen.sources import decode_json

__all__ = ["action_router"]

_LISTED = 50
_TRIED = 20  #: actions of a firing whose tries are shown
MOST_AT_ONCE = 1000  #: dead letters of one form
_AT_A_TIME = 16
_READ = 200  #: dead letters of one question
_OUTCOMES = ("waiting", "retrying", "executed", "dead", "dropped")


def action_router(api: Api, frame: PageFrame) -> APIRouter:
    """`/firings`, `/firing`, `/actions`, and the forms for dead letters."""
    router = frame.router()

    @router.get("/firings")
    async def firings_page(
        request: Request,
        automation: Choice = "",
        state: Choice = "",
        text: Choice = "",
        since: Choice = "",
        until: Choice = "",
        before: Choice = "",
    ) -> Response:
        asked = given(automation=automation, state=state, text=text, since=since, until=until)
        firings = await api.list_firings(Page(limit=_LISTED, before=before or None, filters=asked))
        dead = await if_there(api.count_dead(None))
        return frame.page(
            request,
            "activity/firings.html",
            firings=firings,
            next=following(firings),
            notes=list(getattr(firings, "notes", ())),
            dead=0 if dead is None else dead.count,
            asked={"automation": automation, "state": state, "text": text, "since": since, "until": until},
            filtered=bool(asked),
        )

    @router.get("/firing")
    async def firing_page(request: Request, id: Choice, done: Choice = "") -> Response:
        firing = await api.get_firing(id.strip())
        shown = firing.actions[:_TRIED]
        tries, rule = await asyncio.gather(
            asyncio.gather(*(if_there(api.action_tries(each.key)) for each in shown)), _rule(api, firing.automation)
        )
        return frame.page(
            request,
            "activity/firing.html",
            firing=firing,
            actions=[
                (action, _with_records(tried), _spec(rule, firing, action.key))
                for action, tried in zip(shown, tries, strict=True)
            ],
            more=firing.actions[_TRIED:],
            again=any(tries_may_follow(action, tried) for action, tried in zip(shown, tries, strict=True)),
            done=done,
        )

    @router.get("/actions")
    async def actions_page(
        request: Request,
        automation: Choice = "",
        type: Choice = "",
        outcome: Choice = "",
        before: Choice = "",
        done: Choice = "",
        seal: Choice = "",
    ) -> Response:
        asked = given(automation=automation, type=type, outcome=outcome)
        actions = await api.list_actions(Page(limit=_LISTED, before=before or None, filters=asked))
        dead = await if_there(api.count_dead(automation or None))
        return frame.page(
            request,
            "activity/actions.html",
            actions=actions,
            next=following(actions),
            notes=list(getattr(actions, "notes", ())),
            dead=None if dead is None else dead.count,
            outcomes=_OUTCOMES,
            asked={"automation": automation, "type": type, "outcome": outcome},
            filtered=bool(asked),
            done=frame.told(request, done, seal),
        )

    @router.get("/actions/dead")
    async def dead_page(request: Request, do: Choice, automation: Choice = "") -> Response:
        _check_choice(do)
        letters = await _letters(api, automation, 0)
        counts: dict[tuple[str, str, str], int] = {}
        for each in letters:
            kind = (each.automation, each.type or "", each.reason or each.error[:80])
            counts[kind] = counts.get(kind, 0) + 1
        dead = await if_there(api.count_dead(automation or None))
        return frame.page(
            request,
            "activity/dead.html",
            do=do,
            automation=automation,
            counts=sorted(counts.items(), key=lambda each: -each[1]),
            taken=len(letters),
            total=len(letters) if dead is None else dead.count,
            upto=max((each.seq for each in letters), default=0),
        )

    @router.post("/actions/dead")
    async def dead_form(request: Request) -> Response:
        form = await frame.form(request)
        do, automation, key = form.get("do", ""), form.get("automation", ""), form.get("key", "")
        _check_choice(do)

        async def one(each: str) -> object:
            return await (api.redrive_action(each, new_key=False) if do == "redrive" else api.drop_action(each))

        if key:
            await one(key)
            return frame.see("/firing", id=key.rpartition(".")[0], done=_DONE[do])
        letters = await _letters(api, automation, whole_number(form, "upto"))
        done, gone, refused = await _for_each([each.key for each in letters], one)
        said = f"{done:,} of {len(letters):,} were {_DONE[do]}"
        if gone:
            said += f"; {gone:,} were gone already"
        if refused:
            said += f"; refused: {refused[0]}" + (f", and {len(refused) - 1:,} others" if len(refused) > 1 else "")
        return frame.tell(request, "/actions", said, automation=automation, outcome="dead")

    return router


_DONE = {"redrive": "redriven", "drop": "dropped"}


def _with_records(tries: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tries with what was sent read; of a database of before there is none."""
    if tries is None:
        return None
    return [{**each, "sent": decode_json(each["sent"].encode()) if each.get("sent") else None} for each in tries]


def _check_choice(do: str) -> None:
    if do not in _DONE:
        raise HttpError(400, "invalid_request", "redrive or drop is expected", path=("do",))


async def _letters(api: Api, automation: str, upto: int) -> list[answers.ActionState]:
    """The newest dead letters, at most `MOST_AT_ONCE`; with `upto` none that came since."""
    found: list[answers.ActionState] = []
    before: str | None = str(upto + 1) if upto else None
    while len(found) < MOST_AT_ONCE:
        page = await api.list_actions(
            Page(
                limit=min(_READ, MOST_AT_ONCE - len(found)),
                before=before,
                filters={"outcome": "dead", **given(automation=automation)},
            )
        )
        found += page
        before = following(page)
        if before is None:
            break
    return found


async def _for_each(keys: list[str], act: Callable[[str], Awaitable[object]]) -> tuple[int, int, list[str]]:
    """How many were done, how many somebody else had dealt with, and why others were refused."""
    done = gone = 0
    refused: list[str] = []
    for start in range(0, len(keys), _AT_A_TIME):
        for result in await asyncio.gather(*map(act, keys[start : start + _AT_A_TIME]), return_exceptions=True):
            if isinstance(result, NotFound):
                gone += 1
            elif isinstance(result, WhenthenError):
                refused.append(str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                done += 1
    return done, gone, refused


async def _rule(api: Api, automation: str) -> answers.AutomationDetail | None:
    try:
        return await api.get_automation(automation)
    except NotFound:
        return None


def _spec(rule: answers.AutomationDetail | None, firing: answers.FiringDetail, key: str) -> dict[str, Any] | None:
    """What is asked for, as the rules have it today."""
    if rule is None:
        return None
    edge = {"Triggered": rule.actions_on_trigger, "Resolved": rule.actions_on_resolve}.get(firing.state.value, [])
    index = key.rpartition(".")[2]
    specs = [*rule.actions, *edge]
    if not index.isdecimal() or int(index) >= len(specs):
        return None
    return {
        name: value for name, value in specs[int(index)].items() if name == "retry" or value not in ({}, [], "", None)
    }
