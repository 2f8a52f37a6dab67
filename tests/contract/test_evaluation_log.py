"""The ports of the evaluation (`engine.evaluation.log_ports`), twice: in memory, and over a real nats-server."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.engine.bus.batches import MessageTooLarge, StaleBatch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Message, encode_window
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.engine.bus.subjects import (
    event_subject,
    firing_prefix,
    tick_subject,
    window_subject,
)
from whenthen.engine.decisions import DecisionLog, NatsDecisionLog
from whenthen.engine.evaluation.commits.commit import SMALL_MESSAGES, FencedShardLog
from whenthen.engine.evaluation.commits.window_parts import PART_BYTES
from whenthen.engine.evaluation.log_ports import (
    CommitRefused,
    EngineStore,
    EventCursor,
    EventLog,
    Fenced,
    LeaseEntry,
    LeaseStore,
    Received,
    ShardLog,
    WrongRevision,
)
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import MemoryServer
from whenthen.engine.evaluation.memory_shard_log import MemoryShardLog
from whenthen.engine.evaluation.nats_log import NatsEngineStore, NatsEventLog, NatsLeaseStore
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio

_SHARDS = itertools.count(1000)  # the tests share one server


@dataclass
class Ports:
    events: EventLog
    engine: EngineStore
    leases: LeaseStore
    decisions: DecisionLog
    shard_log: Callable[[int], ShardLog]  #: of a new process each time


def in_memory(*, atomic: bool) -> Ports:
    server = MemoryServer(lambda: time.time_ns() // 1000)
    process = MemoryConnection(server)

    def shard_log(shard: int) -> ShardLog:
        return MemoryShardLog(server, shard) if atomic else FencedShardLog(MemoryConnection(server).engine, shard)

    return Ports(process.events, process.engine, process.leases, process.decisions, shard_log)


@pytest.fixture(params=["memory", "nats"])
async def ports(request: pytest.FixtureRequest) -> AsyncIterator[Ports]:
    if request.param != "nats":
        yield in_memory(atomic=request.param == "atomic")
        return
    server: NatsServer = request.getfixturevalue("shared_server")
    bus = Bus(server.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    engine = NatsEngineStore(bus.client)
    decisions = NatsDecisionLog(bus)
    yield Ports(NatsEventLog(bus), engine, NatsLeaseStore(bus), decisions, lambda shard: FencedShardLog(engine, shard))
    await bus.close()


each_shard_log = pytest.mark.parametrize("ports", ["atomic", "memory", "nats"], indirect=True)


@pytest.fixture
def shard() -> int:
    return next(_SHARDS)


def event(name: str, **labels: str) -> Event:
    return new_event(name, resource={"id": "r", **labels}, now=datetime.now(UTC), source="test")


async def take(cursor: EventCursor, count: int) -> list[Received]:
    """The next messages, once they are there."""
    found: list[Received] = []
    async with asyncio.timeout(limit(20)):
        while len(found) < count:
            await cursor.wait(1.0)
            while len(found) < count and (message := cursor.take()) is not None:
                found.append(message)
    return found


async def until_caught_up(cursor: EventCursor) -> None:
    async with asyncio.timeout(limit(20)):
        while not cursor.caught_up:
            await cursor.wait(0.05)


# -- events


async def test_a_cursor_gives_what_passes_its_filters_in_order_without_gaps(ports: Ports, unique: str) -> None:
    wanted, other = f"{unique}.wanted", f"{unique}.other"
    sent = [event(wanted if number % 3 else other) for number in range(60)]
    for each in sent[:30]:
        await ports.events.publish(each)
    cursor = ports.events.cursor()
    assert not cursor.caught_up
    await cursor.start(0, [event_subject(wanted)])
    first = await take(cursor, 20)
    for each in sent[30:]:
        await ports.events.publish(each)
    found = first + await take(cursor, 20)
    assert [message.data for message in found] == [each.encode() for each in sent if each.name == wanted]
    assert {message.subject for message in found} == {event_subject(wanted)}
    for before, after in itertools.pairwise(found):
        assert before.seq < after.seq
        assert before.time_us <= after.time_us
    assert found[-1].pending == 0
    await until_caught_up(cursor)
    assert (cursor.buffered, cursor.pending, cursor.take()) == (0, 0, None)
    await cursor.stop()


async def test_a_cursor_starts_after_a_position_and_can_start_again_elsewhere(ports: Ports, unique: str) -> None:
    names = [f"{unique}.{number}" for number in range(6)]
    for name in names:
        await ports.events.publish(event(name))
    cursor = ports.events.cursor()
    await cursor.start(0, [f"events.{unique}.>"])
    found = await take(cursor, 6)
    await cursor.start(found[2].seq, [event_subject(names[1]), event_subject(names[4]), event_subject(names[5])])
    assert await take(cursor, 2) == [found[4]._replace(pending=1), found[5]._replace(pending=0)]
    await until_caught_up(cursor)
    await cursor.stop()


async def test_an_event_that_is_published_again_is_there_once(ports: Ports, unique: str) -> None:
    first, last = event(unique), event(unique)
    for each in (first, first, last, first):
        await ports.events.publish(each)
    cursor = ports.events.cursor()
    await cursor.start(0, [event_subject(unique)])
    assert [message.data for message in await take(cursor, 2)] == [first.encode(), last.encode()]
    await until_caught_up(cursor)
    await cursor.stop()


async def test_a_tick_tells_the_time_of_the_log(ports: Ports, unique: str, shard: int) -> None:
    cursor = ports.events.cursor()
    await cursor.start(0, [event_subject(unique), tick_subject(shard)])
    await until_caught_up(cursor)
    await ports.events.publish(event(unique))
    await ports.events.publish_tick(shard)
    await ports.events.publish_tick(shard + 100_000)
    before, tick = await take(cursor, 2)
    assert (tick.subject, tick.data) == (tick_subject(shard), b"")
    assert before.time_us <= tick.time_us
    assert abs(tick.time_us - time.time_ns() // 1000) < 20_000_000
    await cursor.stop()


async def test_waiting_ends_when_it_is_woken_or_the_time_is_up(ports: Ports, unique: str) -> None:
    cursor = ports.events.cursor()
    await cursor.start(0, [event_subject(unique)])
    await until_caught_up(cursor)
    assert await cursor.wait(0.01) is False
    waiting = asyncio.create_task(cursor.wait(60))
    await asyncio.sleep(0)
    cursor.wake()
    assert await asyncio.wait_for(waiting, limit(20)) is False
    await ports.events.publish(event(unique))
    async with asyncio.timeout(limit(20)):
        while not await cursor.wait(5):
            pass
    assert cursor.buffered == 1
    await cursor.stop()


async def test_recent_ids_end_before_the_given_position(ports: Ports, unique: str) -> None:
    sent = [event(unique) for _ in range(5)]
    for each in sent:
        await ports.events.publish(each)
    cursor = ports.events.cursor()
    await cursor.start(0, [event_subject(unique)])
    found = await take(cursor, 5)
    await cursor.stop()
    ours = {each.id for each in sent}
    ids = await ports.events.recent_ids(since_us=0, before=found[3].seq)
    assert [pair for pair in ids if pair[0] in ours] == [
        (each.id, message.time_us) for each, message in zip(sent[:3], found, strict=False)
    ]
    ids = await ports.events.recent_ids(since_us=found[1].time_us, before=found[-1].seq + 1)
    assert [pair[0] for pair in ids if pair[0] in ours][-4:] == [each.id for each in sent[1:]]


# -- the store


def message(shard: int, key: str, state: bytes = b"s") -> Message:
    return Message(window_subject(shard, "t", key), encode_window("t", key, state))


async def contents(engine: EngineStore, shard: int, after: int = 0) -> tuple[int, list[tuple[str, bytes]]]:
    found: list[tuple[str, bytes]] = []
    last = await engine.read(f"engine.shard.{shard}.>", after=after, receive=lambda *each: found.append(each))
    return last, found


async def test_a_batch_is_stored_whole_or_refused_whole(ports: Ports, shard: int) -> None:
    a, b, fence = message(shard, "a"), message(shard, "b"), Message(f"engine.shard.{shard}.offset", b"1")
    first = await ports.engine.publish_batch([a, b, fence], expect=0)
    for wrong in (0, first - 1, first + 1):
        with pytest.raises(StaleBatch):
            await ports.engine.publish_batch([message(shard, "a", b"no"), fence], expect=wrong)
        with pytest.raises(StaleBatch):
            await ports.engine.publish_batch([fence], expect=wrong)
    expected = [(each.subject, each.data) for each in (a, b, fence)]
    assert await contents(ports.engine, shard) == (first, expected)
    second = await ports.engine.publish_batch([message(shard, "a", b"2"), fence], expect=first)
    assert second > first
    assert await contents(ports.engine, shard, after=first) == (
        second,
        [(a.subject, message(shard, "a", b"2").data), expected[2]],
    )
    assert await ports.engine.publish_batch([message(shard, "c")], expect=None) > second


async def test_messages_are_stored_under_the_fence_of_another_subject(ports: Ports, shard: int) -> None:
    fence = Message(f"engine.shard.{shard}.offset", b"1")
    first = await ports.engine.publish_batch([fence], expect=0)
    both = [message(shard, "a"), message(shard, "b")]
    await ports.engine.publish_fenced(both, subject=fence.subject, expect=first)
    second = await ports.engine.publish_batch([fence], expect=first)
    with pytest.raises(StaleBatch):
        await ports.engine.publish_fenced([message(shard, "a", b"late")], subject=fence.subject, expect=first)
    expected = [(each.subject, each.data) for each in (*both, fence)]
    assert await contents(ports.engine, shard) == (second, expected)


async def test_the_last_message_of_a_subject_is_known_with_its_sequence(ports: Ports, shard: int) -> None:
    fence = Message(f"engine.shard.{shard}.offset", b"")
    assert await ports.engine.last(fence.subject) is None
    seq = await ports.engine.publish_batch([fence], expect=0)
    assert await ports.engine.last(fence.subject) == (seq, b"")
    assert await contents(ports.engine, shard + 100_000, after=7) == (7, [])
    assert await ports.engine.has_one_copy()


# -- a shard's log


async def load(ports: Ports, shard: int) -> tuple[ShardLog, dict[str, bytes]]:
    log = ports.shard_log(shard)
    windows: dict[str, bytes] = {}
    offset = await log.load(lambda trigger, key, state: windows.__setitem__(key, state))
    assert offset == log.offset
    return log, {key: state for key, state in windows.items() if state}


def windows(shard: int, states: Sequence[tuple[str, bytes]]) -> list[Message]:
    return [message(shard, key, state) for key, state in states]


@each_shard_log
@pytest.mark.parametrize("more", [0, SMALL_MESSAGES, 2100])
async def test_a_commit_of_any_size_is_loaded_again(ports: Ports, shard: int, more: int) -> None:
    log, found = await load(ports, shard)
    assert (log.shard, log.offset.seq, log.stored, found) == (shard, 0, 0, {})
    many = [(f"many{number}", b"m") for number in range(more)]
    await log.commit(windows(shard, [("one", b"1"), ("gone", b"1"), *many]), seq=7, clock_us=70)
    assert log.stored == 7
    await log.commit(windows(shard, [("one", b"2"), ("gone", b""), *many]), seq=9, clock_us=90)
    await log.commit([], seq=11, clock_us=110)
    assert not log.carries_changes
    again, found = await load(ports, shard)
    assert (again.offset.seq, again.offset.clock_us, again.stored) == (11, 110, 11)
    assert found == {"one": b"2", **dict(many)}


@each_shard_log
@pytest.mark.parametrize("more", [0, SMALL_MESSAGES, 1100])
async def test_who_lost_the_shard_is_fenced_and_stores_nothing(ports: Ports, shard: int, more: int) -> None:
    old, _ = await load(ports, shard)
    await old.commit(windows(shard, [("k", b"1")]), seq=1, clock_us=1)
    new, found = await load(ports, shard)
    assert found == {"k": b"1"}
    for _ in range(2):
        with pytest.raises(Fenced):
            await old.commit(windows(shard, [("k", b"old")] * (more + 1)), seq=2, clock_us=2)
    await new.commit(windows(shard, [("l", b"2")]), seq=2, clock_us=2)
    _, found = await load(ports, shard)
    assert found == {"k": b"1", "l": b"2"}


@each_shard_log
async def test_shards_do_not_fence_each_other(ports: Ports, shard: int) -> None:
    other = next(_SHARDS)
    one, _ = await load(ports, shard)
    two, _ = await load(ports, other)
    await one.commit(windows(shard, [("k", b"1")]), seq=1, clock_us=1)
    await two.commit(windows(other, [("k", b"2")]), seq=2, clock_us=1)
    await one.commit([], seq=3, clock_us=1)
    assert (await load(ports, shard))[1] == {"k": b"1"}
    assert (await load(ports, other))[1] == {"k": b"2"}


@each_shard_log
async def test_a_window_of_any_size_is_loaded_again_and_leaves_nothing_behind_when_it_shrinks(
    ports: Ports, shard: int
) -> None:
    log, _ = await load(ports, shard)
    sizes = [3_000_000, 10, PART_BYTES - 100, 30_000_000, 1_500_000, 800_000]
    for number, size in enumerate(sizes, 1):
        state = bytes([48 + number]) * size
        await log.commit(
            windows(shard, [("k", state), (f"{'long' * 300_000}", b"x"), ("l", b"y")]), seq=number, clock_us=1
        )
        log, found = await load(ports, shard)
        assert log.offset.seq == number
        assert found == {"k": state, "long" * 300_000: b"x", "l": b"y"}
    parts = [subject for subject, data in (await contents(ports.engine, shard))[1] if ".part." in subject and data]
    assert len(parts) == 2, "one of each of the two windows that need a second part"
    await log.commit(windows(shard, [("k", b""), ("long" * 300_000, b"")]), seq=9, clock_us=1)
    log, found = await load(ports, shard)
    assert found == {"l": b"y"}


async def test_a_message_larger_than_the_store_takes_is_refused_before_anything_is_sent(
    ports: Ports, shard: int
) -> None:
    fence = Message(f"engine.shard.{shard}.offset", b"1")
    large = Message(window_subject(shard, "t", "k"), b"x" * (ports.engine.largest + 1))
    with pytest.raises(MessageTooLarge):
        await ports.engine.publish_batch([message(shard, "a"), large, fence], expect=0)
    first = await ports.engine.publish_batch([message(shard, "b"), fence], expect=0)
    with pytest.raises(MessageTooLarge):
        await ports.engine.publish_fenced([large], subject=fence.subject, expect=first)
    assert [subject for subject, _ in (await contents(ports.engine, shard))[1]] == [
        message(shard, "b").subject,
        fence.subject,
    ]


@each_shard_log
async def test_a_firing_that_is_too_large_is_refused_and_the_next_commit_is_stored(ports: Ports, shard: int) -> None:
    log, _ = await load(ports, shard)
    large = Message(firing_prefix("a") + f"f{shard}", b"x" * (log.largest + 20_000))
    with pytest.raises(CommitRefused):
        await log.commit([*windows(shard, [("k", b"1")]), large], seq=1, clock_us=1)
    assert not await log.takes([large])
    assert await log.takes(windows(shard, [("k", b"1" * 3_000_000)]))
    await log.commit(windows(shard, [("k", b"2")]), seq=2, clock_us=1)
    log, found = await load(ports, shard)
    assert (log.offset.seq, found) == (2, {"k": b"2"})


# -- leases


async def entry_of(leases: LeaseStore, key: str) -> LeaseEntry | None:
    return next((entry for entry in await leases.entries() if entry.key == key), None)


async def test_a_key_is_updated_only_from_the_revision_that_it_has(ports: Ports) -> None:
    key = f"member.{uuid.uuid4().hex}"
    assert await ports.leases.get(key) is None
    with pytest.raises(WrongRevision):
        await ports.leases.update(key, b"x", last=10**9)
    first = await ports.leases.update(key, b"1", last=0)
    with pytest.raises(WrongRevision):
        await ports.leases.update(key, b"x", last=0)
    second = await ports.leases.update(key, b"2", last=first)
    assert second > first
    assert await ports.leases.get(key) == await entry_of(ports.leases, key) == LeaseEntry(key, b"2", second)
    await ports.leases.put(key, b"3")
    with pytest.raises(WrongRevision):
        await ports.leases.update(key, b"x", last=second)


async def test_a_deleted_key_is_listed_without_a_value_and_can_be_taken_from_there(ports: Ports) -> None:
    key = f"member.{uuid.uuid4().hex}"
    await ports.leases.put(key, b"1")
    await ports.leases.delete(key)
    assert await ports.leases.get(key) is None
    entry = await entry_of(ports.leases, key)
    assert entry is not None
    assert entry.value == b""
    with pytest.raises(WrongRevision):
        await ports.leases.update(key, b"x", last=0)
    await ports.leases.update(key, b"2", last=entry.revision)
    taken = await ports.leases.get(key)
    assert taken is not None
    assert taken.value == b"2"


# -- decisions


async def test_decisions_are_read_in_the_order_in_which_they_were_appended(ports: Ports, shard: int) -> None:
    sent = [f"{shard}.{number}".encode() * 100 for number in range(30)]
    sequences = [await ports.decisions.append(shard, data, f"{shard}.{n}") for n, data in enumerate(sent)]
    assert sequences == sorted(set(sequences))
    await ports.decisions.append(shard + 500_000, b"another shard's", f"{shard}.other")
    assert await ports.decisions.append(shard, sent[3], f"{shard}.3") == sequences[3], "sent again, stored once"
    found: list[tuple[int, bytes]] = []
    await ports.decisions.read(shard, after=sequences[4], receive=lambda seq, data: found.append((seq, data)))
    assert found == list(zip(sequences, sent, strict=True))[5:]
    found.clear()
    await ports.decisions.read(shard, after=sequences[-1], receive=lambda seq, data: found.append((seq, data)))
    assert found == []
    assert ports.decisions.largest > 500_000


@each_shard_log
async def test_a_commit_moves_what_the_offset_says_of_decisions_and_another_one_leaves_it(
    ports: Ports, shard: int
) -> None:
    log = ports.shard_log(shard)
    await log.load(lambda *_: None)
    await log.commit([], seq=1, clock_us=1, decisions=(7, 5))
    await log.commit([Message(window_subject(shard, "t", "k"), encode_window("t", "k", b"1"))], seq=2, clock_us=1)
    again = ports.shard_log(shard)
    offset = await again.load(lambda *_: None)
    assert (offset.seq, offset.decisions, offset.decisions_from) == (2, 7, 5)
