"""Each route has a line in the one table, and who lacks what it says is told so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from http_fakes import FakeApi, app_over, client_of
from starlette.routing import Route

from whenthen.engine.access import AccessControl, AccessScope, AccessStore, MemoryBucket
from whenthen.engine.http.access.route_scopes import ROUTES, Need, ScopedRoute

pytestmark = pytest.mark.takes(0.2)  # each builds all routes anew

OWN = "t" * 20
EVENT = {"event": "order.created", "resource": {"id": "order.1"}}
#: answered before FastAPI has them
HOT = {("POST", "/api/events"), ("POST", "/hooks/{name}")}


def access_of(token: str | None = OWN) -> AccessControl:
    return AccessControl(AccessStore(MemoryBucket(), MemoryBucket()), token=token)


def routes_of(router: Any) -> list[Route]:
    """Every route of an application, those of its routers among them."""
    found = []
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        assert inner is not None or isinstance(route, Route), route
        found += [route] if inner is None else routes_of(inner)
    return found


def test_no_route_is_without_a_line_and_no_line_without_a_route() -> None:
    found = set(HOT)
    for route in routes_of(app_over(FakeApi()).rest):
        found |= {(method, route.path) for method in (route.methods or set()) - {"HEAD"}}
    assert found == set(ROUTES)


def test_every_route_but_the_document_looks_at_its_line() -> None:
    routes = [route for route in routes_of(app_over(FakeApi()).rest) if not isinstance(route, ScopedRoute)]
    assert [route.path for route in routes] == ["/openapi.json"]


def test_a_route_without_a_line_can_not_be_built() -> None:
    router = APIRouter(prefix="/api", route_class=ScopedRoute)
    with pytest.raises(LookupError, match=r"GET /api/secrets has no line in .*ROUTES"):
        router.get("/secrets")(lambda: None)


def test_nothing_below_api_needs_nothing_and_what_changes_something_needs_more_than_reading() -> None:
    for (method, path), need in ROUTES.items():
        if path.startswith("/api"):
            assert need is not Need.NOTHING, path
            if method != "GET":
                assert need is not AccessScope.READ, path


@pytest.mark.parametrize("held", list(AccessScope))
def test_each_route_is_closed_to_tokens_without_its_scope_and_the_answer_names_it(held: AccessScope) -> None:
    access = access_of()

    async def scenario() -> None:
        _, value = await access.create_token("some", [held])
        api = FakeApi()
        async with client_of(app_over(api, access=access)) as client:
            client.headers["authorization"] = f"Bearer {value}"
            for (method, template), need in ROUTES.items():
                if not isinstance(need, AccessScope):
                    continue
                answer = await client.request(method, re.sub(r"\{\w+(:path)?\}", "x", template))
                if held in (need, AccessScope.ADMIN):
                    assert answer.status_code not in (401, 403), template
                else:
                    assert answer.status_code == 403, template
                    if template.startswith("/api"):
                        assert answer.json()["error"]["reason"] == "missing_scope"
                    assert f"this needs the scope {need}, and the token some has {held};" in answer.text
            refused = [each for each in api.refusals if each[1] == "missing_scope"]
            assert len(refused) == sum(
                isinstance(need, AccessScope) and held not in (need, AccessScope.ADMIN) for need in ROUTES.values()
            )
            assert value not in str(api.refusals)

    asyncio.run(scenario())


def test_what_lacks_its_scope_changes_nothing_and_reads_no_body() -> None:
    access = access_of()

    async def scenario() -> None:
        _, value = await access.create_token("reads", [AccessScope.READ])
        api = FakeApi()
        async with client_of(app_over(api, access=access)) as client:
            client.headers["authorization"] = f"Bearer {value}"
            assert (await client.post("/api/events", json=EVENT)).status_code == 403
            assert (await client.post("/api/deployments/loader/run", json={"no": "field"})).status_code == 403
            assert (await client.post("/api/events", content=b"{" * 100)).status_code == 403
        assert (api.stored, api.calls) == ({}, [])

    asyncio.run(scenario())


def test_an_address_that_there_is_not_is_404_to_every_token_and_401_to_nobody() -> None:
    access = access_of()

    async def scenario() -> None:
        _, value = await access.create_token("emits", [AccessScope.EMIT])
        async with client_of(app_over(FakeApi(), access=access)) as client:
            assert (await client.get("/api/nothing")).status_code == 401
            client.headers["authorization"] = f"Bearer {value}"
            assert (await client.get("/api/nothing")).status_code == 404
            assert (await client.delete("/api/events")).status_code == 405

    asyncio.run(scenario())


async def _answer(
    access: AccessControl, ask: Callable[[httpx.AsyncClient], Any], api: FakeApi | None = None
) -> httpx.Response:
    async with client_of(app_over(api or FakeApi(), access=access)) as client:
        found: httpx.Response = await ask(client)
        return found


@pytest.mark.parametrize(
    "second", [f"Bearer {OWN}", "Bearer wrong", ""], ids=["the same again", "a wrong one", "an empty one"]
)
def test_a_header_that_comes_twice_is_refused(second: str) -> None:
    headers = [("authorization", f"Bearer {OWN}"), ("authorization", second)]
    answer = asyncio.run(_answer(access_of(), lambda client: client.get("/api/status", headers=headers)))
    assert answer.status_code == 400
    assert "Authorization comes several times" in answer.text


def test_a_token_of_a_megabyte_is_refused_like_any_other() -> None:
    headers = {"authorization": "Bearer wt_" + "a" * 1_000_000}
    api = FakeApi()
    answer = asyncio.run(_answer(access_of(), lambda client: client.get("/api/status", headers=headers), api))
    assert answer.status_code == 401
    assert len(str(api.refusals)) < 1000
    login = asyncio.run(_answer(access_of(), lambda client: client.post("/login", json={"token": "a" * 1_000_000})))
    assert login.status_code == 413


def test_tokens_are_made_listed_and_revoked_over_http() -> None:
    access = access_of()

    async def scenario() -> None:
        async with client_of(app_over(FakeApi(), access=access)) as client:
            own = {"authorization": f"Bearer {OWN}"}
            made = await client.post("/api/tokens", json={"name": "ci", "scopes": ["read"], "lasts": "1d"}, headers=own)
            assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
            value = made.json().pop("value")
            (listed,) = (await client.get("/api/tokens", headers=own)).json()
            assert listed == {name: text for name, text in made.json().items() if name != "value"}
            assert (listed["name"], listed["scopes"], listed["expired"]) == ("ci", ["read"], False)
            assert listed["created_by"] == "127.0.0.1"
            ci = {"authorization": f"Bearer {value}"}
            assert (await client.get("/api/session", headers=ci)).json()["scopes"] == ["read"]
            assert (await client.get("/api/tokens", headers=ci)).status_code == 403
            twice = await client.post("/api/tokens", json={"name": "ci", "scopes": ["admin"]}, headers=own)
            assert twice.status_code == 409
            gone = await client.post("/api/tokens/ci/revoke", headers=own)
            assert gone.json() == listed
            assert (await client.get("/api/session", headers=ci)).status_code == 401
            assert (await client.post("/api/tokens/ci/revoke", headers=own)).status_code == 404

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({}, "name"),
        ({"name": "ci"}, "scopes"),
        ({"name": "ci", "scopes": []}, "scopes"),
        ({"name": "ci", "scopes": ["root"]}, "scopes"),
        ({"name": "ci", "scopes": "read"}, "scopes"),
        ({"name": "ci", "scopes": ["read"], "lasts": "-1s"}, "lasts"),
        ({"name": "ci", "scopes": ["read"], "lasts": "soon"}, "lasts"),
        ({"name": "ci", "scopes": ["read"], "value": "mine"}, "value"),
        ({"name": "a\x1b[31m", "scopes": ["read"]}, "name"),
        ({"name": "a" * 100_000, "scopes": ["read"]}, None),
        ({"name": 7, "scopes": ["read"]}, "name"),
    ],
)
def test_a_request_for_a_token_that_is_wrong_says_where(body: Any, field: str | None) -> None:
    headers = {"authorization": f"Bearer {OWN}"}
    answer = asyncio.run(_answer(access_of(), lambda client: client.post("/api/tokens", json=body, headers=headers)))
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["error"]["field"] == field
    assert "\x1b" not in answer.text
