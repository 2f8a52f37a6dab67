"""Messages that fit no event: done with at their broker, kept whole, listed without what they hold, and sent again once the mapping is mended."""

from __future__ import annotations

import json
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext

from tests.integration.conftest import NatsServer
from tests.integration.sources.reading import reading
from tests.patience import until

pytestmark = pytest.mark.anyio


def rules(server: NatsServer, number: str) -> str:
    return f"""
sources:
  - name: orders
    read: {{type: nats, url: "{server.url}", stream: ORDERS, existing: report}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.{number} }}}}"}}, payload: $.body}}
  - name: other
    read: {{type: nats, url: "{server.url}", subject: "other.*"}}
"""


async def all_acknowledged(js: JetStreamContext, count: int) -> None:
    async def acknowledged() -> bool:
        info = await js.consumer_info("ORDERS", "whenthen-orders")
        return info.ack_floor is not None and info.ack_floor.stream_seq == count and not info.num_ack_pending

    await until(acknowledged)


async def test_poison_is_kept_aside_and_sent_again_when_the_mapping_is_mended(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    bodies: list[bytes] = [
        b'{"number": 1, "card": "4111-secret"}',
        b"\xff\xfe not text",
        b"{",
        b'{"nmber": 2, "number": 2}',
    ]
    for number, body in enumerate(bodies):
        await js.publish("orders.new", body, headers={"X-Number": str(number)})
    async with reading(tmp_path, rules(nats_server, "nmber")) as server:
        (event,) = await server.come(1)
        assert event["resource"]["id"] == "order.2"
        kept = await server.aside(3)
        assert {each["source"] for each in kept} == {"source:orders"}
        by_reason = {each["reason"]: each for each in kept}
        assert by_reason["invalid_input"]["field"] == "map.resource.id"
        assert by_reason["invalid_input"]["shape"] == "{number: number, card: text of 11}"
        assert sorted(each["shape"] for each in kept if each["reason"] == "invalid_json") == [
            "no JSON: text of 1",
            f"no text: {len(bodies[1])} bytes",
        ]
        assert all(each["whole"] and each["at"] and each["detail"] for each in kept)
        assert "4111-secret" not in json.dumps(kept)
        await all_acknowledged(js, 4)

        async def told() -> bool:  # processes say how their sources do from time to time
            found = await server.source("orders")
            return (found["state"], found["refused"]) == ("reading", {"invalid_input": 1, "invalid_json": 2})

        await until(told)
        again = await server.resend()
        assert (again["sent"], len(again["refused"]), again["next"]) == (0, 3, None)
    async with reading(tmp_path, rules(nats_server, "number")) as server:
        assert await server.resend(source="other") == {"sent": 0, "events": [], "refused": [], "next": None}
        report = await server.resend(source="source:orders")
        assert (report["sent"], len(report["refused"])) == (1, 2)
        events = await server.come(2)
        mended = next(each for each in events if each["resource"]["id"] == "order.1")
        assert mended["payload"]["card"] == "4111-secret"
        assert report["events"] == [mended["id"]] == ["source:orders/ORDERS/1"]
        assert len(await server.aside(2)) == 2
        (audited,) = (await server.client.get("/api/audit", params={"kind": "requests-resent", "limit": 1})).json()
        assert audited["detail"] == "1 sent"
    await theirs.close()


async def test_message_that_is_too_large_to_be_kept_is_listed_without_what_it_holds(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    large = json.dumps({"filler": "x" * 7_000_000}).encode()
    await js.publish("orders.new", large)
    await js.publish("orders.new", b'{"number": 5}')
    async with reading(tmp_path, rules(nats_server, "number"), nats_url=nats_server.url) as server:
        await server.come(1)
        (kept,) = await server.aside()
        assert (kept["whole"], kept["bytes"], kept["shape"]) == (False, 0, "")
        await all_acknowledged(js, 2)
        (refused,) = (await server.resend())["refused"]
        assert refused["detail"] == "its body was too large to be kept; have its sender repeat it"
    await theirs.close()


async def test_file_that_fits_no_event_is_reported_to_nobody_again(tmp_path: Path) -> None:
    drops = tmp_path / "drops"
    drops.mkdir()
    text = f"""
sources:
  - name: drops
    read: {{type: folder, path: {drops}, stable: 0s, existing: report}}
    map: {{event: file.came, resource: {{id: "{{{{ body.FIELD }}}}"}}}}
"""
    (drops / "a.csv").write_text("1")
    async with reading(tmp_path, text.replace("FIELD", "nobody")) as server:
        (kept,) = await server.aside()
        assert (kept["field"], kept["source"]) == ("map.resource.id", "source:drops")
    (drops / "b.csv").write_text("1")
    async with reading(tmp_path, text.replace("FIELD", "path")) as server:
        await server.come(1)
        assert (await server.resend())["sent"] == 1
        events = await server.come(2)
        assert sorted(each["resource"]["id"] for each in events) == ["a.csv", "b.csv"]


async def test_message_of_a_source_that_left_the_rules_stays(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.publish("orders.new", b"{}")
    async with reading(tmp_path, rules(nats_server, "number")) as server:
        await server.aside()
    async with reading(tmp_path, "sources: []") as server:
        (refused,) = (await server.resend())["refused"]
        assert refused["detail"] == "no source is named 'orders' any more"
    await theirs.close()
