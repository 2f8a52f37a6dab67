"""The page System: is everything well? Shards, lag, sizes against limits, disk, workers and pools, rules and their problems, who is
paused."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.api_port import Api
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_views import if_there

__all__ = ["system_router"]

_SHOWN = 50  #: automations that are paused or set aside, pools, and workers; the lists of the command line have all


def system_router(api: Api, frame: PageFrame) -> APIRouter:
    """The route `/system`."""
    router = frame.router()

    @router.get("/system")
    async def system_page(request: Request) -> Response:
        status, (pools, workers), sizes, stats, revisions, dead = await asyncio.gather(
            api.status(),
            asyncio.gather(if_there(api.list_work_pools(None)), if_there(api.list_workers(None))),
            if_there(api.system_sizes()),
            if_there(api.history_stats()),
            if_there(api.list_revisions()),
            if_there(api.count_dead(None)),
        )
        return frame.page(
            request,
            "system.html",
            status=200,
            now=status,
            sizes=sizes,
            stats=stats,
            revisions=(revisions or [])[:8],
            dead=dead,
            pools=pools,
            workers=workers,
            shown=_SHOWN,
        )

    return router
