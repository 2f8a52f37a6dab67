"""Routes of sources: which there are and when they were heard, what of theirs was refused, and sending that again.

Called by `app`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers

__all__ = ["source_router"]

Webhook = Annotated[str | None, Query(min_length=1, max_length=512, description="Of this webhook alone.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Older than this `seq`.")]
Id = Annotated[str | None, Query(min_length=6, max_length=64, description="The one whose id begins with this.")]


def source_router(api: Api) -> APIRouter:
    """Routes below `/api/sources`."""
    router = APIRouter(prefix="/api/sources", tags=["sources"], route_class=ScopedRoute)
    get = partial(router.get, response_model_exclude_unset=True)

    @get("")
    async def list_sources() -> list[answers.SourceItem]:
        """The webhooks in force, when each was heard last, and what was refused."""
        return await api.list_sources()

    @get("/refused")
    async def list_refused(
        webhook: Webhook = None, limit: Limit = 50, before: Before = None
    ) -> list[answers.RefusedItem]:
        """Refused requests whose proof held, the newest first; kept for seven days, without what they hold."""
        return await api.list_refused(webhook, limit, before)

    @router.post("/resend")
    async def resend(webhook: Webhook = None, id: Id = None) -> answers.ResendReport:
        """Read kept requests again by the rules of now, the oldest first, up to 1,000; what is taken is not kept any longer."""
        return await api.resend(webhook, id)

    return router
