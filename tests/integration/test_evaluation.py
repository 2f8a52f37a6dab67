"""The evaluation loop against a real server: every event once, in order, across crashes of either side."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tests.integration.conftest import NatsServer, eventually, publish_all
from tests.integration.counting import CountingEvaluator, CountingRules
from tests.patience import limit
from tests.unit.engine.evaluation.stored_rules import StoredRules
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import decode_task
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import marker_subject
from whenthen.engine.evaluation.leases import LeaseSettings, ShardHolder
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.loop_ports import Observer
from whenthen.engine.evaluation.nats_log import NatsLeaseStore, nats_shard_loop
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.engine.execution.spec_store import SpecStore
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio


def event(name: str = "order.created", id: str = "r", **labels: str) -> Event:
    return new_event(name, resource={"id": id, **labels}, now=datetime.now(UTC), source="test")


@asynccontextmanager
async def running(loop: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(loop.run())
    try:
        yield task
        loop.stop()
        await asyncio.wait_for(task, limit(30))
    finally:
        if not task.done():
            await end_task(task)


async def ids(bus: Bus, kind: str) -> list[str]:
    """The firings (or actions, ...) in the stream, by id."""
    found = await bus.js.stream_info(ENGINE, subjects_filter=f"engine.{kind}.>")
    return sorted(subject.split(".")[3] for subject in found.state.subjects or {})


def due_firings(keys: Counter[str], threshold: int = 3) -> list[str]:
    return sorted(f"{key}-{n}" for key, count in keys.items() for n in range(threshold, count + 1, threshold))


async def test_events_become_firings_and_action_tasks(bus: Bus) -> None:
    specs = SpecStore(bus.client)
    loop = nats_shard_loop(
        bus,
        0,
        CountingEvaluator(rules=CountingRules(actions_of=("do-nothing", {"call-webhook": "http://h/"}))),
        publish_specs=specs.publish,
    )
    async with running(loop):
        for _ in range(3):
            last = event()
            ack = await bus.publish(last)
        await eventually(lambda: loop.committed >= ack.seq)
        assert await ids(bus, "firing") == ["r-3"]
        assert await ids(bus, "action") == ["r-3", "r-3"]
    message = await bus.js.get_last_msg(ENGINE, "engine.action.count.r-3.1")
    assert message.data is not None
    task, by_seq = decode_task(message.data)
    assert (task.key, task.index, task.action, by_seq) == ("r-3.1", 1, {"type": "call-webhook"}, 0)
    assert b"http://h/" not in message.data
    spec = await specs.find(task.digest)
    assert spec is not None
    assert orjson.loads(spec)["url"] == "http://h/"
    assert task.firing.event == last.data
    assert task.firing.seq == ack.seq


async def test_a_large_event_is_named_by_position_in_its_tasks(bus: Bus) -> None:
    loop = nats_shard_loop(bus, 0, CountingEvaluator(threshold=1))
    async with running(loop):
        big = new_event("order.big", resource={"id": "r"}, now=datetime.now(UTC), source="t", payload="x" * 100_000)
        ack = await bus.publish(big)
        await eventually(lambda: loop.committed >= ack.seq)
    message = await bus.js.get_last_msg(ENGINE, "engine.action.count.r-1.0")
    assert message.data is not None
    assert len(message.data) < 2000
    assert decode_task(message.data)[1] == ack.seq


async def test_only_events_that_a_rule_can_match_are_sent_and_a_reload_changes_that(bus: Bus) -> None:
    evaluator = CountingEvaluator(rules=CountingRules(globs=("order.*",)))
    revisions = StoredRules(CountingRules(globs=("order.*",)))
    loop = nats_shard_loop(bus, 0, evaluator, revisions=revisions)
    async with running(loop):
        await bus.publish(event("other.thing"))
        first = await bus.publish(event("order.created"))
        await eventually(lambda: loop.committed >= first.seq)
        revisions.revisions[2] = CountingRules(globs=("order.*", "other.*"))
        await bus.store(marker_subject(2), b"{}")
        await eventually(lambda: evaluator.rules.globs == ("order.*", "other.*"))
        second = await bus.publish(event("other.thing"))
        await eventually(lambda: loop.committed >= second.seq)
        assert evaluator.processed == [first.seq, second.seq]


async def test_a_message_that_can_not_be_evaluated_is_passed_over_and_reported(bus: Bus) -> None:
    passed: list[int] = []

    class Noting(Observer):
        def unreadable(self, shard: int, seq: int, error: Exception) -> None:
            passed.append(seq)

    loop = nats_shard_loop(bus, 0, CountingEvaluator(rules=CountingRules(globs=("*",))), observer=Noting())
    async with running(loop):
        bad = await bus.store("events.order.x", b"not json")
        worse = await bus.publish(event("poison"))
        good = await bus.publish(event())
        await eventually(lambda: loop.committed >= good.seq)
    assert passed == [bad.seq, worse.seq]


async def test_one_event_that_fires_two_thousand_automations_is_stored_whole(bus: Bus) -> None:
    loop = nats_shard_loop(bus, 0, CountingEvaluator())
    async with running(loop):
        sent = event("burst", fan="2000")
        ack = await bus.publish(sent)
        await eventually(lambda: loop.committed >= ack.seq and loop.caught_up)
    expected = sorted(f"{sent.id}-{number}" for number in range(2000))
    assert await ids(bus, "firing") == expected
    assert await ids(bus, "action") == expected
    again = CountingEvaluator()
    async with running(loop := nats_shard_loop(bus, 0, again)):
        await eventually(loop.ready.is_set)
        assert again.restored == 2000


async def test_a_deadline_fires_without_any_event_and_also_when_it_passed_while_down(bus: Bus) -> None:
    async with running(loop := nats_shard_loop(bus, 0, CountingEvaluator())):
        await bus.publish(event("arm", id="a", after_us="300000"))
        await eventually(lambda: loop.evaluator.clock_us > 0)
        found: list[str] = []
        while not found:
            found = await ids(bus, "firing")
        assert found[0].startswith("a-")
        armed = await bus.publish(event("arm", id="b", after_us="200000"))
        await eventually(lambda: loop.committed >= armed.seq)
    async with running(nats_shard_loop(bus, 0, CountingEvaluator())):
        while len(found) < 2:
            found = await ids(bus, "firing")
    assert [name[0] for name in found] == ["a", "b"]


async def test_a_deadline_that_passed_while_its_event_waited_is_not_counted_from_when_it_was_read(bus: Bus) -> None:
    """Two hours by the wall clock lie between the event and its reading; the stream, asked once, says otherwise."""
    armed = await bus.publish(event("arm", id="a", after_us=str(3600 * 10**6)))
    loop = nats_shard_loop(bus, 0, CountingEvaluator(), wall_us=lambda: time.time_ns() // 1000 + 2 * 3600 * 10**6)
    async with running(loop):
        await eventually(lambda: loop.seq > armed.seq)
        clock_us = loop.evaluator.clock_us
        await bus.publish(event())
        await eventually(lambda: loop.seq >= armed.seq + 3)
        assert loop.evaluator.clock_us > clock_us
        await eventually(lambda: loop.caught_up and loop.committed >= armed.seq + 3)
    ticks = (await bus.js.stream_info("EVENTS", subjects_filter="ticks.>")).state.subjects
    assert ticks == {"ticks.0": 2}, "one for each time that events were read to their end"
    assert not await ids(bus, "firing")


async def test_a_backlog_does_not_make_anything_look_absent(bus: Bus) -> None:
    await publish_all(bus, (event(id=f"k{number % 10}") for number in range(5000)))
    evaluator = CountingEvaluator()
    evaluator.due["x"] = 0
    async with running(loop := nats_shard_loop(bus, 0, evaluator)):
        await eventually(lambda: loop.caught_up and loop.committed >= 5000)
        assert evaluator.processed == list(range(1, 5001))
    ticks = (await bus.js.stream_info("EVENTS", subjects_filter="ticks.>")).state.subjects
    assert not ticks, "deadlines were met by the events' own timestamps"


async def test_whatever_dies_each_firing_is_stored_once_and_none_is_missing(bus: Bus, nats_server: NatsServer) -> None:
    chance = random.Random(4)
    sent: Counter[str] = Counter()
    stop = False

    async def produce() -> None:
        while not stop:
            key = f"k{chance.randrange(40)}"
            one = event(id=key)
            while True:
                try:
                    await bus.publish(one)
                    break
                except BusUnavailable:
                    await asyncio.sleep(0.01)
            sent[key] += 1

    producers = [asyncio.create_task(produce()) for _ in range(8)]
    for number in range(6):
        task = asyncio.create_task((loop := nats_shard_loop(bus, 0, CountingEvaluator())).run())
        await eventually(lambda loop=loop, task=task: loop.ready.is_set() or task.done())  # type: ignore[misc]
        assert not task.done(), task
        before = loop.committed
        await eventually(lambda loop=loop, before=before: loop.committed > before + 200)  # type: ignore[misc]
        if number % 2:
            nats_server.kill()
            nats_server.start()
            before = loop.committed
            await eventually(lambda loop=loop, before=before: loop.committed > before + 200)  # type: ignore[misc]
        await end_task(task)  # nothing is stored on the way out, as in a crash
    stop = True
    await asyncio.gather(*producers)
    total = (await bus.js.stream_info("EVENTS")).state.last_seq
    async with running(loop := nats_shard_loop(bus, 0, CountingEvaluator())):
        await eventually(lambda: loop.seq >= total)
    assert await ids(bus, "firing") == due_firings(sent)
    assert await ids(bus, "action") == due_firings(sent)


async def test_of_two_evaluators_of_one_shard_the_older_is_fenced(bus: Bus) -> None:
    old = nats_shard_loop(bus, 0, CountingEvaluator())
    task = asyncio.create_task(old.run())
    await eventually(old.ready.is_set)
    async with running(new := nats_shard_loop(bus, 0, CountingEvaluator())):
        await eventually(new.ready.is_set)
        acks = await publish_all(bus, (event() for _ in range(30)))
        with pytest.raises(Fenced):
            await asyncio.wait_for(task, limit(10))
        await eventually(lambda: new.committed >= acks[-1].seq)
    assert await ids(bus, "firing") == due_firings(Counter({"r": 30}))


@contextmanager
def frozen(holder: ShardHolder) -> Iterator[None]:
    """Lets a holder neither renew its leases nor notice it, as a stopped process."""
    original = holder._round

    async def nothing() -> None:
        return None

    holder._round = nothing  # type: ignore[method-assign]
    yield
    holder._round = original  # type: ignore[method-assign]


async def test_shards_are_shared_and_move_when_a_member_comes_dies_or_leaves(bus: Bus) -> None:
    settings = LeaseSettings(lease_s=1.0, renew_s=0.1)

    def work(shard: int) -> ShardLoop:
        return nats_shard_loop(bus, shard, CountingEvaluator())

    one = ShardHolder(NatsLeaseStore(bus), 4, work, member="one", settings=settings)
    two = ShardHolder(NatsLeaseStore(bus), 4, work, member="two", settings=settings)
    first = asyncio.create_task(one.run())
    await eventually(lambda: sorted(one.held) == [0, 1, 2, 3])
    second = asyncio.create_task(two.run())
    await eventually(lambda: len(one.held) == 2 and sorted([*one.held, *two.held]) == [0, 1, 2, 3])
    with frozen(one):
        await eventually(lambda: len(two.held) == 4, within_s=5)
        assert one.held == {}
    await eventually(lambda: len(one.held) == 2 and len(two.held) == 2)
    two.stop()
    await asyncio.wait_for(second, limit(20))
    await eventually(lambda: len(one.held) == 4, within_s=5)
    one.stop()
    await asyncio.wait_for(first, limit(20))


async def test_a_window_of_a_rule_that_is_gone_is_forgotten(bus: Bus) -> None:
    async with running(loop := nats_shard_loop(bus, 0, CountingEvaluator())):
        ack = await bus.publish(event())
        await eventually(lambda: loop.committed >= ack.seq)
    rules = CountingRules(triggers=frozenset())
    async with running(loop := nats_shard_loop(bus, 0, CountingEvaluator(rules=rules))):
        await eventually(loop.ready.is_set)
    message = await bus.js.get_last_msg(ENGINE, "engine.shard.0.window.count.r")
    assert message.data == orjson.dumps(["count", "r"]) + b"\n"
