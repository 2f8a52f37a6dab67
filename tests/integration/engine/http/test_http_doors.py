"""What was tried at the HTTP door and held: requests with two readings, near tokens, odd JSON, names that would become metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.engine.http.test_connections import EVENT, run, running
from tests.unit.engine.http.http_fakes import FakeApi, app_over, client_of

TOKEN = "tok-0123456789abcdef"
HEAD = b"POST /api/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENT), EVENT)
PLAIN = b"content-length: %d\r\n" % len(EVENT)


def call(
    method: str, path: str, *, app: dict[str, Any] | None = None, **request: Any
) -> tuple[FakeApi, httpx.Response]:
    api = FakeApi()

    async def ask() -> httpx.Response:
        async with client_of(app_over(api, **(app or {}))) as client:
            return await client.request(method, path, **request)

    return api, asyncio.run(ask())


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + PLAIN + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED,
        HEAD + PLAIN + b"content-length: 3\r\n\r\n" + EVENT,
        HEAD + b"content-length: +%d\r\n\r\n" % len(EVENT) + EVENT,
        HEAD + b"content-length: 0x20\r\n\r\n" + EVENT,
        HEAD + b"content-length: -1\r\n\r\n" + EVENT,
        HEAD + b"content-length: 99999999999999999999999\r\n\r\n" + EVENT,
        HEAD + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKED,
        HEAD + b"transfer-encoding : chunked\r\n\r\n" + CHUNKED,
        HEAD + b"x: a\r\n b\r\n" + PLAIN + b"\r\n" + EVENT,
        HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + EVENT,
        HEAD + b"x: a\x00b\r\n" + PLAIN + b"\r\n" + EVENT,
    ],
    ids=["both", "two lengths", "plus", "hex", "negative", "huge", "xchunked", "space", "folded", "overflow", "null"],
)
def test_a_request_with_two_readings_is_refused_and_nothing_of_it_stored(raw: bytes) -> None:
    async def work() -> None:
        async with running() as server:
            (status, _), *more = await server.ask(raw)
            assert (status, more) == (400, [])
            assert server.api.stored == {}
            await server.alive()

    run(work)


@pytest.mark.parametrize(
    "path", ["/api/status", "/%61pi/status", "/api%2Fstatus", "//api/status", "/api/../api/status", "/API/status"]
)
@pytest.mark.parametrize(
    "given",
    ["", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}"],
)
def test_no_near_token_and_no_spelling_of_the_path_opens_the_api(path: str, given: str) -> None:
    api, response = call("GET", path, app={"token": TOKEN}, headers={"authorization": given} if given else {})
    assert response.status_code in (401, 404)
    assert "version" not in response.text
    assert api.calls == []


@pytest.mark.parametrize(
    "body",
    [
        '{"event": "a", "resource": {"id": "x"}, "payload": NaN}',
        '{"event": "a", "resource": {"id": "x"}, "payload": Infinity}',
        '{"event": "a", "resource": {"id": "x"}, "payload": 1e999}',
        '{"event": "a", "resource": {"id": "x"}, "payload": "\\ud800"}',
        b'{"event": "\xc0\xaf", "resource": {"id": "x"}}',
        '{"event": "a\x01", "resource": {"id": "x"}}',
        "[" * 2_000_000,
        '{"event": "a", "resource": {"id": "x"}, "lineage": {"depth": 0}}',
        '{"event": "a", "resource": {"id": "x"}, "source": "whenthen"}',
        '{"event": "a", "resource": {"id": "x"}, "received": "2026-01-31T08:00:00Z"}',
        '{"event": "a", "resource": {"id": "x"}, "trace": {}}',
        '{"event": "a", "resource": {"id": "x"}, "occurred": "2036-01-31T08:00:00Z"}',
    ],
)
def test_what_no_event_may_hold_is_refused_with_the_place(body: str | bytes) -> None:
    content = body if isinstance(body, bytes) else body.encode()
    api, response = call("POST", "/api/events", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert api.stored == {}


def test_names_from_outside_become_no_labels_of_metrics() -> None:
    async def work() -> bytes:
        api = FakeApi()
        async with client_of(app_over(api)) as client:
            assert (await client.post("/hooks/planted-name", json={})).status_code == 404
            planted = {"event": "planted-event", "resource": {"id": "planted-id"}}
            assert (await client.post("/api/events", json=planted)).status_code == 202
            assert (await client.get("/planted-path")).status_code == 404
        return api.registry.text()

    assert b"planted" not in asyncio.run(work())


def test_a_slash_behind_a_path_is_answered_here_and_leads_to_no_host_of_the_request() -> None:
    _, response = call("GET", "/healthz/", headers={"host": "evil.example"})
    assert response.status_code == 404
    assert "location" not in response.headers
