"""Logging in and out: with a token, in a form or as JSON, or at a one-time address.

Called by `app`. How often one address may try is bounded. The page is plain: it works without scripts and styles, and nothing that a request
brought stands in it but escaped.
"""

from __future__ import annotations

import html
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
from whenthen.engine.http.bodies import JSON_TYPES, content_type, header, read_body
from whenthen.engine.http.models.access_models import SessionItem
from whenthen.engine.http.rate_limits import RateLimits
from whenthen.schemas.webhooks import RateLimit
from whenthen.sources import decode_json

__all__ = ["LOGINS", "login_router"]

LOGINS = RateLimit(10, timedelta(minutes=1))  #: of one address, right and wrong ones
BODY_LIMIT = 8 << 10
MOST_PATH = 2000  #: characters of where a login leads
#: `same-origin`, as with `no-referrer` browsers send `Origin: null` with forms
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>{head}</head>
<body><main><h1>{title}</h1>
{body}
</main></body>
</html>
"""
_FORM = """<form method="post" action="/login">
<p><label for="token">Token</label> <input id="token" name="token" type="password" autocomplete="current-password" required autofocus></p>
<input type="hidden" name="next" value="{next}">
<p><button type="submit">Log in</button></p>
</form>
<p>On the machine of the server, <code>whenthen open</code> logs in by itself. <code>whenthen tokens create</code> makes tokens.</p>"""


def login_router(admission: Admission, rates: RateLimits) -> APIRouter:
    """`/login` and `/logout`."""
    router = APIRouter(tags=["access"], route_class=ScopedRoute)
    access, origin = admission.access, admission.origin

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
            return RedirectResponse(target, 303, headers=_HEADERS)
        if once is None:
            return _form(target)
        count(request.scope)
        try:
            session = await access.log_in_once(once, where=admission.refusals.sender(request.scope))
        except NotAdmitted as error:
            admission.refusals.refused("login", error, error.status, request.scope)
            return _form(target, str(error))
        # not a redirect: where a page of another site led here, the browser would send no cookie with it
        link = html.escape(target, quote=True)
        response = _page(
            "Logged in",
            f'<p>Logged in with the token {html.escape(session.grant.name)}. <a href="{link}">Go on</a></p>',
            head=f'<meta http-equiv="refresh" content="0; url={link}">',
        )
        response.headers["set-cookie"] = cookie_set(session, request.scope, origin)
        return response

    @router.post("/login", response_model=SessionItem)
    async def log_in(request: Request) -> Response:
        """Begin a session with a token: a form with `token` and `next`, which is answered with a page, or `{"token": "..."}`. The session
        is in a cookie, and lasts as long as the setting `session_lasts` says, or as its token."""
        count(request.scope)
        kind = content_type(request.scope)
        if kind == FORM_TYPE:
            form = await read_form(request, admission.budget)
            target = _local(form.get("next", "/"))
            if access.open:
                return RedirectResponse(target, 303, headers=_HEADERS)
            try:
                session = await begin(request.scope, form.get("token", ""))
            except NotAdmitted as error:
                return _form(target, str(error))
            response: Response = RedirectResponse(target, 303, headers=_HEADERS)
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
            response = RedirectResponse("/login", 303, headers=_HEADERS)
        else:
            response = JSONResponse(session_item(entry.grant).model_dump())
        response.headers["set-cookie"] = cookie_ended(request.scope, origin)
        response.headers["clear-site-data"] = '"cache", "storage"'
        return response

    return router


async def _token_in(request: Request, admission: Admission) -> str:
    share = admission.budget.share()
    try:
        body = await read_body(request.receive, BODY_LIMIT, header(request.scope, b"content-length"), share)
    finally:
        share.give_back()
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


def _form(target: str, problem: str = "") -> HTMLResponse:
    said = f'<p role="alert">{html.escape(problem)}</p>\n' if problem else ""
    page = _page("Log in to whenthen", said + _FORM.format(next=html.escape(target, quote=True)))
    page.status_code = 401 if problem else 200
    return page


def _page(title: str, body: str, *, head: str = "") -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=title, body=body, head=head), headers=_HEADERS)
