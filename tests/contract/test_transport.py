"""How messages go over a connection, twice: by our own reading of the protocol, and by nats-py's public API alone.

Both on a real server: messages both ways, large ones, their order, statuses, and what a reconnection and a drain do to a
subscription. In the end the whole engine runs on either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import nats.errors
import orjson
import pytest

from tests.integration.conftest import NatsServer, eventually
from tests.patience import limit
from whenthen.engine.bus import protocol
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery, Meaning, NatsProtocol, encode_headers, read_status
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.engine.bus.transport import PublicProtocol
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import Settings
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import new_event

pytestmark = pytest.mark.anyio


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=[NatsProtocol, PublicProtocol])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Which of the two; for the second nats-py seems to lack a name that the first one needs."""
    if request.param is PublicProtocol:
        monkeypatch.setattr(protocol, "NEEDED", (*protocol.NEEDED, "_renamed"))
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def bus(kind: type, nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(nats_server.url)
    await bus.connect()
    assert type(bus.protocol) is kind
    await ensure_streams(bus.js, StreamSettings())
    yield bus
    await bus.close()


async def settled(bus: Bus) -> None:
    """Everything that was subscribed and sent before is with the server. (The ping of `Client.flush` overtakes it.)"""
    await bus.client.api("INFO")


async def test_messages_come_as_they_were_sent_in_order_and_of_any_size(bus: Bus) -> None:
    came: list[Delivery] = []
    await bus.protocol.subscribe("here.>", lambda *parts: came.append(Delivery(*parts)))
    sent = [b"", b"x\r\nMSG here 1 3\r\nabc", bytes(range(256)), b"y" * (5 << 20), b"last"]
    for number, data in enumerate(sent):
        head = encode_headers({"Number": str(number)}) if number % 2 else b""
        bus.protocol.send(f"here.{number}", data, reply=f"to.{number}", head=head)
    await eventually(lambda: len(came) == len(sent))
    assert [message.data for message in came] == sent
    assert [message.subject for message in came] == [f"here.{number}" for number in range(5)]
    assert [message.reply for message in came] == [f"to.{number}" for number in range(5)]
    assert [message.headers for message in came] == [{}, {"Number": "1"}, {}, {"Number": "3"}, {}]


async def test_messages_of_nats_py_and_ours_share_a_connection(bus: Bus) -> None:
    theirs: list[bytes] = []
    ours: list[bytes] = []

    async def receive(message: object) -> None:
        theirs.append(message.data)  # type: ignore[attr-defined]

    await bus.nc.subscribe("both", cb=receive)
    await bus.protocol.subscribe("both", lambda subject, reply, head, data: ours.append(data))
    for number in range(100):
        bus.protocol.send("both", b"%d" % number)
        await bus.nc.publish("both", b"n%d" % number)
    await eventually(lambda: len(ours) == len(theirs) == 200)
    assert sorted(ours) == sorted(theirs)
    assert [data for data in ours if data[:1] != b"n"] == [b"%d" % number for number in range(100)]


async def test_a_subscription_goes_on_after_the_server_was_killed(bus: Bus, nats_server: NatsServer) -> None:
    came: list[bytes] = []
    await bus.protocol.subscribe("here", lambda subject, reply, head, data: came.append(data))
    bus.protocol.send("here", b"1")
    await eventually(lambda: came == [b"1"])
    nats_server.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(nats.errors.ConnectionClosedError):
        bus.protocol.send("here", b"2")
    nats_server.start()
    await eventually(lambda: bus.connected)
    bus.protocol.send("here", b"3")
    await eventually(lambda: came == [b"1", b"3"])


async def test_nothing_comes_after_a_subscription_is_ended(bus: Bus) -> None:
    came: list[bytes] = []
    sub = await bus.protocol.subscribe("here", lambda subject, reply, head, data: came.append(data))
    await bus.protocol.unsubscribe(sub)
    bus.protocol.send("here", b"1")
    await settled(bus)
    assert came == []


async def test_a_message_above_the_servers_limit_is_refused_and_the_connection_stays(bus: Bus) -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        bus.protocol.send("here", b"x" * (bus.nc.max_payload + 1))
    await settled(bus)
    assert bus.connected


async def test_headers_count_for_the_servers_limit_which_would_end_the_connection(bus: Bus) -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        bus.protocol.send("here", b"x" * (bus.nc.max_payload - 10), head=encode_headers({"Name": "value"}))
    await settled(bus)
    assert bus.connected


async def test_subscriptions_that_end_while_the_connection_is_away_do_not_come_back(
    bus: Bus, nats_server: NatsServer
) -> None:
    kept = len(bus.nc._subs)
    sub = await bus.protocol.subscribe("here", lambda *_: None)
    nats_server.kill()
    await eventually(lambda: not bus.connected)
    await bus.protocol.unsubscribe(sub)
    with pytest.raises(Exception, match="no connection"):
        await bus.client.stream_of("nobody", b"", lambda _: True)
    nats_server.start()
    await eventually(lambda: bus.connected)
    assert len(bus.nc._subs) == kept


async def test_answers_find_their_requests_and_late_ones_nobody(bus: Bus) -> None:
    async def echo(message: object) -> None:
        data: bytes = message.data  # type: ignore[attr-defined]
        if data != b"never":
            await bus.nc.publish(message.reply, data)  # type: ignore[attr-defined]

    await bus.nc.subscribe("echo", cb=echo)
    sent = [b"%d" % number for number in range(500)]
    answers = await asyncio.gather(*(bus.client.request("echo", data) for data in sent))
    assert [answer.data for answer in answers] == sent
    with pytest.raises(Exception, match="did not answer within"):
        await bus.client.request("echo", b"never", timeout_s=0.1)
    given_up = asyncio.create_task(bus.client.request("echo", b"never"))
    await asyncio.sleep(0)
    given_up.cancel()
    await eventually(lambda: not bus.client._waiting)


async def test_stored_messages_that_nobody_can_give_are_an_error_and_not_an_empty_stream(bus: Bus) -> None:
    for number in range(3):
        await bus.store(f"events.e{number}", b"%d" % number)
    came: list[bytes] = []
    request = {"seq": 1, "next_by_subj": "events.>", "batch": 2}
    assert await bus.client.read_stored("EVENTS", request, lambda message: came.append(message.data))
    assert not await bus.client.read_stored("EVENTS", {**request, "seq": 3}, lambda message: came.append(message.data))
    assert not await bus.client.read_stored("EVENTS", {**request, "seq": 9}, lambda message: came.append(message.data))
    assert came == [b"0", b"1", b"2"]
    with pytest.raises(BusUnavailable, match="NOWHERE can not be read") as caught:
        await bus.client.read_stored("NOWHERE", request, lambda message: came.append(message.data))
    assert caught.value.reason == BusReason.NO_STREAM


async def test_stored_messages_are_read_from_a_server_that_leaves_requests_unanswered_at_first(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await bus.store(f"events.e{number}", b"%d" % number)
    asked = 0
    api = bus.client.api

    async def busy(subject: str, body: object = None, *, timeout_s: float = 5.0) -> dict[str, object]:
        nonlocal asked
        asked += subject.startswith("CONSUMER.CREATE.")
        if asked <= 3 and subject.startswith("CONSUMER."):
            raise unavailable("NATS did not answer", BusReason.TIMEOUT)
        return await api(subject, body, timeout_s=timeout_s)

    monkeypatch.setattr(bus.client, "api", busy)
    found = [message.data async for message in stored_messages(bus.client, "EVENTS", {"filter_subject": "events.>"})]
    assert found == [b"0", b"1", b"2"]
    assert asked == 4


async def test_messages_that_expire_while_they_are_read_are_not_waited_for(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    ack = await bus.store("engine.firing.a.f", b"gone soon")
    api = bus.client.api

    async def expiring(subject: str, body: object = None, *, timeout_s: float = 5.0) -> dict[str, object]:
        answer = await api(subject, body, timeout_s=timeout_s)
        if subject.startswith("CONSUMER.CREATE.") and "error" not in answer:
            assert answer["num_pending"] == 1
            await api("STREAM.MSG.DELETE.ENGINE", {"seq": ack.seq})
        return answer

    monkeypatch.setattr(bus.client, "api", expiring)
    assert [
        message async for message in stored_messages(bus.client, "ENGINE", {"filter_subject": "engine.firing.>"})
    ] == []


async def test_what_is_sent_comes_in_the_order_of_sending_whoever_sends(bus: Bus) -> None:
    came: list[bytes] = []
    await bus.protocol.subscribe("here", lambda subject, reply, head, data: came.append(data))

    async def sender(name: int) -> None:
        for number in range(200):
            bus.protocol.send("here", b"%d %d" % (name, number), head=encode_headers({"N": str(number)}))
            if number % 7 == name:
                await asyncio.sleep(0)

    await asyncio.gather(*(sender(name) for name in range(5)))
    await eventually(lambda: len(came) == 1000)
    for name in range(5):
        assert [data for data in came if data[:1] == b"%d" % name] == [b"%d %d" % (name, n) for n in range(200)]


async def test_what_was_sent_before_the_bus_is_closed_arrives(bus: Bus, nats_server: NatsServer) -> None:
    other = Bus(nats_server.url)
    await other.connect()
    came: list[bytes] = []
    await bus.protocol.subscribe("here", lambda subject, reply, head, data: came.append(data))
    await settled(bus)
    for number in range(100):
        other.protocol.send("here", b"%d" % number)
    await other.close()
    await eventually(lambda: len(came) == 100)


async def test_a_drained_subscription_has_given_everything_that_was_sent_before(bus: Bus) -> None:
    came: list[bytes] = []
    sub = await bus.protocol.subscribe("here", lambda subject, reply, head, data: came.append(data))
    for number in range(500):
        bus.protocol.send("here", b"%d" % number)
    await settled(bus)
    await bus.protocol.drain(sub)
    assert len(came) == 500
    bus.protocol.send("here", b"late")
    await settled(bus)
    assert len(came) == 500


async def test_a_receiver_that_fails_gets_the_next_message_all_the_same(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    came: list[bytes] = []

    def receive(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        came.append(data)
        raise ValueError(data)

    await bus.protocol.subscribe("here", receive)
    bus.protocol.send("here", b"1")
    bus.protocol.send("here", b"2")
    await eventually(lambda: len(came) == 2)
    assert [record.message for record in caplog.records] == ["a message on here was not handled"] * 2


async def test_a_subject_that_nobody_serves_is_answered_by_its_status(bus: Bus) -> None:
    came: list[Delivery] = []
    inbox = bus.nc.new_inbox()
    await bus.protocol.subscribe(inbox, lambda *parts: came.append(Delivery(*parts)))
    bus.protocol.send("nobody", b"x", reply=inbox)
    await eventually(lambda: came)
    assert (came[0].headers["Status"], came[0].data) == ("503", b"")
    with pytest.raises(BusUnavailable) as caught:
        await bus.client.request("nobody", b"x")
    assert caught.value.reason == BusReason.NO_STREAM


async def test_statuses_of_pull_requests_come_with_their_numbers(bus: Bus) -> None:
    config = {"durable_name": "c", "ack_policy": "none"}
    await bus.client.api("CONSUMER.CREATE.EVENTS.c", {"stream_name": "EVENTS", "config": config})
    heads: list[bytes] = []
    inbox = bus.nc.new_inbox()
    await bus.protocol.subscribe(inbox, lambda subject, reply, head, data: heads.append(head))

    async def pull(**request: object) -> tuple[int, int | None, Meaning]:
        heads.clear()
        bus.protocol.send("$JS.API.CONSUMER.MSG.NEXT.EVENTS.c", orjson.dumps(request), reply=inbox)
        await eventually(lambda: heads)
        status = read_status(heads[0])
        assert status is not None
        return status.code, status.left, status.meaning

    second = 1_000_000_000
    assert (await pull(batch=3, no_wait=True))[0] == 404
    assert await pull(batch=3, expires=second // 20) == (408, 3, Meaning.ENDED)
    assert (await pull(batch=3, idle_heartbeat=second))[0] == 400
    beat = await pull(batch=3, expires=second, idle_heartbeat=second // 10)
    assert beat == (100, None, Meaning.ALIVE)
    await eventually(lambda: any(b" 408 " in head for head in heads))
    await bus.client.api("CONSUMER.DELETE.EVENTS.c")
    assert await pull(batch=1) == (503, None, Meaning.GONE)


RULES = """
deployments:
  - {name: greet, command: "true"}
automations:
  - name: begin
    trigger: {expect: order.created}
    actions: [{run-deployment: greet}]
  - name: end
    trigger: {expect: flow-run.Completed}
    actions: [{emit-event: order.done}]
"""


async def test_the_whole_engine_runs_on_it(
    kind: type, nats_server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An event starts a run, a worker performs it, its states become events, and one of them makes the last event."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = Settings(nats_url=nats_server.url, data_dir=tmp_path / "data", port=0)
    caplog.set_level(logging.WARNING)
    async with Server(settings, rules) as server:
        assert type(server.bus.protocol) is kind
        for number in range(20):
            event = new_event("order.created", resource={"id": f"o{number}"}, now=datetime.now(UTC), source="test")
            await server.bus.publish(event)

        async def done() -> int:
            info = await server.bus.js.stream_info("EVENTS", subjects_filter="events.order.done")
            return (info.state.subjects or {}).get("events.order.done", 0)

        async with asyncio.timeout(limit(60)):
            while await done() < 20:
                await asyncio.sleep(0.05)
        assert await done() == 20
    warned = [record.message for record in caplog.records if "public API" in record.message]
    assert len(warned) == (kind is PublicProtocol)
