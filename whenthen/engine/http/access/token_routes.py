"""Routes of tokens: which there are, making one, ending one; who one is; and one-time addresses to log in at.

Called by `app`.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from whenthen.engine.access import ADDRESS_LASTS, AccessControl, Grant, TokenRecord
from whenthen.engine.http.access.admission import Entry, who_asks
from whenthen.engine.http.access.route_scopes import ENTRY, ScopedRoute
from whenthen.engine.http.bodies import BodyBudget, body_of
from whenthen.engine.http.models.access_models import (
    LoginAddress,
    NewToken,
    SessionItem,
    TokenItem,
    read_token_request,
)
from whenthen.engine.http.monitoring.refusal_log import RefusalLog
from whenthen.engine.http.routed_paths import Named
from whenthen.schemas.times import format_time
from whenthen.sources import decode_json

__all__ = ["session_item", "token_router"]

BODY_LIMIT = 64 << 10  #: of a request for a token, in bytes


def token_router(access: AccessControl, refusals: RefusalLog, budget: BodyBudget) -> APIRouter:
    """Routes of tokens below `/api`."""
    router = APIRouter(prefix="/api", tags=["access"], route_class=ScopedRoute)
    get = partial(router.get, response_model_exclude_unset=True)
    post = partial(router.post, response_model_exclude_unset=True)

    @get("/session")
    async def session(request: Request, response: Response) -> SessionItem:
        """Who asks, and what they may do."""
        response.headers["cache-control"] = "no-store"
        entry: Entry = request.scope[ENTRY]
        return session_item(entry.grant)

    @post("/login-addresses", status_code=201)
    async def new_login_address(request: Request) -> LoginAddress:
        """Make an address at which a browser logs in once, within ten minutes, with the scopes of the token that asks."""
        entry: Entry = request.scope[ENTRY]
        return LoginAddress(
            path=f"/login?once={await access.new_address(entry.grant)}", lasts_s=int(ADDRESS_LASTS.total_seconds())
        )

    @get("/tokens")
    async def list_tokens() -> list[TokenItem]:
        """The named tokens. The server's own token is not among them."""
        return [TokenItem(**_fields(token, access)) for token in await access.list_tokens()]

    @post("/tokens", status_code=201)
    async def create_token(request: Request, response: Response) -> NewToken:
        """Make a token. Its value is in this answer and nowhere else. 409 when there is one of that name."""
        async with body_of(request.scope, request.receive, BODY_LIMIT, budget) as body:
            wanted = read_token_request(decode_json(body))
        entry: Entry = request.scope[ENTRY]
        by = who_asks(entry.grant, refusals.sender(request.scope))
        record, value = await access.create_token(wanted.name, wanted.scopes, lasts=wanted.lasts, by=by)
        response.headers["cache-control"] = "no-store"
        return NewToken(**_fields(record, access), value=value)

    @post("/tokens/{name}/revoke")
    async def revoke_token(name: Named) -> TokenItem:
        """End a token at once, with all sessions that it began."""
        return TokenItem(**_fields(await access.revoke_token(name), access))

    return router


def session_item(grant: Grant) -> SessionItem:
    """A grant as it is answered."""
    return SessionItem(
        token=grant.name,
        scopes=sorted(grant.scopes),
        expires=None if grant.expires is None else format_time(grant.expires),
        csrf_token=grant.forgery_token or None,
    )


def _fields(token: TokenRecord, access: AccessControl) -> dict[str, object]:
    return {
        "name": token.name,
        "id": token.id,
        "scopes": list(token.scopes),
        "created": token.created,
        "created_by": token.created_by,
        "expires": token.expires,
        "expired": access.expired(token),
    }
