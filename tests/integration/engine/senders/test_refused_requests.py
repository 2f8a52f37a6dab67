"""Refused requests whose proof held: kept whole over a restart, listed without what they hold, and sent again once the mapping is mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.running_server import RunningServer
from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = pytest.mark.anyio

TOKEN = "planted-token-value"


def rules(number: str) -> str:
    return f"""
webhooks:
  - name: shop
    verify: {{type: bearer, token: env:SHOP_TOKEN}}
    map: {{event: order.paid, resource: {{id: "order.{{{{ body.{number} }}}}"}}, payload: $.body}}
  - {{name: silent, verify: {{type: bearer, token: env:SHOP_TOKEN}}, map: {{event: x, resource: {{id: y}}}}}}
  - {{name: open, verify: none, map: {{event: x, resource: {{id: "{{{{ body.id }}}}"}}}}}}
automations:
  - {{name: ship, trigger: {{expect: order.paid}}, actions: [do-nothing]}}
"""


async def send(client: httpx.AsyncClient, body: Any, name: str = "shop", token: str = TOKEN) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Cookie": "a=cookie-value"}
    return (await client.post(f"/hooks/{name}", content=json.dumps(body), headers=headers)).status_code


async def test_refused_request_is_kept_listed_and_sent_again_when_the_mapping_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    file = tmp_path / "rules.yaml"
    file.write_text(rules("nmber"))
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with Server(settings, file) as server, plain_async_client(base_url=server.address) as client:
        running = RunningServer(server, client)
        assert await send(client, {"number": 7, "card": "4111-secret"}) == 400
        assert await send(client, {"number": 8, "nmber": 8}) == 202
        assert await send(client, {"number": 9}, token="wrong") == 403
        assert await send(client, {"other": 1}, name="open") == 400  # which anybody may send

        async def kept() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await running.get("/api/sources/refused")
            return found

        await until(kept)
        [item] = await kept()
        assert (item["source"], item["field"], item["whole"]) == ("webhook:shop", "map.resource.id", True)
        assert "4111-secret" not in json.dumps(item)
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*.blk"))
        assert TOKEN.encode() not in stored
        assert b"cookie-value" not in stored

        sources = {each["name"]: each for each in await running.get("/api/sources")}
        assert sources["shop"]["taken"] == 1
        assert sources["shop"]["refused"] == {"invalid_input": 1, "proof_wrong": 1}
        assert (sources["shop"]["proof"], sources["open"]["proof"]) == ("bearer", "")
        assert sources["shop"]["last_heard"]
        assert sources["silent"]["last_heard"] is None
        assert (await running.get("/api/status"))["never_heard"] == ["silent", "open"]

        async def shown() -> bool:
            return 'whenthen_webhook_heard_timestamp_seconds{webhook="shop"} 0.0' not in await running.metrics()

        await until(shown)
        assert 'whenthen_webhook_heard_timestamp_seconds{webhook="silent"} 0.0' in await running.metrics()

        again = (await client.post("/api/sources/resend")).json()
        assert (again["sent"], [each["id"] for each in again["refused"]]) == (0, [item["id"]])
        assert len(await kept()) == 1

    file.write_text(rules("number"))
    async with Server(settings, file) as server, plain_async_client(base_url=server.address) as client:
        running = RunningServer(server, client)
        other = (await client.post("/api/sources/resend", params={"source": "silent"})).json()
        assert other == {"sent": 0, "events": [], "refused": [], "next": None}
        report = (await client.post("/api/sources/resend", params={"id": item["id"][:8]})).json()
        assert (report["sent"], len(report["events"]), report["refused"]) == (1, 1, [])
        event = await running.get(f"/api/events/{report['events'][0].replace('/', '%2F')}")
        assert (event["resource"], event["payload"]["card"]) == ({"id": "order.7"}, "4111-secret")
        assert await running.get("/api/sources/refused") == []
        assert (await client.post("/api/sources/resend")).json()["sent"] == 0
        sources = {each["name"]: each for each in await running.get("/api/sources")}
        assert sources["shop"]["last_heard"]  # by the process before
