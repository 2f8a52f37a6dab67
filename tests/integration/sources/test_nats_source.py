"""Subjects and streams of another NATS server as sources: what was acknowledged there is stored here, whoever is killed."""

from __future__ import annotations

from pathlib import Path

import nats
import orjson
import pytest
from nats.js.api import StreamSource

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


OWN = [
    "stream: EVENTS", "stream: ENGINE", "stream: DECISIONS", "stream: AUDIT", "stream: SENDERS", "stream: RUNS", "stream: LOGS",
    "stream: KV_WT_state", "stream: COPY", "stream: GATHERED", "subject: 'senders.>'", "subject: '*.orders'", "subject: '$KV.>'",
    "subject: '$KV.WT_sources.>'",
]  # fmt: skip
OTHERS = ["stream: ORDERS", "stream: KV_theirs", "subject: '$KV.theirs.>'", "subject: 'orders.>'"]


async def test_what_the_engine_itself_keeps_is_not_read(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.create_key_value(bucket="theirs")
    await js.add_stream(name="COPY", mirror=StreamSource(name="DECISIONS"))
    await js.add_stream(name="GATHERED", sources=[StreamSource(name="ORDERS"), StreamSource(name="ENGINE")])
    await theirs.close()
    text = "sources:\n" + "".join(
        f"  - {{name: s{number}, read: {{type: nats, url: '{nats_server.url}', {read}}}, {MAP}}}\n"
        for number, read in enumerate([*OWN, *OTHERS])
    )
    async with reading(tmp_path, text, nats_url=nats_server.url) as server:
        seen: dict[str, tuple[str, bool]] = {}
        wanted = {f"s{number}": ("trouble", True) for number in range(len(OWN))}
        wanted |= {f"s{len(OWN) + number}": ("reading", False) for number in range(len(OTHERS))}

        async def all_said() -> bool:
            watches = server.server._running._sources.watches  # type: ignore[union-attr]
            remedy = "write an automation for its events"
            seen.update({name: (watch.state, watch.detail.endswith(remedy)) for name, watch in watches.items()})
            return seen == wanted

        await until(all_said, within_s=60, what=f"{wanted}")


async def test_a_user_who_may_read_its_own_subjects_alone_is_not_asked_for_more(tmp_path: Path) -> None:
    users = """authorization { users: [
        { user: gauges, password: x, permissions: { publish: ["gauges.*"], subscribe: ["gauges.*", "_INBOX.>"] } }
    ] }"""
    server = NatsServer(tmp_path / "theirs", extra=users)
    server.start()
    try:
        url = f"nats://gauges:x@127.0.0.1:{server.port}"
        text = f"sources:\n  - {{name: orders, read: {{type: nats, url: '{url}', subject: 'gauges.*'}}, {MAP}}}\n"
        async with reading(tmp_path, text) as here:
            await is_read(here)
            theirs = await nats.connect(url)
            await theirs.publish("gauges.one", b'{"n": 1}')
            await theirs.flush()
            await here.come(1)
            await theirs.close()
    finally:
        server.stop()
