"""All routes of the pages, put together for `app`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.long_queries import LongQueries
from whenthen.engine.http.pages.action_pages import action_router
from whenthen.engine.http.pages.automation_pages import automation_router
from whenthen.engine.http.pages.event_pages import event_router
from whenthen.engine.http.pages.flow_run_pages import run_router
from whenthen.engine.http.pages.page_frame import PageFrame, asset_of
from whenthen.engine.http.pages.source_page import source_router
from whenthen.engine.http.pages.system_page import system_router
from whenthen.engine.http.pages.try_page import try_router
from whenthen.engine.http.pages.why_pages import why_router

__all__ = ["page_routers"]


def page_routers(api: Api, frame: PageFrame, long_queries: LongQueries) -> list[APIRouter]:
    """Routers of every page, and of the files that they refer to."""
    return [
        _files(),
        _first_page(frame),
        automation_router(api, frame),
        event_router(api, frame, long_queries),
        action_router(api, frame),
        run_router(api, frame),
        source_router(api, frame),
        try_router(api, frame),
        why_router(api, frame, long_queries),
        system_router(api, frame),
    ]


def _files() -> APIRouter:
    router = APIRouter(route_class=ScopedRoute, include_in_schema=False)

    @router.get("/ui/{name}")
    async def page_file(name: str) -> Response:
        return asset_of(name)

    return router


def _first_page(frame: PageFrame) -> APIRouter:
    router = frame.router()

    @router.get("/")
    async def first_page(request: Request) -> Response:
        return frame.see("/automations")

    return router
