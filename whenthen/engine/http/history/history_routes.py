"""Routes of the history: what happened, for weeks, filtered by time and by what it was about; counts over time; how much there is.

Called by `app`. Meaning: docs/history.md.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.known_parameters import check_parameters
from whenthen.engine.http.models.list_parameters import Filter, Pairs, Since, Until, given
from whenthen.engine.http.models.request_models import read_key

__all__ = ["history_router"]

Before = Annotated[str | None, Query(max_length=64, description="The `next` of the page before.")]


def history_router(api: Api) -> APIRouter:
    """Routes below `/api/history`."""
    router = APIRouter(
        prefix="/api/history", tags=["history"], route_class=ScopedRoute, dependencies=[Depends(check_parameters)]
    )
    get = partial(router.get, response_model_exclude_unset=True)

    @get("")
    async def history_stats() -> answers.HistoryStats:
        """How much the history holds, and how far it is."""
        return await api.history_stats()

    @get("/{of}")
    async def history_page(
        of: answers.HistoryKind,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 50,
        before: Before = None,
        since: Since = None,
        until: Until = None,
        id: Filter = None,
        name: Filter = None,
        label: Pairs = None,
        related: Filter = None,
        automation: Filter = None,
        reason: Filter = None,
        event: Filter = None,
        firing: Filter = None,
        key: Filter = None,
        state: Filter = None,
        type: Filter = None,
        deployment: Filter = None,
        work_pool: Filter = None,
        kind: Filter = None,
        who: Filter = None,
        text: Filter = None,
    ) -> answers.HistoryPage:
        """What happened, newest first. `id` is how an id begins, `name` a glob of events' names, `kind` one of the audit trail."""
        equal = given(
            name=name, automation=automation, reason=reason, event=event, firing=firing, key=key, state=state, type=type,
            deployment=deployment, work_pool=work_pool, kind=kind, who=who,
        )  # fmt: skip
        return await api.history_page(
            of,
            equal=equal,
            labels=read_key(label or [], "label"),
            since=since,
            until=until,
            more={
                "id_prefix": id or "",
                "related": related or "",
                "text": text or "",
                "before": before or "",
                "limit": limit,
            },
        )

    @get("/{of}/counts")
    async def history_counts(
        of: answers.HistoryKind,
        by: Annotated[
            str | None, Query(max_length=64, description="A field, such as `automation` or `reason`.")
        ] = None,
        step: Annotated[str, Query(max_length=16, description="`hour` or `day`.")] = "hour",
        since: Since = None,
        until: Until = None,
        name: Filter = None,
        automation: Filter = None,
        reason: Filter = None,
        state: Filter = None,
        deployment: Filter = None,
        kind: Filter = None,
        cause: Filter = None,
    ) -> list[answers.HistoryCount]:
        """How many there were in each hour or day (UTC); those without any are left out. Without `since` the day before `until`."""
        equal = given(
            name=name, automation=automation, reason=reason, state=state, deployment=deployment, kind=kind, cause=cause
        )
        return await api.history_counts(
            of,
            equal=equal,
            by=by,
            since=since,
            until=until,
            step=step,
        )

    return router
