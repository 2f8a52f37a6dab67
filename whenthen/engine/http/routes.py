"""What the command line and other programs ask of a running server: lists, runs, pauses, redrives.

Called by `app`. Thin: each route reads its parameters, calls one method of the `Api`, and sends what it gives.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from whenthen.engine.http.answers import Answer, HttpError, json_answer
from whenthen.engine.http.api_port import Api, Page
from whenthen.engine.http.bodies import content_type, header, read_body
from whenthen.sources import decode_json

__all__ = ["api_router", "as_response", "state_router"]

BODY_LIMIT = 1_000_000  #: of a request that starts a run, in bytes

Named = Annotated[str, Path(min_length=1, max_length=512)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Before = Annotated[str | None, Query(max_length=512, description="The `next` of the page before.")]
Filter = Annotated[str | None, Query(max_length=4096)]


class Json(Response):
    """A JSON response from values that are JSON already."""

    media_type = "application/json"

    def __init__(self, content: Any = None, status_code: int = 200) -> None:
        super().__init__(json_answer(status_code, content).body, status_code)


def api_router(api: Api) -> APIRouter:
    """Routes below `/api`, but for `POST /api/events`."""
    router = APIRouter(prefix="/api", default_response_class=Json)

    @router.get("/status", tags=["server"])
    async def status() -> Json:
        """What runs, on which rules, and the problems of a set that was refused."""
        return Json(await api.status())

    @router.post("/rules/reload", tags=["server"])
    async def reload_rules() -> Json:
        """Read the rules again now. A set with problems is refused (400), and the last good one stays."""
        report = await api.reload_rules()
        return Json(report, 400 if report.get("problems") else 200)

    @router.get("/events", tags=["events"])
    async def list_events(
        limit: Limit = 50, before: Before = None, event: Filter = None, source: Filter = None, resource: Filter = None
    ) -> Json:
        """Stored events, newest first."""
        return Json(await api.list_events(_page(limit, before, event=event, source=source, resource=resource)))

    @router.get("/events/{event_id}", tags=["events"])
    async def get_event(event_id: Named) -> Json:
        """One stored event."""
        return Json(await api.get_event(event_id))

    @router.get("/automations", tags=["automations"])
    async def list_automations() -> Json:
        """All automations with their state."""
        return Json(await api.list_automations())

    @router.get("/automations/{name}", tags=["automations"])
    async def get_automation(name: Named) -> Json:
        """One automation, its rule and its state."""
        return Json(await api.get_automation(name))

    @router.get("/automations/{name}/decisions", tags=["automations"])
    async def list_decisions(name: Named, limit: Limit = 50, before: Before = None, reason: Filter = None) -> Json:
        """Why it fired, and why it did not, newest first."""
        return Json(await api.list_decisions(name, _page(limit, before, reason=reason)))

    @router.post("/automations/{name}/pause", tags=["automations"])
    async def pause_automation(name: Named) -> Json:
        """Stop it from firing until it is resumed."""
        return Json(await api.pause_automation(name))

    @router.post("/automations/{name}/resume", tags=["automations"])
    async def resume_automation(name: Named) -> Json:
        """Let it fire again."""
        return Json(await api.resume_automation(name))

    @router.get("/firings", tags=["automations"])
    async def list_firings(limit: Limit = 50, before: Before = None, automation: Filter = None) -> Json:
        """Firings, newest first."""
        return Json(await api.list_firings(_page(limit, before, automation=automation)))

    @router.get("/deployments", tags=["deployments"])
    async def list_deployments() -> Json:
        """All deployments with their schedules."""
        return Json(await api.list_deployments())

    @router.get("/deployments/{name}", tags=["deployments"])
    async def get_deployment(name: Named) -> Json:
        """One deployment."""
        return Json(await api.get_deployment(name))

    @router.post("/deployments/{name}/run", status_code=201, tags=["deployments"], openapi_extra=_RUN_BODY)
    async def run_deployment(name: Named, request: Request) -> Json:
        """Start a run. The body, if any, is `{"parameters": {...}, "key": "...", "delay": seconds}`."""
        parameters, key, delay_s = await _run_request(request)
        return Json(await api.run_deployment(name, parameters, key=key, delay_s=delay_s), 201)

    @router.post("/deployments/{name}/pause", tags=["deployments"])
    async def pause_deployment(name: Named, schedule: Filter = None) -> Json:
        """Pause its schedules, or the named one."""
        return Json(await api.pause_deployment(name, schedule))

    @router.post("/deployments/{name}/resume", tags=["deployments"])
    async def resume_deployment(name: Named, schedule: Filter = None) -> Json:
        """Resume its schedules, or the named one."""
        return Json(await api.resume_deployment(name, schedule))

    @router.get("/runs", tags=["runs"])
    async def list_runs(
        limit: Limit = 50,
        before: Before = None,
        deployment: Filter = None,
        state: Filter = None,
        work_pool: Filter = None,
    ) -> Json:
        """Flow runs, newest first."""
        return Json(await api.list_runs(_page(limit, before, deployment=deployment, state=state, work_pool=work_pool)))

    @router.get("/runs/{run_id}", tags=["runs"])
    async def get_run(run_id: Named) -> Json:
        """One flow run."""
        return Json(await api.get_run(run_id))

    @router.get("/runs/{run_id}/logs", tags=["runs"])
    async def run_logs(
        run_id: Named,
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> Json:
        """What the run wrote, after the given line."""
        return Json(await api.run_logs(run_id, after=after, limit=limit))

    @router.post("/runs/{run_id}/cancel", tags=["runs"])
    async def cancel_run(run_id: Named) -> Json:
        """Ask the run to end."""
        return Json(await api.cancel_run(run_id))

    @router.get("/actions", tags=["actions"])
    async def list_actions(
        limit: Limit = 50, before: Before = None, automation: Filter = None, type: Filter = None, outcome: Filter = None
    ) -> Json:
        """Actions and what became of them, newest first; `outcome=dead` lists dead letters."""
        return Json(await api.list_actions(_page(limit, before, automation=automation, type=type, outcome=outcome)))

    @router.post("/actions/{key}/redrive", tags=["actions"])
    async def redrive_action(key: Named) -> Json:
        """Give an action that used up its tries new ones."""
        return Json(await api.redrive_action(key))

    return router


def state_router(api: Api) -> APIRouter:
    """What probes and Prometheus ask; no token is needed."""
    router = APIRouter(tags=["server"])

    @router.get("/healthz", response_class=Json)
    async def healthz() -> Json:
        """Whether the process runs."""
        return Json({"ok": True})

    @router.get("/readyz", response_class=Json)
    async def readyz() -> Json:
        """Whether requests can be served; 503 names what is missing."""
        missing = api.ready()
        return Json({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text form."""
        return Response(api.metrics(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return router


_RUN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "parameters": {"type": "object"},
                        "key": {"type": ["string", "null"], "minLength": 1, "maxLength": 512},
                        "delay": {"type": "number", "minimum": 0, "maximum": 31_536_000},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


async def _run_request(request: Request) -> tuple[dict[str, Any], str | None, float]:
    kind = content_type(request.scope)
    if kind not in ("", "application/json"):
        raise HttpError(415, "unsupported_media_type", f"content-type {kind[:80]} is not taken; send application/json")
    body = await read_body(request.receive, BODY_LIMIT, header(request.scope, b"content-length"))
    data = decode_json(body) if body else {}
    if not isinstance(data, dict):
        raise HttpError(400, "invalid_request", 'the body is an object, such as {"parameters": {}}')
    unknown = sorted(set(data) - {"parameters", "key", "delay"})
    if unknown:
        raise HttpError(
            400, "invalid_request", f"unknown field {unknown[0][:80]}; the fields are parameters, key, delay"
        )
    parameters, key, delay = data.get("parameters", {}), data.get("key"), data.get("delay", 0)
    if not isinstance(parameters, dict):
        raise HttpError(400, "invalid_request", "parameters: an object of names and values")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= 512):
        raise HttpError(400, "invalid_request", "key: text of 1 to 512 characters")
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= 31_536_000:
        raise HttpError(400, "invalid_request", "delay: seconds, at most a year")
    return parameters, key, float(delay)


def _page(limit: int, before: str | None, **filters: str | None) -> Page:
    return Page(
        limit=limit, before=before, filters={name: value for name, value in filters.items() if value is not None}
    )


def as_response(answer: Answer) -> Response:
    """An `Answer` as a Starlette response."""
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in answer.headers}
    return Response(answer.body, answer.status, headers=headers)
