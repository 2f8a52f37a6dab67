"""What the command line and other programs ask of a running server: lists, runs, pauses, redrives.

Called by `app`. Thin: each route reads its parameters, calls one method of the `Api`, and sends what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.answers import Answer
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.bodies import BodyBudget, trace_of
from whenthen.engine.http.long_queries import LongQueries
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models import why_models
from whenthen.engine.http.models.known_parameters import check_parameters
from whenthen.engine.http.models.list_parameters import After, Filter, Limit, Pairs, Since, Until, given
from whenthen.engine.http.models.request_models import (
    Page,
    PauseRequest,
    ResumeRequest,
    RunRequest,
    SuspendRequest,
    read_key,
    read_pause_request,
    read_resume_request,
    read_run_request,
    read_state_request,
    read_suspend_request,
)
from whenthen.engine.http.routed_paths import Named
from whenthen.engine.http.shared.route_tools import linked as _linked
from whenthen.engine.http.shared.route_tools import optional_body as _optional
from whenthen.schemas.errors import InvalidInput

__all__ = ["api_router", "as_response"]

Before = Annotated[str | None, Query(max_length=512, description="The `next` of the page before.")]
Moment = Annotated[str, Query(max_length=64, description="A time, or how long ago: `7d`.")]
IdPrefix = Annotated[str | None, Query(max_length=512, description="How the id begins.")]
Text = Annotated[str | None, Query(max_length=512, description="Anywhere, whatever its case.")]


class TarResponse(StreamingResponse):
    """A tar archive that is made while it is sent."""

    media_type = "application/x-tar"


class LinesResponse(StreamingResponse):
    """JSON, an object a line, that is read while it is sent."""

    media_type = "application/x-ndjson"


def api_router(api: Api, budget: BodyBudget, long_queries: LongQueries) -> APIRouter:
    """Routes below `/api`, but for `POST /api/events`."""
    router = APIRouter(prefix="/api", route_class=ScopedRoute, dependencies=[Depends(check_parameters)])
    # what was not given to a model does not apply, and is left out
    get = partial(router.get, response_model_exclude_unset=True)
    post = partial(router.post, response_model_exclude_unset=True)

    @get("/status", tags=["server"])
    async def status() -> answers.Status:
        """What runs, on which rules, and the problems of a set that was refused."""
        return await api.status()

    @router.get("/backup", tags=["server"], response_class=TarResponse)
    async def backup() -> StreamingResponse:
        """Everything that the embedded NATS server stores, as one file for `whenthen restore`. One without its end is not whole."""
        return TarResponse(await api.backup())

    @router.get("/log", tags=["events"], response_class=LinesResponse)
    async def stored_log(since: Filter = None, until: Filter = None) -> StreamingResponse:
        """Everything in the stream of events from a time (or how long ago: `7d`) on, in its order: the lines that `whenthen replay` reads."""
        return LinesResponse(await api.stored_log(since, until))

    @post("/rules/reload", tags=["server"])
    async def reload_rules(response: Response) -> answers.ReloadReport:
        """Read the rules again now. A set with problems is refused (400), and the last good one stays."""
        report = await api.reload_rules()
        response.status_code = 400 if report.problems else 200
        return report

    @get("/events", tags=["events"])
    async def list_events(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        event: Filter = None,
        source: Filter = None,
        resource: Filter = None,
        label: Pairs = None,
        related: Filter = None,
        automation: Filter = None,
        firing: Filter = None,
        id: IdPrefix = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[answers.StoredEvent]:
        """Stored events, newest first; `event`, `source` and `resource` may be globs, `automation` and `firing` are those whose
        action emitted it. Where there may be more, a `Link` leads to the next page."""
        page = _page(
            limit, before, event=event, source=source, resource=resource, related=related, automation=automation,
            firing=firing, id=id, since=since, until=until, text=text, labels=read_key(label or [], "label"),
        )  # fmt: skip
        return _linked(request, response, await api.list_events(page))

    @get("/events/{event_id:path}", tags=["events"])
    async def get_event(event_id: Named) -> answers.StoredEvent:
        """One stored event."""
        return await api.get_event(event_id)

    @get("/automations", tags=["automations"])
    async def list_automations(
        request: Request, response: Response, after: After = None
    ) -> list[answers.AutomationSummary]:
        """All automations with their state. An answer that was cut for its size has a `Link` to the next one."""
        return _linked(request, response, await api.list_automations(after))

    @get("/automations/{name}", tags=["automations"])
    async def get_automation(name: Named) -> answers.AutomationDetail:
        """One automation, its rule and its state."""
        return await api.get_automation(name)

    @get("/automations/{name}/decisions", tags=["automations"])
    async def list_decisions(
        request: Request,
        response: Response,
        name: Named,
        limit: Limit = 50,
        before: Before = None,
        reason: Filter = None,
        event: Filter = None,
        firing: Filter = None,
        key: Filter = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[answers.DecisionItem]:
        """Why it fired, and why it did not, newest first. Where there are more, a `Link` leads to the next page."""
        page = _page(
            limit, before, reason=reason, event=event, firing=firing, key=key, since=since, until=until, text=text
        )
        return _linked(request, response, await api.list_decisions(name, page))

    @get("/automations/{name}/windows", tags=["automations"])
    async def list_windows(
        request: Request,
        response: Response,
        name: Named,
        limit: Limit = 50,
        before: Before = None,
        key: Pairs = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[why_models.AutomationWindow]:
        """What it remembers, a window for each key: what it holds and when it ends, the last changed first. Where there may be more,
        a `Link` leads to the next page."""
        page = _page(limit, before, since=since, until=until, text=text, key=read_key(key or []))
        return _linked(request, response, await api.list_windows(name, page))

    @post("/automations/{name}/pause", tags=["automations"])
    async def pause_automation(name: Named, request: Request) -> answers.AutomationState:
        """Stop it from firing. The body, if any, is `{"for": "2h", "reason": "...", "by": "..."}`: without `for`, until it is resumed."""
        return await api.pause_automation(name, await _optional(request, budget, read_pause_request, PauseRequest))

    @post("/automations/{name}/resume", tags=["automations"])
    async def resume_automation(name: Named) -> answers.AutomationState:
        """Let it fire again."""
        return await api.resume_automation(name)

    @get("/orphans", tags=["automations"])
    async def list_orphans() -> list[answers.Orphan]:
        """Windows that are kept of automations that are not in the rules."""
        return await api.list_orphans()

    @post("/orphans/{name}/forget", tags=["automations"])
    async def forget_orphans(name: Named) -> list[answers.Orphan]:
        """Forget such windows, by the automation's name or the trigger's id."""
        return await api.forget_orphans(name)

    @get("/firings", tags=["automations"])
    async def list_firings(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        automation: Filter = None,
        state: Filter = None,
        event: Filter = None,
        key: Pairs = None,
        id: IdPrefix = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[answers.FiringSummary]:
        """Firings, newest first. Where there may be more, a `Link` leads to the next page."""
        page = _page(
            limit, before, automation=automation, state=state, event=event, id=id, since=since, until=until, text=text,
            key=read_key(key or []),
        )  # fmt: skip
        return _linked(request, response, await api.list_firings(page))

    @get("/firings/{firing_id}", tags=["automations"])
    async def get_firing(firing_id: Named) -> answers.FiringDetail:
        """One firing and how its actions stand."""
        return await api.get_firing(firing_id)

    @get("/deployments", tags=["deployments"])
    async def list_deployments(
        request: Request, response: Response, after: After = None
    ) -> list[answers.DeploymentSummary]:
        """All deployments with their schedules. An answer that was cut for its size has a `Link` to the next one."""
        return _linked(request, response, await api.list_deployments(after))

    @get("/deployments/{name}", tags=["deployments"])
    async def get_deployment(name: Named) -> answers.DeploymentDetail:
        """One deployment."""
        return await api.get_deployment(name)

    @post("/deployments/{name}/run", status_code=201, tags=["deployments"])
    async def run_deployment(name: Named, request: Request) -> answers.FlowRunDetail:
        """Start a run. The body, if any, is `{"parameters": {...}, "key": "...", "delay": seconds}`."""
        return await api.run_deployment(
            name, await _optional(request, budget, read_run_request, RunRequest), trace_of(request.scope)
        )

    @post("/deployments/{name}/pause", tags=["deployments"])
    async def pause_deployment(name: Named, schedule: Filter = None) -> answers.DeploymentDetail:
        """Pause its schedules, or the named one."""
        return await api.pause_deployment(name, schedule)

    @post("/deployments/{name}/resume", tags=["deployments"])
    async def resume_deployment(name: Named, schedule: Filter = None) -> answers.DeploymentDetail:
        """Resume its schedules, or the named one."""
        return await api.resume_deployment(name, schedule)

    @get("/deployments/{name}/backfill", tags=["deployments"])
    async def plan_backfill(
        name: Named, since: Moment, until: Moment, schedule: Filter = None
    ) -> answers.BackfillState:
        """Which runs a backfill of a schedule would start, for its times from `since` to before `until`. Changes nothing."""
        return await api.plan_backfill(name, schedule, since, until)

    @post("/deployments/{name}/backfill", tags=["deployments"])
    async def start_backfill(
        name: Named,
        since: Moment,
        until: Moment,
        schedule: Filter = None,
        expected: Annotated[
            int | None, Query(ge=0, description="Refused when it is of another number of runs.")
        ] = None,
    ) -> answers.BackfillState:
        """Start a run for each time of a schedule from `since` to before `until`, at most 1,000. A time that had its run gets no other."""
        return await api.start_backfill(name, schedule, since, until, expected)

    @get("/work-pools", tags=["work pools"])
    async def list_work_pools(request: Request, response: Response, after: After = None) -> list[answers.WorkPoolState]:
        """All work pools, with who works there. An answer that was cut for its size has a `Link` to the next one."""
        return _linked(request, response, await api.list_work_pools(after))

    @post("/work-pools/{name}/pause", tags=["work pools"])
    async def pause_work_pool(name: Named) -> answers.WorkPoolState:
        """Start no more of its runs; those that are active go on."""
        return await api.pause_work_pool(name)

    @post("/work-pools/{name}/resume", tags=["work pools"])
    async def resume_work_pool(name: Named) -> answers.WorkPoolState:
        """Start the runs that wait in it."""
        return await api.resume_work_pool(name)

    @get("/workers", tags=["work pools"])
    async def list_workers(request: Request, response: Response, after: After = None) -> list[answers.WorkerState]:
        """All workers that are at work. An answer that was cut for its size has a `Link` to the next one."""
        return _linked(request, response, await api.list_workers(after))

    @get("/runs", tags=["runs"])
    async def list_runs(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        deployment: Filter = None,
        state: Filter = None,
        work_pool: Filter = None,
        automation: Filter = None,
        firing: Filter = None,
        id: IdPrefix = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[answers.FlowRunDetail]:
        """Flow runs, newest first. Where there are more, a `Link` leads to the next page."""
        page = _page(
            limit, before, deployment=deployment, state=state, work_pool=work_pool, automation=automation, firing=firing,
            id=id, since=since, until=until, text=text,
        )  # fmt: skip
        return _linked(request, response, await api.list_runs(page))

    @get("/runs/{run_id}", tags=["runs"])
    async def get_run(run_id: Named) -> answers.FlowRunDetail:
        """One flow run."""
        return await api.get_run(run_id)

    @get("/runs/{run_id}/logs", tags=["runs"])
    async def run_logs(
        run_id: Named,
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        tail: Annotated[int | None, Query(ge=1, le=10_000, description="Only so many of the last lines.")] = None,
    ) -> answers.LogPage:
        """What the run wrote, from the place `after` on, which the page before has as `next`; with `tail` its last lines."""
        if tail is None:
            return await api.run_logs(run_id, after=after, limit=limit)
        if after:
            raise InvalidInput("`tail` begins at the end, and `after` at a place; give one of them", path=("tail",))
        return await api.run_log_end(run_id, limit=tail)

    @get("/runs/{run_id}/task-runs", tags=["runs"])
    async def list_task_runs(
        run_id: Named,
        after: Annotated[int, Query(ge=0, le=2**53, description="How many to pass over.")] = 0,
        limit: Limit = 100,
    ) -> answers.TaskRunList:
        """The runs of tasks and flows within the run, in the order in which they were first heard of."""
        return await api.list_task_runs(run_id, after=after, limit=limit)

    @post("/runs/{run_id}/cancel", tags=["runs"])
    async def cancel_run(run_id: Named) -> answers.FlowRunDetail:
        """Ask the run to end."""
        return await api.cancel_run(run_id)

    @post("/runs/{run_id}/retry", status_code=201, tags=["runs"])
    async def retry_run(run_id: Named) -> answers.FlowRunDetail:
        """Start a new run like one that has ended, once: asked for again, the answer is the same run."""
        return await api.retry_run(run_id)

    @post("/runs/{run_id}/resume", tags=["runs"])
    async def resume_run(run_id: Named, request: Request) -> answers.FlowRunDetail:
        """Let a run go on that is paused or suspended. The body, if any, is `{"input": ..., "since": "..."}`: input of the type that its `pause`
        names, and when that began, so that no other pause is answered."""
        asked = await _optional(request, budget, read_resume_request, ResumeRequest)
        return await api.resume_run(run_id, asked.input, asked.since)

    @post("/runs/{run_id}/pause", tags=["runs"])
    async def pause_run(run_id: Named) -> answers.FlowRunDetail:
        """Let a run of a flow wait where it next begins a task, until somebody resumes it; its process stays."""
        return await api.pause_run(run_id)

    @post("/runs/{run_id}/suspend", tags=["runs"])
    async def suspend_run(run_id: Named, request: Request) -> answers.FlowRunDetail:
        """Halt a run until somebody resumes it; its process is stopped. The body, if any, is `{"for": "2h"}`, after which it fails."""
        asked = await _optional(request, budget, read_suspend_request, SuspendRequest)
        return await api.suspend_run(run_id, asked.lasts)

    @post("/runs/{run_id}/state", tags=["runs"])
    async def change_run_state(run_id: Named, request: Request) -> answers.FlowRunDetail:
        """Put a run into a state. The body is `{"state": "Failed", "message": "..."}`."""
        asked = await _optional(request, budget, read_state_request, partial(read_state_request, {}))
        return await api.change_run_state(run_id, asked.state, asked.message)

    @post("/runs/{run_id}/delete", tags=["runs"])
    async def delete_run(run_id: Named) -> answers.FlowRunDetail:
        """Forget a run that has ended, with its log and its task runs; the answer is what it was."""
        return await api.delete_run(run_id)

    @get("/actions", tags=["actions"])
    async def list_actions(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        automation: Filter = None,
        type: Filter = None,
        outcome: Filter = None,
        firing: Filter = None,
        id: IdPrefix = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[answers.ActionState]:
        """Actions and what became of them, the last changed first; `outcome=dead` lists dead letters. Where there may be more, a
        `Link` leads to the next page."""
        page = _page(
            limit, before, automation=automation, type=type, outcome=outcome, firing=firing, id=id, since=since,
            until=until, text=text,
        )  # fmt: skip
        return _linked(request, response, await api.list_actions(page))

    @get("/actions/{key}", tags=["actions"])
    async def get_action(key: Named) -> answers.ActionState:
        """One action and how it stands."""
        return await api.get_action(key)

    @get("/actions/dead/count", tags=["actions"])
    async def count_dead(automation: Filter = None) -> answers.DeadLetterCount:
        """How many dead letters there are."""
        return await api.count_dead(automation)

    @post("/actions/{key}/redrive", tags=["actions"])
    async def redrive_action(key: Named, new_key: bool = False) -> answers.Redriven:
        """Give an action that used up its attempts new ones, by the rule of today. It keeps its idempotency key unless `new_key`."""
        return await api.redrive_action(key, new_key=new_key)

    @post("/actions/{key}/drop", tags=["actions"])
    async def drop_action(key: Named) -> answers.Redriven:
        """Give up an action that used up its attempts."""
        return await api.drop_action(key)

    @get("/record", tags=["automations"])
    async def record(
        firing: Filter = None, automation: Filter = None, event: Filter = None
    ) -> why_models.RecordedTestItem:
        """A test of rules made of what led to a firing, or of why an automation did not fire for an event."""
        async with long_queries.turn():
            return await api.record(firing=firing, automation=automation, event=event)

    @get("/trace/{wanted:path}", tags=["server"])
    async def trace(wanted: Named) -> why_models.TraceReport:
        """What led to what, from an id of an event, a firing, an action, a run or a trace: back to the first cause, and forward."""
        async with long_queries.turn():
            return await api.trace(wanted)

    @get("/audit", tags=["server"])
    async def list_audit(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        kind: Filter = None,
        who: Filter = None,
        what: Filter = None,
        since: Since = None,
        until: Until = None,
        text: Text = None,
    ) -> list[why_models.AuditItem]:
        """Who did what, and what was refused, newest first."""
        page = _page(limit, before, kind=kind, who=who, what=what, since=since, until=until, text=text)
        return _linked(request, response, await api.list_audit(page))

    @get("/why", tags=["automations"])
    async def why(
        automation: Annotated[str, Query(min_length=1, max_length=512)],
        event: Filter = None,
        key: Annotated[
            list[str] | None, Query(max_length=64, description="`name=value`; several times for several.")
        ] = None,
        at: Filter = None,
    ) -> why_models.WhyReport:
        """Why an automation fired for an event (`event`), or for a key (`key`) at a moment (`at`), or did not: from the record, and
        from the events that are kept."""
        asked = read_key(key or [])
        async with long_queries.turn():
            return await api.why(automation, event=event, key=asked, at=at)

    return router


def _page(
    limit: int,
    before: str | None,
    *,
    labels: Mapping[str, str] | None = None,
    key: Mapping[str, str] | str | None = None,
    **filters: str | None,
) -> Page:
    if isinstance(key, str):
        filters["key"], key = key, None
    return Page(
        limit=limit,
        before=before,
        filters=given(**filters),
        labels=labels or {},
        key=key or {},
    )


def as_response(answer: Answer) -> Response:
    """An `Answer` as a Starlette response."""
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in answer.headers}
    return Response(answer.body, answer.status, headers=headers)
