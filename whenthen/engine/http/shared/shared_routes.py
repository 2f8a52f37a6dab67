"""Routes of what runs share: variables, artifacts, named limits and leases of their slots. Called by `app`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.bodies import BodyBudget
from whenthen.engine.http.models import shared_models as models
from whenthen.engine.http.models.known_parameters import check_parameters
from whenthen.engine.http.models.list_parameters import After, Filter, Limit, given
from whenthen.engine.http.models.request_models import Page
from whenthen.engine.http.routed_paths import Named
from whenthen.engine.http.shared.route_tools import linked, optional_body

__all__ = ["shared_router"]

Before = Annotated[str | None, Query(max_length=512, description="The `seq` of the last one of the page before.")]


def shared_router(api: Api, budget: BodyBudget) -> APIRouter:
    """Routes below `/api`."""
    router = APIRouter(prefix="/api", route_class=ScopedRoute, dependencies=[Depends(check_parameters)])
    get = partial(router.get, response_model_exclude_unset=True)
    post = partial(router.post, response_model_exclude_unset=True)

    @get("/variables", tags=["variables"])
    async def list_variables(request: Request, response: Response, after: After = None) -> list[models.VariableItem]:
        """All variables, by name. An answer that was cut for its size has a `Link` to the next one."""
        return linked(request, response, await api.list_variables(after))

    @get("/variables/{name}", tags=["variables"])
    async def get_variable(name: Named) -> models.VariableItem:
        """One variable."""
        return await api.get_variable(name)

    @post("/variables/{name}", tags=["variables"])
    async def set_variable(name: Named, request: Request) -> models.VariableItem:
        """Set it. The body is `{"value": ..., "tags": [...], "overwrite": true}`; 409 for an existing one without `overwrite`."""
        wanted = await optional_body(request, budget, models.read_variable_request, models.no_body)
        return await api.set_variable(name, wanted)

    @post("/variables/{name}/unset", tags=["variables"])
    async def unset_variable(name: Named) -> models.Unset:
        """Forget it."""
        return await api.unset_variable(name)

    @get("/artifacts", tags=["runs"])
    async def list_artifacts(
        request: Request,
        response: Response,
        limit: Limit = 50,
        before: Before = None,
        run: Filter = None,
        key: Filter = None,
    ) -> list[models.ArtifactItem]:
        """What runs have to show, the last changed first. Where there may be more, a `Link` leads to the next page."""
        page = Page(limit=limit, before=before, filters=given(run=run, key=key))
        return linked(request, response, await api.list_artifacts(page))

    @get("/artifacts/{artifact_id}", tags=["runs"])
    async def get_artifact(artifact_id: Named) -> models.ArtifactItem:
        """One artifact, by its id, or by its key the one of it that changed last."""
        return await api.get_artifact(artifact_id)

    @get("/limits", tags=["limits"])
    async def list_limits() -> list[models.NamedLimitItem]:
        """The named limits of the rules, and who has their slots."""
        return await api.list_limits()

    @post("/leases", status_code=201, tags=["limits"])
    async def lease_slots(request: Request) -> models.LeaseAnswer:
        """Ask for slots of limits of the rules, as a program beside the runs does. The body is `{"names": [...], "occupy": 1, "mode":
        "concurrency", "lease_s": 300}`. Without free slots the answer is when to ask again."""
        wanted = await optional_body(request, budget, models.read_lease_request, models.no_body)
        return await api.lease_slots(wanted)

    @post("/leases/{lease}/renew", tags=["limits"])
    async def renew_lease(lease: Named) -> models.LeaseAnswer:
        """Begin the time of a lease anew. 404 when it is over."""
        return await api.renew_lease(lease)

    @post("/leases/{lease}/release", tags=["limits"])
    async def release_lease(lease: Named) -> models.LeaseAnswer:
        """Give its slots back."""
        return await api.release_lease(lease)

    return router
