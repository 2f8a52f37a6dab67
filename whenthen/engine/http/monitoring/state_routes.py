"""What probes, Prometheus and generators of documentation ask of a server with the API. Called by `app`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.monitoring.monitoring_app import METRICS_TYPE, answer_probe

__all__ = ["state_router"]


def state_router(api: Api) -> APIRouter:
    """What probes, Prometheus and generators of documentation ask; no token is needed. `app` answers `PROBES` before: here they
    are for the document."""
    router = APIRouter(tags=["server"], route_class=ScopedRoute)

    def probed(path: str) -> Response:
        answer = answer_probe(path, missing=api.ready, notes=api.notes)
        return Response(answer.body, answer.status, media_type="application/json")

    @router.get("/healthz", response_model=answers.Health)
    async def healthz() -> Response:
        """Whether the process runs."""
        return probed("/healthz")

    @router.get("/readyz", response_model=answers.Readiness)
    async def readyz() -> Response:
        """Whether requests can be served; 503 names what is missing."""
        return probed("/readyz")

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text form."""
        return Response(api.metrics(), media_type=METRICS_TYPE)

    @router.get("/asyncapi.json", response_class=Response)
    async def asyncapi() -> Response:
        """The subjects and messages of the streams, as an AsyncAPI document."""
        return Response(await api.asyncapi(), media_type="application/json")

    return router
