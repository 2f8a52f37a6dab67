"""A trace from a request to everything that it causes: firing, request, run, its environment, its events, emitted events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.schemas.trace_context import child_trace, derived_trace, trace_headers

pytestmark = pytest.mark.anyio

TRACE = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01", "state": "a=1"}
RULES = """
webhooks:
  - name: shop
    verify: none
    map: {event: order.created, resource: {id: "order.{{ body.number }}"}}
automations:
  - name: order
    trigger: {expect: order.created}
    actions:
      - run-deployment: show
      - emit-event: order.seen
  - name: done
    trigger: {expect: flow-run.Completed}
    actions: {call-webhook: "http://127.0.0.1:{port}/"}
deployments:
  - {name: show, command: [sh, -c, 'echo "$TRACEPARENT $TRACESTATE"']}
"""


class House:
    def __init__(self, client: httpx.AsyncClient, heads: list[str]) -> None:
        self.client = client
        self.heads = heads  #: of the requests that came to the receiver

    async def get(self, path: str, **query: Any) -> Any:
        return (await self.client.get(path, params=query)).raise_for_status().json()

    async def called(self) -> bool:
        return len(self.heads) == 1

    async def emitted(self) -> bool:
        return len(await self.get("/api/events", event="order.seen")) == 1


async def follow(tmp_path: Path, headers: dict[str, str]) -> tuple[House, list[dict[str, Any]], dict[str, Any], str]:
    """Send a request to the webhook; what came of it: all events, the run, and what the run wrote."""
    heads: list[str] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    receiver = await asyncio.start_server(receive, "127.0.0.1", 0)
    (tmp_path / "rules").mkdir()
    text = RULES.replace("{port}", str(receiver.sockets[0].getsockname()[1]))
    (tmp_path / "rules" / "rules.yaml").write_text(text)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with (
        receiver,
        Server(settings, tmp_path / "rules") as server,
        plain_async_client(base_url=server.address) as client,
    ):
        house = House(client, heads)
        (await client.post("/hooks/shop", json={"number": 1}, headers=headers)).raise_for_status()
        await until(house.called)
        await until(house.emitted)
        (run,) = await house.get("/api/runs")
        lines = (await house.get(f"/api/runs/{run['id']}/logs"))["lines"]
        events = await house.get("/api/events", limit=100)
        firings = {found["automation"]: found for found in await house.get("/api/firings")}
        assert firings["order"]["trace"]["id"] == run["trace"]["id"]
        return house, events, run, next(line["text"] for line in lines if line["stream"] == "stdout")


async def test_everything_that_a_request_causes_is_part_of_its_trace(tmp_path: Path) -> None:
    house, events, run, written = await follow(tmp_path, trace_headers(TRACE))
    named = {event["event"]: event for event in events}
    assert named["order.created"]["trace"] == TRACE
    assert run["trace"] == child_trace(TRACE, run["key"])
    assert written == " ".join(trace_headers(run["trace"]).values())
    assert {event["trace"]["id"] for event in events} == {TRACE["id"]}
    assert named["flow-run.Completed"]["trace"] == run["trace"]
    (head,) = house.heads
    assert f"traceparent: 00-{TRACE['id']}-" in head
    assert "tracestate: a=1\r\n" in head


async def test_what_a_request_without_a_trace_causes_is_part_of_that_of_its_firing(tmp_path: Path) -> None:
    _, events, run, written = await follow(tmp_path, {"traceparent": "malformed", "tracestate": "a=1"})
    named = {event["event"]: event for event in events}
    assert "trace" not in named["order.created"]
    firing = run["key"].rpartition(".")[0]
    assert run["trace"] == child_trace(derived_trace(firing), run["key"])
    assert run["trace"]["id"] == firing == named["order.seen"]["trace"]["id"]
    assert written.strip() == trace_headers(run["trace"])["traceparent"]
