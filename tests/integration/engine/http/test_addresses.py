"""Ids and names in addresses: whatever characters they have, they arrive as they are, over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.patience import eventually
from tests.plain_http import plain_client
from tests.unit.engine.http.http_fakes import FakeApi, app_over
from whenthen.cli.client import ApiError, Client, quoted
from whenthen.engine.http import ConnectionGate, ConnectionLimits, HttpServer, listen

ODD = [
    "orders/17",
    "https://x.test/a//b?c=d#e",
    "/x#c1",
    ".",
    "..",
    "../status",
    "a/../b",
    "a%2Fb",
    "100%",
    "%2e%2e",
    "a b",
    "a+b",
    "größe/部署",
    "x/decisions",
    "dead/count",
    "a/",
    "/",
    "s" * 200 + "/" * 56,
]


@pytest.fixture
def served() -> Iterator[tuple[FakeApi, str]]:
    api = FakeApi()
    gate = ConnectionGate(ConnectionLimits(), metrics=api.registry)
    listening, url = listen("127.0.0.1", 0)
    server = HttpServer(app_over(api), drain_s=1, gate=gate)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    eventually(lambda: server.started)
    yield api, url
    server.should_exit = True
    thread.join()


def test_an_event_is_shown_by_any_id(served: tuple[FakeApi, str]) -> None:
    _, url = served
    with Client(url) as client:
        for id in ODD:
            client.post("/api/events", {"event": "a", "resource": {"id": "r"}, "id": id})
            assert client.get(f"/api/events/{quoted(id)}")["id"] == id, id


@pytest.mark.parametrize(
    ("method", "address", "call"),
    [
        ("GET", "/api/automations/{}", "get_automation"),
        ("GET", "/api/automations/{}/decisions", "list_decisions"),
        ("POST", "/api/automations/{}/pause", "pause_automation"),
        ("POST", "/api/automations/{}/resume", "resume_automation"),
        ("POST", "/api/orphans/{}/forget", "forget_orphans"),
        ("GET", "/api/deployments/{}", "get_deployment"),
        ("POST", "/api/deployments/{}/run", "run_deployment"),
        ("POST", "/api/deployments/{}/pause", "pause_deployment"),
        ("POST", "/api/deployments/{}/resume", "resume_deployment"),
        ("GET", "/api/runs/{}", "get_run"),
        ("GET", "/api/runs/{}/logs", "run_logs"),
        ("POST", "/api/runs/{}/cancel", "cancel_run"),
        ("POST", "/api/actions/{}/redrive", "redrive_action"),
        ("POST", "/api/actions/{}/drop", "drop_action"),
    ],
)
def test_every_route_takes_any_name_as_it_is(served: tuple[FakeApi, str], method: str, address: str, call: str) -> None:
    api, url = served
    with Client(url) as client:
        for name in ODD:
            api.calls.clear()
            ask: Any = client.get if method == "GET" else client.post
            with contextlib.suppress(ApiError):  # the fake knows one deployment, and names what it does not know
                ask(address.format(quoted(name)))
                [(called, given, *_)] = [made for made in api.calls if made[0] == call]
                assert (called, given) == (call, name)
                continue
            answer = client._http.request(method, address.format(quoted(name)))
            assert answer.json()["error"]["message"].startswith(f'no deployment is named "{name}"')


def test_a_webhook_is_looked_up_by_the_name_that_was_sent(served: tuple[FakeApi, str]) -> None:
    _, url = served
    with plain_client() as client:
        for name in ("%2E%2E", "%2e", "a%20b"):
            answer = client.post(f"{url}/hooks/{name}", json={})
            assert answer.json()["error"]["message"].startswith("no webhook is named")
        assert client.post(f"{url}/hooks/orders", json={}).status_code == 401
