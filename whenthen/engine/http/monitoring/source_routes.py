"""Routes of sources: which there are and when they were heard, what of theirs was refused, and sending that again.

Called by `app`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.bodies import BodyBudget, body_of
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.request_models import read_hook_request
from whenthen.sources import Request as HookedRequest
from whenthen.sources import decode_json

__all__ = ["source_router"]

TRY_LIMIT = 40 << 20  #: bytes of a request that is tried; its body is in base64

SourceName = Annotated[
    str | None,
    Query(min_length=1, max_length=512, description="Of `webhook:shop`, `source:orders`, or whatever has this name."),
]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Older than this `seq`.")]
Id = Annotated[str | None, Query(min_length=6, max_length=64, description="The one whose id begins with this.")]


def source_router(api: Api, budget: BodyBudget) -> APIRouter:
    """Routes below `/api/sources`."""
    router = APIRouter(prefix="/api/sources", tags=["sources"], route_class=ScopedRoute)
    get = partial(router.get, response_model_exclude_unset=True)

    @get("")
    async def list_sources() -> list[answers.SourceItem]:
        """The webhooks in force, when each was heard last, and what was refused."""
        return await api.list_sources()

    @get("/refused")
    async def list_refused(
        source: SourceName = None, limit: Limit = 50, before: Before = None
    ) -> list[answers.RefusedItem]:
        """Refused requests whose proof held, and messages that fit no event, the newest first; kept for seven days, without what they hold."""
        return await api.list_refused(source, limit, before)

    @router.post("/resend")
    async def resend(source: SourceName = None, id: Id = None, before: Before = None) -> answers.ResendReport:
        """Read what is kept again by the rules of now, up to 1,000 of the newest; what is taken is not kept any longer."""
        return await api.resend(source, id, before)

    @router.post("/try")
    async def try_request(request: Request) -> answers.TriedRequest:
        """What a webhook would make of a request, by the rules in force. The body is `{"webhook": "shop", "method": "POST", "headers": {...},
        "query": {...}, "body": "<base64>"}`. Nothing is stored, and a request that proves nothing is read, too."""
        async with body_of(request.scope, request.receive, TRY_LIMIT, budget) as raw:
            asked = read_hook_request(decode_json(raw))
            made = HookedRequest.of(
                method=asked.method.upper(), headers=asked.headers, query=asked.query, body=asked.body
            )
            return await api.try_request(asked.webhook, made)

    return router
