"""The settings of outgoing requests, from the environment to what an action does in a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.patience import limit
from tests.plain_http import plain_async_client
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = pytest.mark.anyio

RULES = """
automations:
  - name: call
    trigger: {{expect: order.created}}
    actions:
      - call-webhook: http://{host}:{port}/calls
        retry: {{attempts: 1}}
"""


async def outcome(tmp_path: Path, host: str, port: int) -> dict[str, Any]:
    """What came of the action when one event has fired it."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES.format(host=host, port=port))
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:
        event = {"event": "order.created", "resource": {"id": "order.1"}}
        (await client.post("/api/events", json=event)).raise_for_status()
        async with asyncio.timeout(limit(30)):
            while True:
                for found in (await client.get("/api/events")).raise_for_status().json():
                    if found["event"].startswith("automation.action."):
                        payload: dict[str, Any] = found["payload"]
                        return payload
                await asyncio.sleep(0.05)


class Receiver:
    """Answers every request with 200 and counts; as a proxy, too."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def test_private_addresses_are_reached_by_default(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        found = await outcome(tmp_path, "127.0.0.1", receiver.port)
    assert found["details"]["status"] == 200
    assert len(receiver.heads) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refuse_private_keeps_actions_from_private_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("WHENTHEN_REFUSE_PRIVATE", "true")
    async with Receiver() as receiver:
        found = await outcome(tmp_path, host, receiver.port)
    assert found["reason"] == "refused_address"
    assert found["final"]
    assert "refused by the settings" in found["message"]
    assert receiver.heads == []


async def test_the_proxy_of_the_settings_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy:
        monkeypatch.setenv("WHENTHEN_REFUSE_PRIVATE", "true")
        monkeypatch.setenv("WHENTHEN_ACTION_PROXY", "env:THE_PROXY")
        monkeypatch.setenv("THE_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        found = await outcome(tmp_path, "receiver.example.com", 8080)
    assert found["details"] == {"status": 200, "host": "receiver.example.com"}
    assert proxy.heads[0].startswith(b"POST http://receiver.example.com:8080/calls HTTP/1.1\r\n")
    assert b"proxy-authorization: basic dXNlcjp3b3Jk".lower() in proxy.heads[0].lower()
