"""Who sends a request: the token in its `Authorization`, or the session in its cookie; and whether a page of another site made it.

Called by `app` for everything below `/api`, and by `route_scopes` for other routes that need something. A token that is sent counts, and
a cookie beside it does not: nothing falls back from one to the other. What a browser sends by itself, a cookie, proves nothing
about who wants a change. So changing requests of a session say where they come from (`Origin` or `Sec-Fetch-Site`, which
`request_origin` compares) and bring what other sites can not read: `X-CSRF-Token`, or `csrf_token` in a form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request

from whenthen.engine.access import SERVER_TOKEN, AccessControl, AccessScope, Grant, NotAdmitted
from whenthen.engine.http.access.session_cookies import session_cookie
from whenthen.engine.http.access.wrong_tokens import WrongTokens
from whenthen.engine.http.answers import HttpError, Scope
from whenthen.engine.http.bodies import BodyBudget, body_of, header, media_type
from whenthen.engine.http.monitoring.refusal_log import RefusalLog
from whenthen.engine.http.rate_limits import RateLimits
from whenthen.engine.http.request_origin import RequestOrigin

__all__ = ["FORM_TYPE", "Admission", "Entry", "read_form", "who_asks"]

FORM_TYPE = "application/x-www-form-urlencoded"
FORM_LIMIT = 64 << 10  #: bytes of a form
FORM_FIELDS = 100
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Entry:
    """Who sends a request. `proven` says that no page of another site made it."""

    grant: Grant
    proven: bool


class Admission:
    """The door of one application."""

    def __init__(
        self,
        access: AccessControl,
        *,
        origin: RequestOrigin | None,
        refusals: RefusalLog,
        budget: BodyBudget,
        rates: RateLimits,
    ) -> None:
        self.access = access
        self.origin = origin
        self.refusals = refusals
        self.budget = budget
        self._wrong = WrongTokens(rates)

    async def enter(self, scope: Scope) -> Entry:
        """Find who sends a request.

        Raises:
            NotAdmitted: nobody who is known here. HttpError: 400, it can be read in two ways; 429, its address has sent too many wrong tokens. BusUnavailable: not known at the moment.
        """
        if self.access.open:
            return Entry(self.access.own, True)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) > 1:
            raise HttpError(400, "invalid_request", "Authorization comes several times; send it once")
        if given:
            kind, _, token = given[0].decode("latin-1").partition(" ")
            if kind.lower() != "bearer":
                raise NotAdmitted("send `Authorization: Bearer <token>`")
            return Entry(await self._by_token(token.strip(), scope), True)
        cookie = session_cookie(scope, self.origin)
        if cookie is None:
            raise NotAdmitted("send `Authorization: Bearer <token>`")
        grant = await self.access.by_session(cookie)
        if scope["method"] in _SAFE:
            return Entry(grant, True)
        if header(scope, b"origin") is None and header(scope, b"sec-fetch-site") is None:
            raise HttpError(
                403,
                "forged_request",
                "a changing request with a session says where it comes from, in Origin or Sec-Fetch-Site; programs send a token",
            )
        return Entry(grant, grant.proves(header(scope, b"x-csrf-token") or ""))

    async def _by_token(self, token: str, scope: Scope) -> Grant:
        mark = self._wrong.check(token, scope)
        try:
            grant = await self.access.by_token(token)
        except NotAdmitted:
            self._wrong.wrong(mark, scope)
            raise
        self._wrong.right(mark)
        return grant

    async def check_route(self, entry: Entry, need: AccessScope | None, request: Request) -> None:
        """Return if who sends a request may have it answered. A form that is looked at is left in `request.state.form`.

        Raises:
            HttpError: 403, which is put on record.
        """
        try:
            if (
                not entry.proven
                and media_type(request.scope) == FORM_TYPE
                and not request.scope["path"].startswith("/api")
            ):
                request.state.form = form = await read_form(request, self.budget)
                entry = Entry(entry.grant, entry.grant.proves(form.get("csrf_token", "")))
            self.check(entry, need)
        except HttpError as error:
            self.refusals.refused("api", error, error.status, request.scope)
            raise

    def check(self, entry: Entry, need: AccessScope | None) -> None:
        """Return if no page of another site made the request, and who sends it has the scope that it needs.

        Raises:
            HttpError: 403.
        """
        grant = entry.grant
        if not entry.proven:
            raise HttpError(
                403,
                "forged_request",
                "a changing request with a session brings its X-CSRF-Token, or csrf_token in a form; GET /api/session has it",
            )
        if need is not None and not grant.allows(need):
            raise HttpError(
                403,
                "missing_scope",
                f"this needs the scope {need}, and the token {grant.name} has {', '.join(sorted(grant.scopes))}; "
                f"`whenthen tokens create NAME --scope {need}` makes one that has it",
            )


def who_asks(grant: Grant, address: str) -> str:
    """For the audit trail: the address, and the token unless it is the server's own."""
    return address if grant.name in ("", SERVER_TOKEN) else f"{grant.name} at {address}"


async def read_form(request: Request, budget: BodyBudget) -> Mapping[str, str]:
    """The fields of a form; of one that comes twice the first.

    Raises:
        HttpError: 400, 413.
    """
    try:
        async with body_of(request.scope, request.receive, FORM_LIMIT, budget) as body:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS)
    except ValueError:  # not UTF-8, or too many fields
        raise HttpError(
            400, "invalid_request", f"a form in UTF-8 of at most {FORM_FIELDS} fields is expected"
        ) from None
    return dict(reversed(pairs))
