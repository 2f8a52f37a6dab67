"""Routes of rule sets: what is in force and was, what a set would change, putting one in force, and going back.

Called by `app`. Rules are sent as texts; the server keeps them in NATS, never as files of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request

from whenthen.engine.http.access.route_scopes import ScopedRoute
from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.api_port import Api
from whenthen.engine.http.bodies import BodyBudget, body_of
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.request_models import read_registration, read_rollback, read_rule_set
from whenthen.sources import decode_json

__all__ = ["RULES_LIMIT", "rule_set_router"]

T = TypeVar("T")
RULES_LIMIT = 32 << 20  #: bytes of a request that holds rules

Number = Annotated[int, Path(ge=1, le=2**53)]


def rule_set_router(api: Api, budget: BodyBudget) -> APIRouter:
    """Routes below `/api/rules`, but for the reload of the server's own files."""
    router = APIRouter(prefix="/api/rules", tags=["rules"], route_class=ScopedRoute)
    get = partial(router.get, response_model_exclude_unset=True)
    post = partial(router.post, response_model_exclude_unset=True)

    @asynccontextmanager
    async def body(request: Request) -> AsyncIterator[object]:
        try:
            async with body_of(request.scope, request.receive, RULES_LIMIT, budget) as raw:
                yield decode_json(raw) if raw else {}
        except HttpError as error:
            if error.status != 413:
                raise
            raise HttpError(
                413, error.reason, f"the rules have more than {RULES_LIMIT} bytes; have a server read them as files"
            ) from None

    @get("/revisions")
    async def list_revisions() -> list[answers.RuleRevision]:
        """The revisions that are kept, the newest first."""
        return await api.list_revisions()

    @get("/revisions/{number}")
    async def get_revision(number: Number) -> answers.RuleTexts:
        """The files of a revision that is kept, as texts."""
        return await api.rule_texts(number)

    @post("/plan")
    async def plan_rules(request: Request) -> answers.RulePlan:
        """What rules would change. The body is `{"files": [{"name": "a.yaml", "text": "..."}]}`; without files those that the server has
        on disk."""
        async with body(request) as data:
            return await api.plan_rules(read_rule_set(data))

    @post("/apply")
    async def apply_rules(request: Request) -> answers.RuleRevision:
        """Publish rules, whatever was published before; the body is that of `plan`. 409 when another revision than `expected` is the
        current one, or somebody else publishes at the same time; it says who. 403 when rules come from files alone (`rules_from`)."""
        async with body(request) as data:
            return await api.apply_rules(read_rule_set(data))

    @post("/deployments")
    async def register_deployments(request: Request) -> answers.Registration:
        """Register deployments of a script, as `serve(...)` and `deploy(...)` do, or take some out. They are part of the rules from then on,
        beside the files. 409 when a rules file has the name, or another script works for it; 403 when rules come from files alone
        (`rules_from`)."""
        async with body(request) as data:
            return await api.register_deployments(read_registration(data))

    @post("/revisions/{number}/rollback")
    async def roll_back_rules(number: Number, request: Request) -> answers.RuleRevision:
        """Publish the rules of an earlier revision as a new one. 403 when rules come from files alone (`rules_from`)."""
        async with body(request) as data:
            return await api.roll_back_rules(number, read_rollback(data))

    return router
