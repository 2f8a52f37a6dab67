"""The pages of flow runs. What ran when, and how did it end? What did this run do, for what does it wait, and can it be ended or done again?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response

from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models.request_models import Page, read_run_request
from whenthen.engine.http.pages.late_rows import states_may_follow
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import Choice, following, given, if_there
from whenthen.schemas.deployments import TERMINAL, RunState
from whenthen.schemas.errors import InvalidInput, NotFound
from whenthen.sources import decode_json
from whenthen.ui import input_of_form, input_questions, run_timeline, shown_artifacts, task_bars

__all__ = ["run_router"]

_LISTED = 100
_LINES = 300  #: of a log
_TASKS = 200
_ARTIFACTS = 50
LogPlace = Annotated[int, Query(ge=0, le=2**53)]


def run_router(api: Api, frame: PageFrame) -> APIRouter:
    """`/runs`, `/run` and its forms."""
    router = frame.router()

    @router.get("/runs")
    async def runs_page(
        request: Request,
        deployment: Choice = "",
        state: Choice = "",
        work_pool: Choice = "",
        text: Choice = "",
        since: Choice = "",
        until: Choice = "",
        before: Choice = "",
    ) -> Response:
        asked = given(
            deployment=deployment, state=state, work_pool=work_pool, text=text, since=since, until=until
        )  # fmt: skip
        runs = await api.list_runs(Page(limit=_LISTED, before=before or None, filters=asked))
        deployments = await api.list_deployments(None)
        now = datetime.now(UTC)
        return frame.page(
            request,
            "activity/runs.html",
            runs=runs,
            timeline=run_timeline(runs, now=now),
            next=following(runs),
            notes=list(getattr(runs, "notes", ())),
            deployments=[each.name for each in deployments[:500]],
            states=[each.value for each in RunState],
            asked={
                "deployment": deployment, "state": state, "work_pool": work_pool, "text": text, "since": since, "until": until,
            },
            filtered=bool(asked),
            now=now,
        )  # fmt: skip

    @router.get("/run")
    async def run_page(request: Request, id: Choice, after: LogPlace = 0, done: Choice = "") -> Response:
        run = await api.get_run(id.strip())
        log = api.run_logs(run.id, after=after, limit=_LINES) if after else api.run_log_end(run.id, limit=_LINES)
        lines, tasks, states, deployment, artifacts = await asyncio.gather(
            log,
            api.list_task_runs(run.id, after=0, limit=_TASKS),
            if_there(api.run_states(run.id)),
            _deployment(api, run.deployment),
            if_there(api.list_artifacts(Page(limit=_ARTIFACTS, filters={"run": run.id}))),
        )
        now = datetime.now(UTC)
        bars = task_bars(tasks.task_runs, begins=run.started, ends=run.ended, now=now)
        return frame.page(
            request,
            "activity/run.html",
            run=run,
            log=lines,
            after=after,
            tasks=list(zip(tasks.task_runs, bars, strict=True)),
            total=tasks.total,
            artifacts=shown_artifacts(artifacts or []),
            more_artifacts=len(artifacts or []) == _ARTIFACTS,
            states=states,
            again=states_may_follow(run, states),
            deployment=deployment,
            ended=run.state in TERMINAL,
            questions=[] if run.pause is None else input_questions(run.pause.input_schema),
            key=f"page/{uuid4()}",
            done=done,
            now=now,
        )

    @router.post("/run/cancel")
    async def cancel_form(request: Request) -> Response:
        run = await api.cancel_run((await frame.form(request)).get("id", ""))
        return frame.see("/run", id=run.id, done="cancelled")

    @router.post("/run/suspend")
    async def suspend_form(request: Request) -> Response:
        run = await api.suspend_run((await frame.form(request)).get("id", ""), None)
        return frame.see("/run", id=run.id, done="suspended")

    @router.post("/run/resume")
    async def resume_form(request: Request) -> Response:
        form = await frame.form(request)
        run = await api.get_run(form.get("id", ""))
        schema = None if run.pause is None else run.pause.input_schema
        run = await api.resume_run(run.id, input_of_form(schema, form), form.get("since"))
        return frame.see("/run", id=run.id, done="resumed")

    @router.post("/run/delete")
    async def delete_form(request: Request) -> Response:
        run = await api.delete_run((await frame.form(request)).get("id", ""))
        return frame.see("/runs", deployment=run.deployment)

    @router.post("/run/again")
    async def again_form(request: Request) -> Response:
        form = await frame.form(request)
        asked = read_run_request(
            {"parameters": _parameters(form.get("parameters", "")), "key": form.get("key") or None}
        )
        run = await api.run_deployment(form.get("deployment", ""), asked, None)
        return frame.see("/run", id=run.id, done="started")

    return router


async def _deployment(api: Api, name: str) -> Any:
    try:
        return await api.get_deployment(name)
    except NotFound:
        return None


def _parameters(text: str) -> Any:
    try:
        return decode_json(text.encode() or b"{}")
    except InvalidInput as error:
        raise HttpError(400, "invalid_request", f"the parameters are no JSON: {error}", path=("parameters",)) from None
