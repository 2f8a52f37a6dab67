"""A data directory that goes away under a running server: no event is accepted that nobody would find again."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.processes import Supervised, ready, whenthen
from tests.patience import until
from tests.plain_http import plain_async_client
from tests.ports import free_ports

pytestmark = [pytest.mark.anyio, pytest.mark.takes(15)]
RULES = "automations: [{name: seen, trigger: {expect: ping}, actions: [do-nothing]}]"


class Server:
    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        (folder / "rules.yaml").write_text(RULES)
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        words = whenthen("serve", folder / "rules.yaml", "--data-dir", self.data_dir, "--port", str(port))
        env = {"WHENTHEN_OPEN_LOOPBACK": "true", "XDG_STATE_HOME": str(folder / "state")}
        self.process = Supervised("server", words, folder, env=env)
        self.client = plain_async_client(base_url=self.url)

    async def send(self, id: str) -> httpx.Response:
        event = {"event": "ping", "id": id, "resource": {"id": "r"}}
        return await self.client.post("/api/events", json=event)

    async def missing(self) -> str:
        answer = await self.client.get("/readyz")
        return "" if answer.status_code == 200 else answer.text

    async def stored(self) -> set[str]:
        answer = await self.client.get("/api/events?event=ping")
        return {item["id"] for item in answer.json()}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    server.process.start()
    try:
        await ready(server.url)
        yield server
    finally:
        await server.client.aclose()
        await server.process.halt()


async def test_events_are_refused_while_the_directory_is_away_and_taken_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    assert (await server.send("before")).status_code == 202
    server.data_dir.rename(tmp_path / "away")

    async def away() -> bool:
        return "the data directory" in await server.missing()

    await until(away, what="the server says what is missing")
    refused = await server.send("meanwhile")
    assert refused.status_code == 503
    assert refused.json()["error"]["reason"] == "data_directory_gone"
    assert f"{server.data_dir} was removed" in refused.text
    assert "whenthen_data_directory_gone 1.0" in (await server.client.get("/metrics")).text
    (tmp_path / "away").rename(server.data_dir)

    async def back() -> bool:
        return not await server.missing()

    await until(back, what="the server is ready again")
    assert (await server.send("after")).status_code == 202
    assert "whenthen_data_directory_gone 0.0" in (await server.client.get("/metrics")).text
    assert await server.stored() == {"before", "after"}


async def test_after_the_directory_was_deleted_a_new_start_goes_on(server: Server) -> None:
    assert (await server.send("lost")).status_code == 202
    shutil.rmtree(server.data_dir)

    async def refused() -> bool:
        return (await server.send("refused")).status_code == 503

    await until(refused, what="events are refused")
    await server.process.halt()
    server.process.start()
    await ready(server.url)
    assert (await server.send("new")).status_code == 202
    assert await server.stored() == {"new"}
    assert server.process.ended_by_itself == []
