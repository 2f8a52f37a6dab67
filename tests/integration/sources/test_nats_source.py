"""Subjects and streams of another NATS server as sources: what was acknowledged there is stored here, whoever is killed."""

from __future__ import annotations

from pathlib import Path

import nats
import orjson
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.sources.reading import Reading, reading
from tests.patience import until

pytestmark = pytest.mark.anyio

MAP = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}", from: $.message.subject}}'


def rules(server: NatsServer, read: str, mapping: str = MAP) -> str:
    return f"sources:\n  - {{name: orders, read: {{type: nats, url: '{server.url}', {read}}}, {mapping}}}\n"


async def is_read(server: Reading) -> None:
    async def reads() -> bool:
        return await server.metric('whenthen_source_reading{source="orders"}') == 1.0

    await until(reads, within_s=40)


async def test_a_stream_is_read_over_restarts_of_both_sides_and_a_poison_message_is_set_aside(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    for number in range(50):
        await js.publish("orders.new", orjson.dumps({"n": number}))
    text = rules(nats_server, "stream: ORDERS, existing: report")
    async with reading(tmp_path, text) as server:
        events = await server.come(50)
        assert events[0]["resource"] == {"id": "order.0", "from": "orders.new"}
        assert events[0]["id"].startswith("source:orders/ORDERS/")
        await js.publish("orders.new", b"no JSON at all")
        await js.publish("orders.new", b'{"n": 50}')
        await server.come(51)
        assert (
            await server.metric('whenthen_events_refused_total{reason="invalid_json",source="source:orders"}')
        ) == 1.0

        async def all_acknowledged() -> bool:
            info = await js.consumer_info("ORDERS", "whenthen-orders")
            return info.num_pending == 0 and info.num_ack_pending == 0

        await until(all_acknowledged)
        await theirs.close()
        nats_server.kill()
        nats_server.start()
        theirs = await nats.connect(nats_server.url)
        js = theirs.jetstream()
        await js.publish("orders.new", b'{"n": 51}')
        await server.come(52, within_s=60)
    await js.publish("orders.new", b'{"n": 52}')
    async with reading(tmp_path, text) as server:
        events = await server.come(53)
        assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(53))
    await theirs.close()


async def test_a_subject_is_read_and_a_cloudevent_needs_no_mapping(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    async with reading(tmp_path, rules(nats_server, "subject: 'orders.*'", "map: null")) as server:
        await is_read(server)
        event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed", "data": {"n": 1}}
        await theirs.publish("orders.new", orjson.dumps(event))
        await theirs.publish("orders.new", b'{"event": "own", "resource": {"id": "one"}}')
        events = await server.come(2)
        assert (events[0]["event"], events[0]["id"][:6]) == ("order.placed", "/shop#")
        assert events[1]["event"] == "own"
    await theirs.close()


async def test_the_stream_of_the_engine_itself_is_not_read(tmp_path: Path, nats_server: NatsServer) -> None:
    text = rules(nats_server, "stream: EVENTS")
    async with reading(tmp_path, text, nats_url=nats_server.url) as server:

        async def said() -> bool:
            return any(
                watch.detail.endswith("write an automation for its events")
                for watch in server.server._running._sources.watches.values()  # type: ignore[union-attr]
            )

        await until(said)
