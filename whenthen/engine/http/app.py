"""The HTTP application: hot routes first, everything else through FastAPI.

Built by the wiring with `create_app` and served by uvicorn. `/api` needs a token, or the session of one; what a route needs is in
`access.route_scopes`. Webhooks verify their requests themselves; probes, metrics and the OpenAPI document need nothing. Everything but
webhooks is refused to pages of other sites.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from whenthen.engine.access import AccessControl, AccessScope, AccessStore, MemoryBucket
from whenthen.engine.audit import CALLER
from whenthen.engine.http.access.admission import Admission, Entry, who_asks
from whenthen.engine.http.access.login_routes import login_router
from whenthen.engine.http.access.route_scopes import ADMISSION, ENTRY, ROUTES, need_of
from whenthen.engine.http.access.token_routes import token_router
from whenthen.engine.http.answers import Answer, HttpError, Receive, Scope, Send, answer_of, error_answer, send_answer
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.bodies import BodyBudget, ClientGone, refuse_other_than_json
from whenthen.engine.http.history.history_routes import history_router
from whenthen.engine.http.ingest import Ingest
from whenthen.engine.http.live.stream_routes import stream_router
from whenthen.engine.http.long_queries import LongQueries
from whenthen.engine.http.monitoring.monitoring_app import PROBES, answer_probe
from whenthen.engine.http.monitoring.refusal_log import RefusalLog
from whenthen.engine.http.monitoring.source_routes import source_router
from whenthen.engine.http.monitoring.state_routes import state_router
from whenthen.engine.http.openapi import complete
from whenthen.engine.http.pages.page_frame import PageFrame, is_page
from whenthen.engine.http.pages.page_router import page_routers
from whenthen.engine.http.rate_limits import Network, RateLimits
from whenthen.engine.http.request_origin import RequestOrigin
from whenthen.engine.http.routed_paths import raw_path, routed_path
from whenthen.engine.http.routes import api_router, as_response
from whenthen.engine.http.rule_set_routes import rule_set_router
from whenthen.engine.http.shared.shared_routes import shared_router
from whenthen.engine.metrics import Metrics
from whenthen.engine.spans import Spans
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.events import EventLimits
from whenthen.supervision import AtHand, Work, noted

__all__ = ["HttpApp", "create_app"]

_NOTED_CHARS = 200  #: of a request's path


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def create_app(
    api: Api,
    *,
    metrics: Metrics,
    token: str | None = None,
    access: AccessControl | None = None,
    origin: RequestOrigin | None = None,
    body_limit: int = 4_000_000,
    bodies_limit: int = 256_000_000,
    events_per_request: int = 1000,
    proxies: Sequence[Network] = (),
    limits: EventLimits | None = None,
    allow_reserved_names: bool = False,
    clock: Callable[[], datetime] = utc_now,
    version: str = "0",
    at_hand: AtHand | None = None,
    redact: Callable[[str], str] = lambda text: text,
    spans: Spans | None = None,
) -> HttpApp:
    """The ASGI application over `api`. `access` says who may do what; without it `token` is what callers of `/api` must send, and None
    leaves it open.

    `proxies` are those whose X-Forwarded-For is believed. `redact` takes secrets out of what is logged. `origin` refuses requests that pages of others send; None takes them.
    """
    budget = BodyBudget(bodies_limit)
    rates = RateLimits(proxies)
    refusals = RefusalLog(redact=redact, proxies=proxies, note=api.note_refusal)
    ingest = Ingest(
        api,
        metrics=metrics,
        clock=clock,
        body_limit=body_limit,
        budget=budget,
        rates=rates,
        refusals=refusals,
        events_per_request=events_per_request,
        limits=limits,
        allow_reserved_names=allow_reserved_names,
        spans=spans,
    )
    access = access or AccessControl(AccessStore(MemoryBucket(), MemoryBucket()), token=token, clock=clock)
    admission = Admission(access, origin=origin, refusals=refusals, budget=budget, rates=rates)
    return HttpApp(
        ingest,
        lambda: _fastapi(api, version, admission, rates),
        probe=lambda path: answer_probe(path, missing=api.ready, notes=api.notes),
        metrics=metrics,
        admission=admission,
        at_hand=at_hand,
    )


class HttpApp:
    """The ASGI application. Its routes of FastAPI, which take long to build, are made by `build_rest` when one is first asked for;
    `probe` answers `PROBES` without them, so that what waits for a process to be ready does not wait for that, too."""

    def __init__(
        self,
        ingest: Ingest,
        build_rest: Callable[[], FastAPI],
        *,
        probe: Callable[[str], Answer],
        metrics: Metrics,
        admission: Admission,
        at_hand: AtHand | None = None,
    ) -> None:
        self._build_rest = build_rest
        self._probe = probe
        self._at_hand = at_hand or AtHand()
        self._ingest = ingest
        self._admission = admission
        self._origin = admission.origin
        self._requests = metrics.http_requests
        self._refusals = admission.refusals
        need = need_of("POST", "/api/events")
        assert isinstance(need, AccessScope)
        self._need_of_events = need
        self._counters: dict[tuple[str, int], Any] = {}

    @cached_property
    def rest(self) -> FastAPI:
        """Every route but those for events and webhooks."""
        return self._build_rest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
            return
        path = routed_path(scope)
        if path != scope["path"]:
            scope = {**scope, "path": path}
        status: int | None
        if path.startswith("/hooks/"):
            route = "hooks"
            name = _hook_name(scope)
            status = await self._noted(f"/hooks/{name}", self._ingest.hook(scope, receive, send, name))
        elif (refused := await self._refusal(scope, path)) is not None:
            route = "api" if path.startswith("/api") else "other"
            status = refused.status
            await send_answer(send, refused, close=True)
        elif path == "/api/events" and scope["method"] == "POST":
            route = "events"
            status = await self._noted(path, self._ingest.events(scope, receive, send))
        elif path in PROBES and scope["method"] == "GET":
            route = "other"
            answer = self._probe(path)
            status = answer.status
            await send_answer(send, answer)
        else:
            route = "api" if path.startswith("/api") else "other"
            entry: Entry | None = scope.get(ENTRY)
            address = self._refusals.sender(scope)
            CALLER.set(address if entry is None else who_asks(entry.grant, address))
            status = await self._noted(path, self._rest(scope, receive, send))
        if status is not None:
            counter = self._counters.get((route, status))
            if counter is None:
                counter = self._counters[(route, status)] = self._requests.labels(route, str(status))
            counter.inc()

    def _noted(self, path: str, answering: Coroutine[Any, Any, int | None]) -> Awaitable[int | None]:
        """Answer a request with a note of its path for as long as it has the event loop."""
        return noted(self._at_hand, Work.REQUEST, _note_of(path[:_NOTED_CHARS]), answering)

    async def _refusal(self, scope: Scope, path: str) -> Answer | None:
        """The answer to what is refused for where it comes from, for who sends it, or for a body that is not JSON."""
        try:
            if self._origin is not None:
                self._origin.check(scope, navigable=is_page(path))
            scope[ADMISSION] = self._admission
            if path.startswith("/api"):
                entry = scope[ENTRY] = await self._admission.enter(scope)
                if scope["method"] == "POST":
                    if path == "/api/events":  # the others are looked at by their routes
                        self._admission.check(entry, self._need_of_events)
                    else:
                        # what a form or a script of a page can send without asking first is never JSON
                        refuse_other_than_json(scope)
        except WhenthenError as error:
            answer = answer_of(error)
            self._refusals.refused("api", error, answer.status, scope)
            return answer
        return None

    async def _rest(self, scope: Scope, receive: Receive, send: Send) -> int | None:
        status: int | None = None

        async def watch(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.rest(scope, receive, watch)
        except ClientGone:
            return None
        except Exception:
            if status is None:
                raise
            # answered and logged by the handler of unexpected errors, after which Starlette raises it again
        return status


@lru_cache(maxsize=256)
def _note_of(path: str) -> bytes:
    return path.encode(errors="replace")


def _hook_name(scope: Scope) -> str:
    name = raw_path(scope).removeprefix(b"/hooks/")
    return (unquote_to_bytes(name) if b"%" in name else name).decode("utf-8", "replace")


def _fastapi(api: Api, version: str, admission: Admission, rates: RateLimits) -> FastAPI:
    budget = admission.budget
    app = FastAPI(title="whenthen", version=version, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.router.redirect_slashes = False  # it would repeat the Host of the request
    app.include_router(state_router(api))
    long_queries = LongQueries()
    app.include_router(api_router(api, budget, long_queries))
    app.include_router(shared_router(api, budget))
    app.include_router(rule_set_router(api, budget))
    app.include_router(history_router(api))
    app.include_router(source_router(api, budget))
    app.include_router(stream_router(api))
    app.include_router(token_router(admission.access, admission.refusals, budget))
    app.include_router(login_router(admission, rates, version=version))
    frame = PageFrame(admission, version)
    for router in page_routers(api, frame, long_queries):
        app.include_router(router)

    async def ours(_request: Request, error: Exception) -> Response:
        return as_response(answer_of(error))

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"][1:])
        return as_response(error_answer(400, "invalid_request", str(first["msg"]), field=field))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = ", ".join(sorted(_methods(request.scope["path"])))
            refused = HttpError(405, "method_not_allowed", f"{request.method} is not taken here; {allowed} is")
            refused.headers = ((b"allow", allowed.encode()),)
            return as_response(answer_of(refused))
        if (
            error.status_code == 404
            and is_page(request.scope["path"])
            and "text/html" in request.headers.get("accept", "")
        ):
            return frame.no_page(request)
        if error.status_code == 404:
            message = "there is nothing at this address; /openapi.json lists what there is"
            return as_response(error_answer(404, "not_found", message))
        return as_response(error_answer(error.status_code, "invalid_request", str(error.detail)))

    async def unexpected(_request: Request, error: Exception) -> Response:
        return as_response(answer_of(error))

    app.add_exception_handler(WhenthenError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(get_openapi(title=app.title, version=version, routes=app.routes))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _methods(path: str) -> set[str]:
    """Every method that some route takes at `path`."""
    found, wanted = set(), path.split("/")
    for method, template in ROUTES:
        steps = template.split("/")
        if len(steps) == len(wanted) and all(
            step == want or (step.startswith("{") and want) for step, want in zip(steps, wanted, strict=True)
        ):
            found.add(method)
    return found
