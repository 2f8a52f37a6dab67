"""The bus against a real server: acknowledged means stored, and a lost server never looks like success."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.conftest import NatsServer, eventually, publish_all
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.bus.streams import AUDIT, EVENTS, StreamSettings, check_server, ensure_streams, make_room
from whenthen.schemas.errors import BusUnavailable, InvalidEvent, SetupError
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio


def event(name: str = "order.created", **fields: object) -> Event:
    return new_event(name, resource={"id": "r"}, now=datetime.now(UTC), source="test", **fields)  # type: ignore[arg-type]


async def test_a_published_event_is_in_the_stream_at_the_acknowledged_position(bus: Bus) -> None:
    sent = event("a b.*.>..x")
    ack = await bus.publish(sent)
    assert not ack.duplicate
    found = await bus.event_at(ack.seq)
    assert found is not None
    assert found.data == sent.data
    assert await bus.event_at(ack.seq + 1) is None


async def test_the_same_event_again_is_recognised(bus: Bus) -> None:
    sent = event(id="delivery 1 ")
    first = await bus.publish(sent)
    again = await bus.publish(sent)
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert not (await bus.publish(event(id="delivery 1"))).duplicate


async def test_many_events_are_acknowledged_in_order(bus: Bus) -> None:
    acks = await publish_all(bus, (event() for _ in range(3000)))
    assert [ack.seq for ack in acks] == list(range(acks[0].seq, acks[0].seq + 3000))


async def test_an_event_that_the_server_would_not_take_is_refused_by_name(bus: Bus) -> None:
    with pytest.raises(InvalidEvent, match="8372224"):
        await bus.publish(event(payload="x" * 9_000_000))


async def test_publishing_while_the_server_is_killed_fails_or_is_stored_but_never_lies(
    bus: Bus, nats_server: NatsServer
) -> None:
    acked: list[tuple[int, str]] = []
    failed: list[BusUnavailable] = []
    stop = False

    async def producer() -> None:
        while not stop:
            sent = event()
            try:
                acked.append(((await bus.publish(sent)).seq, sent.id))
            except BusUnavailable as error:
                failed.append(error)
                await asyncio.sleep(0.01)

    producers = [asyncio.create_task(producer()) for _ in range(20)]
    for _ in range(3):
        before, failures = len(acked), len(failed)
        await eventually(lambda before=before: len(acked) > before + 500)  # type: ignore[misc]
        nats_server.kill()
        await eventually(lambda failures=failures: len(failed) > failures + 20)  # type: ignore[misc]
        assert not bus.connected
        nats_server.start()
        await eventually(lambda: bus.connected)
    stop = True
    await asyncio.gather(*producers)
    assert {error.reason for error in failed} <= {BusReason.DISCONNECTED, BusReason.NO_STREAM, BusReason.TIMEOUT}
    for seq, id in acked[:: max(1, len(acked) // 500)] + acked[-20:]:
        stored = await bus.event_at(seq)
        assert stored is not None
        assert stored.id == id


async def test_a_server_that_hangs_gives_an_error_within_the_time_limit(nats_server: NatsServer) -> None:
    bus = Bus(nats_server.url, publish_timeout_s=limit(0.5))
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    nats_server.freeze()
    with pytest.raises(BusUnavailable) as caught:
        await bus.publish(event())
    assert caught.value.reason == BusReason.TIMEOUT
    nats_server.unfreeze()
    await bus.publish(event())
    await bus.close()


async def test_a_connection_that_the_server_ends_for_good_is_told_and_not_taken_for_one_that_comes_back(
    bus: Bus,
) -> None:
    assert not bus.closed.is_set()
    bus.nc._transport.write(b"NONSENSE\r\n")  # type: ignore[union-attr]
    await asyncio.wait_for(bus.closed.wait(), limit(20))
    assert not bus.connected


async def test_who_waits_for_a_turn_goes_before_who_comes_later(nats_server: NatsServer) -> None:
    bus = Bus(nats_server.url, max_in_flight=1)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    acks: list[asyncio.Task[int]] = []

    async def send(then: int) -> int:
        seq = (await bus.publish(event())).seq
        if then:
            acks.append(asyncio.create_task(send(then - 1)))
        return seq

    waiting = [asyncio.create_task(send(5)) for _ in range(4)]
    assert [await task for task in waiting] == [1, 2, 3, 4]
    await eventually(lambda: len(acks) == 20)
    assert sorted([await task for task in acks]) == list(range(5, 25))
    await bus.close()


async def test_an_event_that_would_not_fit_beside_what_wraps_it_is_refused(bus: Bus) -> None:
    for size in (bus.nc.max_payload, bus.nc.max_payload - 2000):
        with pytest.raises(InvalidEvent, match="accepts at most"):
            await bus.publish(event(payload="x" * size))
    await bus.publish(event())


async def test_no_more_are_in_flight_than_allowed_and_everyone_gets_a_turn_beside_those_who_give_up(
    nats_server: NatsServer,
) -> None:
    bus = Bus(nats_server.url, max_in_flight=5)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    most = 0
    start = bus.client.start

    async def counted(*args: object, **options: object) -> object:
        nonlocal most
        most = max(most, sum(not waiting.future.done() for waiting in bus.client._waiting.values()) + 1)
        return await start(*args, **options)  # type: ignore[arg-type]

    bus.client.start = counted  # type: ignore[method-assign, assignment]
    sending = [asyncio.create_task(bus.publish(event())) for _ in range(300)]
    await asyncio.sleep(0)
    for task in sending[100:300:3]:
        task.cancel()
    done = await asyncio.gather(*sending, return_exceptions=True)
    assert most == 5
    assert sum(isinstance(ack, asyncio.CancelledError) for ack in done) == len(range(100, 300, 3))
    assert {ack.seq for ack in done if not isinstance(ack, BaseException)} == set(
        range(1, 301 - len(range(100, 300, 3)))
    )
    await bus.close()


async def test_a_full_stream_refuses_new_events_and_keeps_the_old_ones_until_room_is_made(
    nats_server: NatsServer,
) -> None:
    settings = StreamSettings(events_max_bytes=200_000)
    bus = Bus(nats_server.url)
    await bus.connect()
    await ensure_streams(bus.js, settings)
    first = await bus.publish(event())
    last = first

    async def fill() -> None:
        nonlocal last
        while True:
            last = await bus.publish(event(payload="x" * 5000))

    with pytest.raises(BusUnavailable) as caught:
        await fill()
    assert caught.value.reason == BusReason.FULL
    assert await bus.event_at(first.seq) is not None
    assert await make_room(bus.js, settings, read_up_to=0) == 0
    assert await make_room(bus.js, settings, read_up_to=last.seq) > 0
    assert await bus.event_at(last.seq) is not None
    await bus.publish(event(payload="x" * 5000))
    await bus.close()


async def test_streams_can_be_ensured_again_and_with_other_limits(bus: Bus) -> None:
    before = (await bus.js.stream_info(EVENTS)).config
    await ensure_streams(bus.js, StreamSettings())
    assert (await bus.js.stream_info(EVENTS)).config == before
    await ensure_streams(bus.js, StreamSettings(events_max_age=timedelta(days=1)))
    assert (await bus.js.stream_info(EVENTS)).config.max_age == 86400
    await check_server(bus.nc)


async def test_notes_of_one_kind_push_none_of_another_kind_out_of_the_audit_trail(bus: Bus) -> None:
    await ensure_streams(bus.js, StreamSettings(audit_max_notes=3))
    await bus.store("audit.rules-taken", b"{}", "taken")
    for number in range(10):
        await bus.store("audit.request-refused", b"{}", f"refused-{number}")
    info = await bus.js.stream_info(AUDIT, subjects_filter=">")
    assert info.state.subjects == {"audit.rules-taken": 1, "audit.request-refused": 3}


async def test_a_server_without_jetstream_is_refused_by_name(tmp_path: object) -> None:
    server = NatsServer(tmp_path / "bare", jetstream=False)  # type: ignore[operator]
    server.start()
    bus = Bus(server.url)
    await bus.connect()
    with pytest.raises(SetupError, match="JetStream"):
        await check_server(bus.nc)
    await bus.close()
    server.stop()


async def test_no_server_at_all_is_a_setup_error_that_names_the_address() -> None:
    bus = Bus("nats://127.0.0.1:9")
    with pytest.raises(SetupError, match=r"127\.0\.0\.1:9"):
        await bus.connect(timeout_s=0.5)
