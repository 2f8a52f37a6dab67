"""Small commits, which are one message and its changes after it: interrupted anywhere, by whatever, they come out whole."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from nats.aio.msg import Msg

from tests.chaos.oracle import read_stream
from tests.integration.conftest import NatsServer, eventually
from tests.integration.counting import CountingEvaluator
from tests.patience import limit
from whenthen.cancellation import end_task
from whenthen.engine.bus.batches import EXPECT_OF, StaleBatch, publish_batch, publish_fenced
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Message, encode_firing, encode_task, encode_window
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import action_subject, firing_prefix, offset_subject, window_subject
from whenthen.engine.evaluation import nats_log
from whenthen.engine.evaluation.commits.commit import SMALL_BYTES, SMALL_MESSAGES, FencedShardLog
from whenthen.engine.evaluation.commits.fenced_offset import read_offset
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.nats_log import NatsEngineStore, nats_shard_loop
from whenthen.engine.execution.executor import ExecutionSettings, Executor
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import new_event
from whenthen.schemas.firings import ActionTask, Firing, FiringState

pytestmark = pytest.mark.anyio

MESSAGES = 5  #: of `changes`
Start = Callable[..., Awaitable["asyncio.Future[Msg]"]]


@pytest.fixture
async def other(bus: Bus, nats_server: NatsServer) -> AsyncIterator[Bus]:
    """The connection of another process."""
    other = Bus(nats_server.url)
    await other.connect()
    yield other
    await other.close()


def window(key: str, state: bytes = b"s") -> Message:
    return Message(window_subject(0, "t", key), encode_window("t", key, state), 0 if state else 3600)


def changes(round: int) -> list[Message]:
    """Two windows that change, one that is forgotten, a firing and its task."""
    value = str(round).encode()
    firing = Firing(
        id=f"f{round}",
        automation="a",
        state=FiringState.TRIGGERED,
        at="2026-01-01T00:00:00Z",
        key={},
        event=None,
        seq=0,
    )
    encoded = encode_firing(firing, None)
    return [
        window("one", value),
        window(f"gone-{round}", value),
        window(f"gone-{round - 1}", b""),
        Message(firing_prefix("a") + firing.id, orjson.dumps(encoded), 3600),
        Message(action_subject("a", firing.id, 0), encode_task(firing, encoded, 0, "do-nothing", "d"), 3600),
    ]


async def loaded(bus: Bus) -> tuple[FencedShardLog, dict[str, bytes]]:
    log = FencedShardLog(NatsEngineStore(bus.client), 0)
    windows: dict[str, bytes] = {}
    await log.load(lambda trigger, key, state: windows.__setitem__(key, state))
    return log, {key: state for key, state in windows.items() if state}


async def answering(bus: Bus) -> None:
    """The connection works again after a kill."""
    async with asyncio.timeout(limit(20)):
        while True:
            try:
                await read_offset(NatsEngineStore(bus.client), 0)
                return
            except BusUnavailable:
                await asyncio.sleep(0.02)


async def stored(bus: Bus) -> dict[str, bytes]:
    """Everything in `ENGINE` but offsets."""
    found = {message.subject: message.data async for message in read_stream(bus, ENGINE, "engine.>")}
    return {subject: data for subject, data in found.items() if not subject.endswith(".offset")}


def uninterrupted(*rounds: int) -> dict[str, bytes]:
    return {message.subject: message.data for number in rounds for message in changes(number)}


def interrupt(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, at: int, by: Callable[[Start, tuple[Any, ...]], Awaitable[Any]]
) -> None:
    """Let `by` send the change with the index `at`, once."""
    original = bus.client.start
    sent = 0

    async def start(subject: str, data: bytes, head: bytes = b"", *, timeout_s: float = 5.0) -> Any:
        nonlocal sent
        if EXPECT_OF.encode() in head:
            sent += 1
            if sent == at + 1:
                return await by(original, (subject, data, head))
        return await original(subject, data, head, timeout_s=timeout_s)

    monkeypatch.setattr(bus.client, "start", start)


async def test_a_plain_message_is_refused_when_the_offset_it_expects_is_not_the_last_one(bus: Bus) -> None:
    subject = offset_subject(0)
    first = await publish_batch(bus.client, [Message(subject, b"1")], expect=0)
    await publish_fenced(bus.client, changes(1), subject=subject, expect=first)
    assert await stored(bus) == uninterrupted(1)
    await publish_batch(bus.client, [Message(subject, b"2")], expect=first)
    with pytest.raises(StaleBatch):
        await publish_fenced(bus.client, changes(2), subject=subject, expect=first)
    assert await stored(bus) == uninterrupted(1)


async def test_a_small_commit_is_one_message_and_then_its_changes(bus: Bus) -> None:
    log, _ = await loaded(bus)
    before = log.offset.revision
    offset = await log.commit(changes(1), seq=1, clock_us=10)
    assert offset.revision == before + 1
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == before + 1 + MESSAGES
    message = await bus.js.get_last_msg(ENGINE, offset_subject(0))
    assert message.data is not None
    assert orjson.loads(message.data.split(b"\n")[0])[1]["seq"] == 1, "the position reads as JSON on the command line"
    assert await read_offset(NatsEngineStore(bus.client), 0) == offset
    assert await stored(bus) == uninterrupted(1)
    assert log.carries_changes
    await log.commit([], seq=2, clock_us=10)
    assert not log.carries_changes


@pytest.mark.parametrize(
    ("amount", "size", "small"),
    [(SMALL_MESSAGES, 1, True), (SMALL_MESSAGES + 1, 1, False), (1, SMALL_BYTES - 100, True), (2, SMALL_BYTES, False)],
)
async def test_larger_commits_are_batches(bus: Bus, amount: int, size: int, small: bool) -> None:
    log, _ = await loaded(bus)
    messages = [window(str(number), b"s" * size) for number in range(amount)]
    offset = await log.commit(messages, seq=1, clock_us=1)
    assert bool(offset.packed) == small
    assert await stored(bus) == {message.subject: message.data for message in messages}


@pytest.mark.parametrize("index", range(MESSAGES))
async def test_an_evaluator_that_dies_at_any_change_leaves_nothing_undone(
    bus: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    async def die(start: Start, message: tuple[Any, ...]) -> None:
        raise asyncio.CancelledError

    log, _ = await loaded(bus)
    await log.commit(changes(1), seq=1, clock_us=1)
    interrupt(bus, monkeypatch, index, die)
    with pytest.raises(asyncio.CancelledError):
        await log.commit(changes(2), seq=2, clock_us=2)
    again, windows = await loaded(other)
    assert await stored(other) == uninterrupted(1, 2)
    assert windows == {"one": b"2", "gone-2": b"2"}
    assert (again.offset.seq, again.carries_changes) == (2, False)
    last = (await other.js.stream_info(ENGINE)).state.last_seq
    await loaded(other)
    assert (await other.js.stream_info(ENGINE)).state.last_seq == last + 1, "nothing was applied a second time"


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("index", range(MESSAGES))
async def test_a_server_that_is_killed_at_any_change_leaves_nothing_undone(
    bus: Bus,
    other: Bus,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    both: bool,
    sent: bool,
) -> None:
    """Before the change is sent, or after; with the evaluator, or without it."""

    async def kill(start: Start, message: tuple[Any, ...]) -> Any:
        future = await start(*message) if sent else None
        nats_server.kill()
        nats_server.start()
        if both:
            raise asyncio.CancelledError
        return future or await start(*message)

    log, _ = await loaded(bus)
    await log.commit(changes(1), seq=1, clock_us=1)
    with monkeypatch.context() as patch:
        interrupt(bus, patch, index, kill)
        if both:
            with pytest.raises(asyncio.CancelledError):
                await log.commit(changes(2), seq=2, clock_us=2)
        else:
            await log.commit(changes(2), seq=2, clock_us=2)
            assert log.stored == 2
            await answering(other)
            assert await stored(other) == uninterrupted(1, 2)
    await answering(other)
    again, windows = await loaded(other)
    assert await stored(other) == uninterrupted(1, 2)
    assert windows == {"one": b"2", "gone-2": b"2"}
    assert again.offset.seq == 2


@pytest.mark.parametrize("index", range(MESSAGES))
async def test_an_evaluator_that_wakes_up_between_its_changes_overwrites_nothing(
    bus: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """While it sleeps another one takes over and goes on: once with a small commit, once with a batch."""
    taken: list[int] = []

    async def sleep(start: Start, message: tuple[Any, ...]) -> Any:
        new, windows = await loaded(other)
        assert windows == {"one": b"1", "gone-1": b"1"}
        await new.commit(changes(2), seq=2, clock_us=2)
        await new.commit([*changes(3), *(window(f"w{number}") for number in range(50))], seq=3, clock_us=3)
        taken.append((await other.js.stream_info(ENGINE)).state.last_seq)
        return await start(*message)

    log, _ = await loaded(bus)
    interrupt(bus, monkeypatch, index, sleep)
    with pytest.raises(Fenced):
        await log.commit(changes(1), seq=1, clock_us=1)
    with pytest.raises(Fenced):
        await log.commit(changes(7), seq=7, clock_us=7)
    assert [(await bus.js.stream_info(ENGINE)).state.last_seq] == taken
    more = {message.subject: message.data for message in (window(f"w{number}") for number in range(50))}
    assert await stored(bus) == uninterrupted(1, 2, 3) | more


@pytest.mark.parametrize("index", range(MESSAGES))
async def test_changes_whose_acknowledgement_was_lost_are_finished(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    async def deaf(start: Start, message: tuple[Any, ...]) -> Any:
        answered = await start(*message)
        lost: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        await answered
        lost.set_exception(unavailable("the answer was lost", BusReason.TIMEOUT))
        return lost

    log, _ = await loaded(bus)
    interrupt(bus, monkeypatch, index, deaf)
    await log.commit(changes(1), seq=1, clock_us=1)
    await log.commit(changes(2), seq=2, clock_us=2)
    assert await stored(bus) == uninterrupted(1, 2)
    assert (await loaded(bus))[1] == {"one": b"2", "gone-2": b"2"}


async def test_a_change_that_comes_through_late_is_refused(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[Any, ...]] = []

    async def hold(start: Start, message: tuple[Any, ...]) -> Any:
        held.append(message)
        raise unavailable("it lies in a buffer", BusReason.DISCONNECTED)

    log, _ = await loaded(bus)
    interrupt(bus, monkeypatch, MESSAGES - 1, hold)
    await log.commit(changes(1), seq=1, clock_us=1)
    last = (await bus.js.stream_info(ENGINE)).state.last_seq
    answer = await bus.client.request(*held[0])
    assert b"10071" in answer.data
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == last


async def test_a_refusal_that_is_no_takeover_is_no_fence_and_batches_follow(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    async def busy(*args: Any, **kwargs: Any) -> None:
        if len(refused) < 3:
            refused.append(1)
            raise StaleBatch("last sequence by subject mismatch")
        await publish_fenced(*args, **kwargs)

    log, _ = await loaded(bus)
    monkeypatch.setattr(nats_log, "publish_fenced", busy)
    await log.commit(changes(1), seq=1, clock_us=1)
    assert len(refused) == 3
    assert await stored(bus) == uninterrupted(1)
    offset = await log.commit(changes(2), seq=2, clock_us=2)
    assert not offset.packed
    assert await stored(bus) == uninterrupted(1, 2)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_task_that_was_performed_and_deleted_is_not_performed_again(
    bus: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    """The evaluator dies, or loses the acknowledgement, after its task was stored and while it is performed."""
    performed: Counter[str] = Counter()

    async def perform(task: ActionTask) -> None:
        performed[task.key] += 1

    async def gone() -> bool:
        subjects = (await other.js.stream_info(ENGINE, subjects_filter="engine.action.>")).state.subjects
        return bool(performed) and not subjects

    async def late(start: Start, message: tuple[Any, ...]) -> Any:
        await (await start(*message))
        async with asyncio.timeout(limit(20)):
            while not await gone():
                await asyncio.sleep(0.01)
        if crash:
            raise asyncio.CancelledError
        raise unavailable("the answer was lost", BusReason.TIMEOUT)

    executor = Executor(other, perform, settings=ExecutionSettings())
    running = asyncio.create_task(executor.run())
    await eventually(executor.ready.is_set)
    log, _ = await loaded(bus)
    interrupt(bus, monkeypatch, MESSAGES - 1, late)
    if crash:
        with pytest.raises(asyncio.CancelledError):
            await log.commit(changes(1), seq=1, clock_us=1)
        log, _ = await loaded(bus)
    else:
        await log.commit(changes(1), seq=1, clock_us=1)
    await log.commit(changes(2), seq=2, clock_us=2)
    await eventually(lambda: performed["f2.0"])
    executor.stop()
    await asyncio.wait_for(running, limit(30))
    assert performed == {"f1.0": 1, "f2.0": 1}


async def test_a_task_that_was_buried_or_waits_is_left_as_it_is(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    redriven = b'{"redriven": true}'

    async def die(start: Start, message: tuple[Any, ...]) -> None:
        await (await start(*message))
        await bus.js.publish(message[0], redriven)
        raise asyncio.CancelledError

    log, _ = await loaded(bus)
    interrupt(bus, monkeypatch, MESSAGES - 1, die)
    with pytest.raises(asyncio.CancelledError):
        await log.commit(changes(1), seq=1, clock_us=1)
    await loaded(bus)
    assert (await stored(bus))[action_subject("a", "f1", 0)] == redriven


async def test_an_idle_shard_keeps_no_changes_in_its_offset(bus: Bus) -> None:
    loop = nats_shard_loop(bus, 0, CountingEvaluator(threshold=1))
    task = asyncio.create_task(loop.run())
    await eventually(loop.ready.is_set)
    ack = await bus.publish(new_event("order.created", resource={"id": "r"}, now=datetime.now(UTC), source="test"))
    await eventually(lambda: loop.committed >= ack.seq)
    assert (await read_offset(NatsEngineStore(bus.client), 0)).packed
    async with asyncio.timeout(limit(20)):
        while (await read_offset(NatsEngineStore(bus.client), 0)).packed:
            await asyncio.sleep(0.02)
    loop.stop()
    await asyncio.wait_for(task, limit(20))


@pytest.mark.takes(7)
async def test_small_and_large_commits_through_kills_of_either_side_store_exactly_what_was_fired(
    bus: Bus, nats_server: NatsServer
) -> None:
    chance = random.Random(11)
    sent: Counter[str] = Counter()
    bursts: dict[str, int] = {}
    stop = False

    async def produce() -> None:
        while not stop:
            fan = chance.choice((10, 40, 300, 1200)) if chance.random() < 0.01 else 0
            resource = {"id": f"k{chance.randrange(40)}", "fan": str(fan)}
            name = "burst" if fan else "order.created"
            one = new_event(name, resource=resource, now=datetime.now(UTC), source="test")
            while True:
                try:
                    await bus.publish(one)
                    break
                except BusUnavailable:
                    await asyncio.sleep(0.01)
            if fan:
                bursts[one.id] = fan
            else:
                sent[resource["id"]] += 1
            await asyncio.sleep(chance.random() * 0.01)

    producers = [asyncio.create_task(produce()) for _ in range(4)]
    for number in range(12):
        task = asyncio.create_task((loop := nats_shard_loop(bus, 0, CountingEvaluator())).run())
        await eventually(lambda loop=loop, task=task: loop.ready.is_set() or task.done())  # type: ignore[misc]
        assert not task.done(), task
        before = loop.committed
        amount = chance.randrange(20, 150)
        await eventually(lambda loop=loop, end=before + amount: loop.committed > end)  # type: ignore[misc]
        if number % 2:
            nats_server.kill()
            nats_server.start()
            if number % 4 == 1:
                before = loop.committed
                await eventually(lambda loop=loop, end=before + 20: loop.committed > end)  # type: ignore[misc]
        await end_task(task)  # nothing is stored on the way out, as in a crash
    stop = True
    await asyncio.gather(*producers)
    total = (await bus.js.stream_info("EVENTS")).state.last_seq
    evaluator = CountingEvaluator()
    task = asyncio.create_task((loop := nats_shard_loop(bus, 0, evaluator)).run())
    await eventually(lambda: loop.seq >= total, within_s=60)
    loop.stop()
    await asyncio.wait_for(task, limit(30))
    counts = {key: count for key, count in evaluator.counts.items() if not key.startswith("wide-")}
    assert counts == dict(sent)
    expected = {f"{key}-{n}" for key, count in sent.items() for n in range(3, count + 1, 3)}
    expected |= {f"{id}-{number}" for id, fan in bursts.items() for number in range(fan)}
    assert bursts, "no large commit was made"
    for kind in ("firing", "action"):
        found = [message.subject async for message in read_stream(bus, ENGINE, f"engine.{kind}.>")]
        assert sorted(subject.split(".")[3] for subject in found) == sorted(expected)
