"""Logging in and out: with a token, in a form or as JSON, or at a one-time address.

Called by `app`. How often one address may try is bounded. The page works without scripts and styles, and nothing that a request
brought stands in it but escaped.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from whenthen.engine.access import NewSession, NotAdmitted
from whenthen.engine.http.access.admission import FORM_TYPE, Admission, Entry, read_form
from whenthen.engine.http.access.route_scopes import ENTRY, ScopedRoute
from whenthen.engine.http.access.session_cookies import cookie_ended, cookie_set
from whenthen.engine.http.access.token_routes import session_item
from whenthen.engine.http.answers import HttpError, Scope
from whenthen.engine.http.bodies import JSON_TYPES, body_of, content_type
from whenthen.engine.http.models.access_models import SessionItem
from whenthen.engine.http.pages.page_frame import PAGE_HEADERS
from whenthen.engine.http.rate_limits import RateLimits
from whenthen.schemas.webhooks import RateLimit
from whenthen.sources import decode_json
from whenthen.ui import Place, render

__all__ = ["LOGINS", "login_router"]

LOGINS = RateLimit(10, timedelta(minutes=1))  #: of one address, right and wrong ones
BODY_LIMIT = 8 << 10
#: as of every page, and no scripts at all
_HEADERS = {
    **PAGE_HEADERS,
    "content-security-policy": PAGE_HEADERS["content-security-policy"].replace("script-src 'self'; ", ""),
}
MOST_PATH = 2000  #: characters of where a login leads


def login_router(admission: Admission, rates: RateLimits, *, version: str = "") -> APIRouter:
    """`/login` and `/logout`."""
    router = APIRouter(tags=["access"], route_class=ScopedRoute)
    access, origin = admission.access, admission.origin
    place = Place(path="/login", version=version)

    def page(title: str, message: str = "", *, next: str = "/", onward: str = "", status: int = 200) -> HTMLResponse:
        text = render("login.html", place, title=title, message=message, next=next, onward=onward)
        return HTMLResponse(text, status, headers=dict(_HEADERS))

    def form_page(target: str, error: NotAdmitted | HttpError | None = None) -> HTMLResponse:
        told = "" if error is None else str(error)
        shown = page("Log in to whenthen", told, next=target, status=200 if error is None else error.status)
        if isinstance(error, HttpError):
            shown.raw_headers.extend(error.headers)
        return shown

    def count(scope: Scope) -> None:
        try:
            rates.check("login", LOGINS, scope)
        except HttpError as error:
            admission.refusals.refused("login", error, error.status, scope)
            raise

    @router.get("/login", response_class=HTMLResponse)
    async def login_page(
        request: Request,
        once: Annotated[str | None, Query(max_length=200, description="Of a one-time address.")] = None,
        next: Annotated[str, Query(description="The path that a login leads to.")] = "/",
    ) -> Response:
        """The page to log in at; with `once` a one-time address, which logs in as it is asked for."""
        target = _local(next)
        if access.open:
            return RedirectResponse(target, 303, headers=dict(_HEADERS))
        if once is None:
            return form_page(target)
        count(request.scope)
        try:
            session = await access.log_in_once(once, where=admission.refusals.sender(request.scope))
        except NotAdmitted as error:
            admission.refusals.refused("login", error, error.status, request.scope)
            return form_page(target, error)
        # not a redirect: where a page of another site led here, the browser would send no cookie with it
        response = page("Logged in", f"Logged in with the token {session.grant.name}.", onward=target)
        response.headers["set-cookie"] = cookie_set(session, request.scope, origin)
        return response

    @router.post("/login", response_model=SessionItem)
    async def log_in(request: Request) -> Response:
        """Begin a session with a token: a form with `token` and `next`, which is answered with a page, or `{"token": "..."}`. The session
        is in a cookie, and lasts as long as the setting `session_lasts` says, or as its token."""
        kind = content_type(request.scope)
        try:
            count(request.scope)
        except HttpError as error:
            if kind != FORM_TYPE:
                raise
            return form_page("/", error)
        if kind == FORM_TYPE:
            form = await read_form(request, admission.budget)
            target = _local(form.get("next", "/"))
            if access.open:
                return RedirectResponse(target, 303, headers=dict(_HEADERS))
            try:
                session = await begin(request.scope, form.get("token", ""))
            except NotAdmitted as error:
                return form_page(target, error)
            response: Response = RedirectResponse(target, 303, headers=dict(_HEADERS))
        elif kind in JSON_TYPES:
            session = await begin(request.scope, await _token_in(request, admission))
            response = JSONResponse(session_item(session.grant).model_dump(), headers={"cache-control": "no-store"})
        else:
            raise HttpError(
                415, "unsupported_media_type", f"content-type {kind[:80]!r} is not taken; send a form or JSON"
            )
        response.headers["set-cookie"] = cookie_set(session, request.scope, origin)
        return response

    async def begin(scope: Scope, token: str) -> NewSession:
        try:
            return await access.log_in(token, where=admission.refusals.sender(scope))
        except NotAdmitted as error:
            admission.refusals.refused("login", error, error.status, scope)
            raise

    @router.post("/logout", response_model=SessionItem)
    async def log_out(request: Request) -> Response:
        """End the session of the cookie. A form (with `csrf_token`) is answered with a redirect to the login."""
        entry: Entry = request.scope[ENTRY]
        if not entry.grant.session:
            raise HttpError(
                400, "invalid_request", "there is no session to end: the request came with a token, or needs none"
            )
        await access.log_out(entry.grant)
        response: Response
        if hasattr(request.state, "form"):
            response = RedirectResponse("/login", 303, headers=dict(_HEADERS))
        else:
            response = JSONResponse(session_item(entry.grant).model_dump())
        response.headers["set-cookie"] = cookie_ended(request.scope, origin)
        response.headers["clear-site-data"] = '"cache", "storage"'
        return response

    return router


async def _token_in(request: Request, admission: Admission) -> str:
    async with body_of(request.scope, request.receive, BODY_LIMIT, admission.budget) as body:
        data: Any = decode_json(body)
    token = data.get("token") if isinstance(data, dict) else None
    if not isinstance(token, str) or len(data) > 1:
        raise HttpError(400, "invalid_request", 'the body is {"token": "..."}', path=("token",))
    return token


def _local(path: str) -> str:
    """Where a login leads: a path of this server, `/` in place of anything else."""
    # browsers take a backslash for a slash, and pass over tabs and line breaks
    if (
        not path.startswith("/")
        or path.startswith("//")
        or "\\" in path
        or not path.isprintable()
        or len(path) > MOST_PATH
    ):
        return "/"
    return quote(path, safe="/?&=%:@!$'()*+,;~-._")
