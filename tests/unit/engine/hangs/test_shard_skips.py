"""Events that hung processes are passed over: committed under the fence first, then told, then skipped; over crashes at each step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from tests.unit.engine.evaluation.driven_loop import DrivenLoop
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.loop_ports import Observer
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import MemoryServer
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.engine.hangs.hang_counts import Hangs
from whenthen.engine.hangs.shard_skips import ShardSkips
from whenthen.engine.hangs.skipped_events import EVENT_SET_ASIDE, Skip
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.times import from_us
from whenthen.supervision import AtHand, Item, Work
from whenthen.triggers import Evaluator, RuleSet

RULE = {"name": "each", "trigger": {"expect": "order.paid"}, "actions": ["do-nothing"]}


class Skips:
    """A `SkipLog` whose hangs a test sets."""

    def __init__(self) -> None:
        self.counts: dict[int, Hangs] = {}
        self.published: list[Skip] = []
        self.fails = 0  #: so many operations are answered with an error first
        self.dies_at_publish = False

    def hung(self, position: int, tries: int, cause: str = "hung") -> None:
        self.counts[position] = Hangs(tries=tries, process=f"host-{tries}", cause=cause)

    async def hangs(self, shard: int) -> Mapping[int, Hangs]:
        if self.fails:
            self.fails -= 1
            raise unavailable("away", BusReason.TIMEOUT)
        return self.counts

    async def event_id(self, position: int) -> str | None:
        return f"e-{position}"

    async def publish(self, skip: Skip) -> None:
        if self.dies_at_publish:
            raise RuntimeError("killed")
        if skip not in self.published:
            self.published.append(skip)


class Noting(Observer):
    def __init__(self) -> None:
        self.aside: list[int] = []

    def event_set_aside(self, shard: int, skip: Skip) -> None:
        self.aside.append(skip.position)


class Process(DrivenLoop):
    """One that evaluates the shard of `server`."""

    def __init__(self, server: MemoryServer, skips: Skips) -> None:
        self.observer = Noting()
        self.at_hand = AtHand()
        self.connection = MemoryConnection(server)
        self.loop = ShardLoop(
            self.connection.events,
            FencedShardLog(self.connection.engine, 0),
            Evaluator(RuleSet.compile([Automation.model_validate(RULE)])),
            observer=self.observer,
            wall_us=now_us,
            monotonic=asyncio.get_running_loop().time,
            skips=ShardSkips(skips, shard=0, shards=4),
            at_hand=self.at_hand,
        )
        self.task = asyncio.create_task(self.loop.run())


def events(server: MemoryServer, count: int) -> None:
    for _ in range(count):
        number = len(server.events) + 1
        server.publish(
            new_event("order.paid", id=f"e-{number}", resource={"id": "o"}, now=from_us(now_us()), source="test")
        )


def fired(server: MemoryServer) -> list[str]:
    found = [kept for kept in server.history if kept.subject.startswith("engine.firing.") and kept.data]
    return [orjson.loads(kept.data or b"")["event"]["id"] for kept in found]


def told(server: MemoryServer) -> list[dict[str, Any]]:
    return [orjson.loads(each.data) for each in server.events if each.subject == f"events.{EVENT_SET_ASIDE}"]


def test_an_event_that_hung_two_processes_is_passed_over_and_told_once() -> None:
    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 3)
        skips.hung(2, 2)
        process = Process(server, skips)
        await process.reach(3)
        assert fired(server) == ["e-1", "e-3"]
        [skip] = skips.published
        assert (skip.position, skip.event, skip.reason, skip.tries, skip.shards) == (2, "e-2", "hung", 2, 4)
        [event] = told(server)
        assert event["payload"]["position"] == 2
        assert process.observer.aside == [2]
        await process.stop()

        events(server, 1)
        again = Process(server, skips)
        await again.reach(5)
        assert fired(server) == ["e-1", "e-3", "e-5"]
        assert len(told(server)) == 1
        assert again.observer.aside == [], "the shard has passed it"
        await again.stop()

    run(play())


def test_an_event_that_hung_one_process_is_tried_again() -> None:
    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 2)
        skips.hung(1, 1)
        process = Process(server, skips)
        await process.reach(2)
        assert fired(server) == ["e-1", "e-2"]
        assert skips.published == []
        await process.stop()

    run(play())


def test_an_event_that_was_evaluated_meanwhile_is_not_set_aside_later() -> None:
    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 2)
        process = Process(server, skips)
        await process.reach(2)
        await process.stop()
        skips.hung(1, 2)  # of processes that were slow, counted late
        again = Process(server, skips)
        events(server, 1)
        await again.reach(3)
        assert fired(server) == ["e-1", "e-2", "e-3"]
        assert skips.published == []
        assert told(server) == []
        await again.stop()

    run(play())


def test_a_process_that_dies_before_it_told_leaves_that_to_the_next_one() -> None:
    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 2)
        skips.hung(1, 2)
        skips.dies_at_publish = True
        process = Process(server, skips)
        await asyncio.wait([process.task])
        assert fired(server) == []
        skips.dies_at_publish = False
        skips.counts.clear()  # the count may be gone; the record of the shard counts
        again = Process(server, skips)
        await again.reach(2)
        assert fired(server) == ["e-2"]
        assert [skip.position for skip in skips.published] == [1]
        assert len(told(server)) == 1
        await again.stop()

    run(play())


def test_a_process_that_lost_the_shard_sets_nothing_aside() -> None:
    """It has read the counts, stands still, and goes on after another process has loaded the shard and evaluated the event."""

    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 1)
        skips.hung(1, 2)
        reached, go_on = asyncio.Event(), asyncio.Event()

        class Slow(Skips):
            async def event_id(self, position: int) -> str | None:
                reached.set()
                await go_on.wait()
                return await super().event_id(position)

        slow = Slow()
        slow.counts = skips.counts
        late = Process(server, slow)
        await reached.wait()
        other = Process(server, Skips())
        await other.reach(1)
        go_on.set()
        await asyncio.wait([late.task])
        assert isinstance(late.task.exception(), Fenced)
        assert slow.published == []
        assert fired(server) == ["e-1"]
        await other.stop()

    run(play())


def test_counts_that_can_not_be_read_are_waited_for() -> None:
    async def play() -> None:
        server, skips = MemoryServer(now_us), Skips()
        events(server, 1)
        skips.hung(1, 3, "crashed")
        skips.fails = 5
        process = Process(server, skips)
        events(server, 1)
        await process.reach(2)
        assert [skip.reason for skip in skips.published] == ["crashed"]
        await process.stop()

    run(play())


def test_the_loop_notes_each_message_before_it_evaluates_it_and_nothing_afterwards() -> None:
    async def play() -> None:
        server = MemoryServer(now_us)
        events(server, 2)
        process = Process(server, Skips())
        seen: list[Item | None] = []
        evaluate = process.loop.evaluator.process

        def noting(event: Event, at_us: int) -> Any:
            seen.append(process.at_hand.read())
            return evaluate(event, at_us)

        process.loop.evaluator.process = noting  # type: ignore[method-assign]
        await process.reach(2)
        assert seen == [Item(kind=Work.EVENT, shard=0, position=position) for position in (1, 2)]
        assert process.at_hand.read() is None
        await process.stop()

    run(play())
