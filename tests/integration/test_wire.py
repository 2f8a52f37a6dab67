"""The wire on a real server: messages both ways, large ones, and what a reconnection and a drain do to a subscription."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest

from tests.integration.conftest import NatsServer, eventually
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery, encode_headers
from whenthen.engine.bus.request_client import BusReason
from whenthen.schemas.errors import BusUnavailable

pytestmark = pytest.mark.anyio


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


async def test_messages_of_nats_py_and_of_the_wire_share_a_connection(bus: Bus) -> None:
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
    await bus.nc.flush()
    assert came == []


async def test_a_message_above_the_servers_limit_is_refused_and_the_connection_stays(bus: Bus) -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        bus.protocol.send("here", b"x" * (bus.nc.max_payload + 1))
    await bus.nc.flush()
    assert bus.connected


async def test_headers_count_for_the_servers_limit_which_would_end_the_connection(bus: Bus) -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        bus.protocol.send("here", b"x" * (bus.nc.max_payload - 10), head=encode_headers({"Name": "value"}))
    await bus.nc.flush()
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
    await eventually(lambda: bus.client.in_flight == 0)


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
