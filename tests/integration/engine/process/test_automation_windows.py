"""What an automation remembers, listed by a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.bus.batches import publish_batch
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = [pytest.mark.anyio, pytest.mark.takes(5)]

RULES = """
automations:
  - name: counted
    trigger: {expect: order.failed, for_each: id, threshold: 3, within: 1h}
    actions: do-nothing
  - name: unshipped
    trigger: {expect: order.shipped, after: order.failed, posture: proactive, within: 1h, for_each: id}
    actions: do-nothing
  - name: both
    trigger:
      type: sequence
      within: 1h
      triggers: [{expect: order.failed}, {expect: order.closed}]
    actions: do-nothing
"""


async def test_windows_are_listed_with_their_keys_what_they_hold_and_when_they_end(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:

        async def windows(name: str, **query: Any) -> list[Any]:
            answer = await client.get(f"/api/automations/{name}/windows", params=query)
            assert answer.status_code == 200, answer.text
            return list(answer.json())

        ids = [f"orders/17.{n}" for n in range(5)]
        for number, order in enumerate([*ids, ids[1]]):
            event = {"id": f"e-{number}", "event": "order.failed", "resource": {"id": order}}
            assert (await client.post("/api/events", json=event)).status_code == 202

        async def all_there() -> bool:
            found = await windows("counted")
            return len(found) == 5 and found[0]["count"] == 2

        await until(all_there)
        found = await windows("counted")
        assert [each["key"] for each in found] == [{"id": ids[n]} for n in (1, 4, 3, 2, 0)]
        assert (found[0]["kind"], found[0]["count"], found[0]["needed"]) == ("sliding", 2, 3)
        assert [each["id"] for each in found[0]["events"]] == ["e-1", "e-5"]
        assert await windows("counted", key="id=orders/17.3") == [found[2]]
        assert await windows("counted", text="17.4") == [found[1]]
        (part,) = await windows("both")
        assert (part["kind"], part["count"], part["needed"]) == ("sequence", 1, 2)
        open_ones = await windows("unshipped")
        assert {each["key"]["id"] for each in open_ones} == set(ids)
        assert all(each["ends"] and each["kind"] == "absence" for each in open_ones)

        pages: list[Any] = []
        address = "/api/automations/counted/windows?limit=2"
        while address:
            answer = await client.get(address)
            assert len(answer.json()) <= 2
            pages += answer.json()
            address = answer.links["next"]["url"] if "next" in answer.links else ""
        assert pages == found

        # decisions of a time range come from the history and from the record alike, and from the history page by page
        async def decided(address: str) -> list[Any]:
            found: list[Any] = []
            while address:
                answer = await client.get(address)
                assert answer.status_code == 200, answer.text
                assert len(answer.json()) <= 2
                found += answer.json()
                address = answer.links["next"]["url"] if "next" in answer.links else ""
            return found

        decisions = "/api/automations/counted/decisions?limit=2"
        on_record = await decided(decisions)
        assert [each["event"] for each in on_record] == [f"e-{n}" for n in range(5, -1, -1)]

        async def in_history() -> bool:
            rows = (await client.get("/api/history/decisions?automation=counted")).json()["items"]
            return len(rows) == 6

        assert await decided(decisions + "&since=1h") == on_record
        await until(in_history)
        assert await decided(decisions + "&since=1h") == on_record
        assert await decided(decisions + "&event=e-3") == [on_record[2]]
        assert await decided(decisions + "&since=1h&reason=fired") == []
        assert await decided(decisions + "&until=1h") == []

        # one that is larger than a message is listed without what it holds, and one that can not be read not at all
        parts = server._started()
        leaf = parts.rule_registry.now.automations["counted"].leaves[0].id
        large = (
            orjson.dumps({"parts": 2, "of": "x", "bytes": 5_000_000}) + b"\n" + orjson.dumps([leaf, "big"]) + b"\n[1,"
        )
        await publish_batch(
            parts.bus.client,
            [Message(window_subject(0, leaf, "big"), large), Message(window_subject(0, leaf, "odd"), b"\xff{")],
            expect=None,
        )
        first = (await windows("counted"))[0]
        assert (first["key"], first["bytes"], first["whole"]) == ({"id": "big"}, 5_000_000, False)

        for path, status in (
            ("/api/automations/countd/windows", 404),
            ("/api/automations/a%2Fb%2E%2E/windows", 404),
            ("/api/automations/counted/windows?before=x", 400),
            ("/api/automations/counted/windows?key=x", 400),
            ("/api/automations/counted/windows?kay=x", 400),
            ("/api/automations/counted/windows?since=1h&until=2h", 400),
        ):
            answer = await client.get(path)
            assert answer.status_code == status, path
            assert answer.json()["error"]["message"]
