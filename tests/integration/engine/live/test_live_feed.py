"""The streams of a real nats-server shown live: from now, from an id of any process, after retention, and to who does not read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tests.contract.history import history_messages as made
from tests.integration.conftest import NatsServer, bus, nats_server
from tests.patience import limit, until
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.streams import AUDIT, DECISIONS, ENGINE, EVENTS, StreamSettings, ensure_streams
from whenthen.engine.bus.subjects import decisions_subject, offset_subject
from whenthen.engine.live import LiveClient, LiveFeed, Wanted, stream_tails
from whenthen.engine.live import live_client as bounds
from whenthen.schemas.errors import BusUnavailable, InvalidInput

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(15)]

RUNS = "KV_WT_runs"


def new_feed(bus: Bus, **options: Any) -> LiveFeed:
    settings = {"shards": 2, "most_clients": 10, "kept": timedelta(days=7), "heartbeat_s": 0.5, **options}
    return LiveFeed(bus, **settings)


@asynccontextmanager
async def feeding(bus: Bus, **options: Any) -> AsyncIterator[LiveFeed]:
    feed = new_feed(bus, **options)
    try:
        yield feed
    finally:
        await feed.close()


@dataclass
class Told:
    """What a client was sent."""

    items: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    last_id: str = ""
    heartbeats: int = 0

    def take(self, part: bytes) -> None:
        for block in part.decode().split("\n\n"):
            name, data = "", None
            for line in block.split("\n"):
                if line.startswith("id: "):
                    self.last_id = line[4:]
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = orjson.loads(line[6:])
                elif line.startswith(": heartbeat"):
                    self.heartbeats += 1
            if data is not None:
                self.items.append((name, data))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.items if name == kind]

    @property
    def ids(self) -> list[str]:
        return [data["id"] for name, data in self.items if name not in ("gap", "end", "decisions")]


@asynccontextmanager
async def watching(
    feed: LiveFeed, wanted: Wanted | None = None, last_id: str | None = None
) -> AsyncIterator[tuple[Told, LiveClient]]:
    client = await feed.open(wanted or Wanted(), last_id)
    told = Told()

    async def read() -> None:
        async for part in client.frames():
            told.take(part)

    task = asyncio.create_task(read())
    try:
        yield told, client
        if task.done():
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()


async def publish(bus: Bus, *messages: made.Message) -> None:
    for each in messages:
        await bus.store(each.subject, each.data)


async def holds(look: Any, what: str = "the condition") -> None:
    async def found() -> object:
        return look()

    await until(found, within_s=20, what=what)


def batch(shard: int, prev: int, ids: Sequence[str]) -> bytes:
    rows = [[0, "", "fired", n, f"event-{n}", made.START_US, "", "", name] for n, name in enumerate(ids)]
    head = {
        "batch": uuid.uuid4().hex, "prev": prev, "part": 0, "parts": 1, "shard": shard, "writer": "w", "rules": 1, "after": prev,
        "seq": prev + 1,
    }  # fmt: skip
    return orjson.dumps({**head, "automations": ["ship"], "counts": [[0, "fired", len(ids)]], "rows": rows})


class Decider:
    """Writes batches as a shard does, each before its commit."""

    def __init__(self, bus: Bus, shard: int = 0) -> None:
        self.bus, self.shard, self.head, self.commits = bus, shard, 0, 0

    async def write(self, *ids: str) -> int:
        return (await self.bus.store(decisions_subject(self.shard), batch(self.shard, self.head, ids))).seq

    async def commit(self, seq: int) -> None:
        self.head = seq
        self.commits += 1
        await self.bus.store(offset_subject(self.shard), Offset(seq=self.commits, decisions=seq).encode())

    async def decide(self, *ids: str) -> None:
        await self.commit(await self.write(*ids))


EVERYTHING = (
    made.event(1), made.firing(1), made.task(1), made.outcome(1, "executed", 1), made.run(1, "Running"), made.note(1),
)  # fmt: skip


async def test_all_kinds_are_shown_from_now_on_and_nothing_is_read_when_nobody_listens(bus: Bus) -> None:
    await publish(bus, made.event(0))
    async with feeding(bus) as feed:
        assert feed.reading == set()
        async with watching(feed) as (told, _):
            assert feed.reading == {EVENTS, ENGINE, DECISIONS, AUDIT, RUNS}
            await publish(bus, *EVERYTHING)
            await Decider(bus).decide("f-1")
            await holds(lambda: len(told.items) == 7)
            assert sorted(told.ids) == sorted(["event-1", "firing-1", "firing-1.0", "firing-1.0", "run-1", "note-1"])
            assert told.of("decisions")[0]["firing"] == "f-1"
            assert [each["state"] for each in told.of("actions")] == ["waiting", "executed"]
        assert feed.reading == set()


async def test_one_reader_serves_all_clients(bus: Bus) -> None:
    async with feeding(bus) as feed, watching(feed) as (first, _), watching(feed) as (second, _):
        consumers = (await bus.js.stream_info(EVENTS)).state.consumer_count
        await publish(bus, made.event(1))
        await holds(lambda: first.ids == second.ids == ["event-1"])
        assert consumers == 1


async def test_another_process_goes_on_where_one_stopped_and_nothing_is_missed_or_doubled(bus: Bus) -> None:
    decider, other = Decider(bus), Decider(bus, 1)
    async with feeding(bus) as feed, watching(feed) as (told, _):
        await publish(bus, made.event(1), made.firing(1), made.run(1, "Running"))
        await decider.decide("f-1", "f-2")
        await other.decide("g-1")
        await holds(lambda: len(told.items) == 6)
    # while nobody watches
    await publish(
        bus, made.event(2), made.firing(2), made.run(2, "Completed"), made.note(2), made.outcome(2, "executed", 1)
    )
    await decider.decide("f-3", "f-4", "f-5")
    async with feeding(bus) as feed, watching(feed, last_id=told.last_id) as (again, _):
        await holds(lambda: len(again.items) == 8)
        await publish(bus, made.event(3))
        await decider.decide("f-6")
        await holds(lambda: len(again.items) == 10)
        assert again.of("gap") == []
        assert [each["firing"] for each in again.of("decisions")] == ["f-3", "f-4", "f-5", "f-6"]
        assert [each["id"] for each in again.of("events")] == ["event-2", "event-3"]
        assert [each["state"] for each in again.of("runs")] == ["Completed"]


async def test_the_id_of_each_row_of_a_batch_goes_on_behind_it(bus: Bus) -> None:
    decider = Decider(bus)
    async with feeding(bus) as feed:
        client = await feed.open(Wanted(kinds=["decisions"]))
        await decider.decide("f-1", "f-2", "f-3")
        told: list[Told] = []
        async with asyncio.timeout(limit(20)):
            async for part in client.frames():
                for block in part.split(b"\n\n"):
                    told.append(Told())
                    told[-1].take(block + b"\n\n")
                if sum(len(each.items) for each in told) == 3:
                    break
        client.close()
        rows = [each for each in told if each.items]
        for place, each in enumerate(rows, 1):
            async with watching(feed, Wanted(kinds=["decisions"]), each.last_id) as (again, _):
                await holds(lambda again=again: again.heartbeats)
                assert [row["firing"] for row in again.of("decisions")] == ["f-1", "f-2", "f-3"][place:]


async def test_a_batch_that_is_not_committed_is_never_shown(bus: Bus) -> None:
    decider = Decider(bus)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["decisions"])) as (told, _):
        await decider.write("phantom")
        await holds(lambda: told.heartbeats >= 2)
        assert told.items == []
        await decider.decide("f-1")
        await holds(lambda: told.of("decisions"))
        await decider.decide("f-2")
        await holds(lambda: len(told.of("decisions")) == 2)
        assert [each["firing"] for each in told.of("decisions")] == ["f-1", "f-2"]
        begun = told.last_id
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["decisions"]), begun) as (again, _):
        await holds(lambda: again.heartbeats)
        assert again.items == []


async def test_the_filters_of_the_lists_choose_what_is_shown(bus: Bus) -> None:
    async with (
        feeding(bus) as feed,
        watching(feed, Wanted(equal={"name": "order.*", "automation": "ship"})) as (both, _),
        watching(feed, Wanted(kinds=["events"], labels={"id": "shop.1"})) as (labelled, _),
        watching(feed, Wanted(kinds=["actions"], equal={"state": "executed"})) as (executed, _),
        watching(feed, Wanted(text="REFUSED")) as (text, _),
        watching(feed) as (everything, _),
    ):
        await publish(bus, *EVERYTHING, made.event(2, "user.seen"), made.firing(2, "other"))
        await holds(lambda: len(everything.items) == 8 and len(both.items) == 4)
        await holds(lambda: labelled.items and executed.items and text.items)
        # each stream in its order; between two streams there is none
        assert [each["id"] for each in both.of("events")] == ["event-1"]
        assert [id for id in both.ids if id != "event-1"] == ["firing-1", "firing-1.0", "firing-1.0"]
        assert labelled.ids == ["event-1"]
        assert [each["state"] for each in executed.of("actions")] == ["executed"]
        assert text.ids == ["note-1"]


@pytest.mark.parametrize(
    "last_id",
    ["x", "t", "1042", "t1.e1-5", "t1.eabcdef01-5-6", "t1.q00000000-1", "t1.e00000000-99999999999999999999", "t1.d00000000-1",
     "t1.e00000000-1.e00000000-1", "t1" + ".e00000000-1" * 5000, "ü", "t1.e00000000-9999999999999999999"],
)  # fmt: skip
async def test_an_id_that_is_none_is_refused_by_name(bus: Bus, last_id: str) -> None:
    async with feeding(bus) as feed:
        with pytest.raises(InvalidInput, match=r"Last-Event-ID: .* is no id of this stream"):
            await feed.open(Wanted(), last_id)
        assert feed.reading == set()


async def test_an_id_from_before_retention_is_answered_with_a_gap_and_what_is_left(bus: Bus) -> None:
    decider = Decider(bus)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events", "decisions"])) as (told, _):
        await publish(bus, made.event(1))
        await decider.decide("f-1")
        await holds(lambda: len(told.items) == 2)
    await publish(bus, *(made.event(n) for n in range(2, 6)))
    await decider.decide("f-2")
    await decider.decide("f-3")
    await decider.decide("f-4")
    await bus.js.purge_stream(EVENTS, seq=4)
    await bus.js.purge_stream(DECISIONS, seq=3)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events", "decisions"]), told.last_id) as (again, _):
        await holds(lambda: len(again.items) == 6)
        assert [(gap["stream"], gap["reason"]) for gap in again.of("gap")] == [
            (EVENTS, "retention"),
            (DECISIONS, "retention"),
        ]
        assert again.of("gap")[0]["detail"] == "positions 2 to 3 are not kept any more"
        assert [each["id"] for each in again.of("events")] == ["event-4", "event-5"]
        assert [each["firing"] for each in again.of("decisions")] == ["f-3", "f-4"]


async def test_a_shard_that_decided_nothing_since_is_no_gap(bus: Bus) -> None:
    idle, busy = Decider(bus), Decider(bus, 1)
    await idle.decide("f-1")
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["decisions"])) as (told, _):
        for number in range(3):
            await busy.decide(f"g-{number}")
        await holds(lambda: len(told.items) == 3)
    await bus.js.purge_stream(DECISIONS, seq=4)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["decisions"]), told.last_id) as (again, _):
        await holds(lambda: again.heartbeats)
        await idle.decide("f-2")
        await holds(lambda: again.of("decisions"))
        assert again.of("gap") == []


async def test_what_is_of_no_kind_and_is_removed_is_no_gap(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_tails, "QUIET_S", 0.1)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"])) as (told, _):
        await publish(bus, made.event(1))
        for number in range(3):
            await bus.store("ticks.0", b"", f"tick-{number}")
        await holds(lambda: told.last_id.endswith("-4"))
    await bus.js.purge_stream(EVENTS, seq=5)
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"]), told.last_id) as (again, _):
        await publish(bus, made.event(2))
        await holds(lambda: again.items)
        assert again.ids == ["event-2"]


async def test_who_comes_back_and_reads_slowly_misses_nothing_while_more_comes_than_waits_for_it(bus: Bus) -> None:
    wanted = Wanted(kinds=["events"])
    async with feeding(bus) as feed, watching(feed, wanted) as (begun, _):
        await holds(lambda: begun.last_id)
        first = begun.last_id
        await publish(bus, *(made.event(n) for n in range(20)))
        await holds(lambda: len(begun.items) == 20)
        client = await feed.open(wanted, first)
        frames, told = client.frames(), Told()
        while not told.items:
            told.take(await anext(frames))
        more = bounds.MOST_ITEMS + 300
        await asyncio.gather(*(publish(bus, made.event(n)) for n in range(20, 20 + more)))
        await holds(lambda: len(begun.items) == 20 + more)
        async with asyncio.timeout(limit(20)):
            while len(told.items) < 20 + more:
                told.take(await anext(frames))
        assert told.of("gap") == []
        assert told.ids == begun.ids
        client.close()


async def test_an_old_id_may_miss_firings_which_leave_their_stream_one_by_one(bus: Bus) -> None:
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["firings"])) as (told, _):
        await holds(lambda: told.last_id)
    late = new_feed(bus, kept=timedelta(hours=1), clock=lambda: float(told.last_id[1:].partition(".")[0]) + 7200)
    async with watching(late, Wanted(kinds=["firings"]), told.last_id) as (again, _):
        await holds(lambda: again.of("gap"))
        assert again.of("gap")[0]["reason"] == "retention"
    await late.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_stream_that_was_made_again_is_shown_from_its_beginning_behind_a_gap(bus: Bus, connected: bool) -> None:
    wanted = Wanted(kinds=["audit"])
    async with feeding(bus) as feed:
        async with watching(feed, wanted) as (told, _):
            await publish(bus, *(made.note(n) for n in range(5)))
            await holds(lambda: len(told.items) == 5)
            if connected:
                await bus.js.delete_stream(AUDIT)
                await ensure_streams(bus.js, StreamSettings())
                await publish(bus, made.note(7))
                await holds(lambda: len(told.items) == 7)
                assert told.of("gap")[0]["reason"] == "made_again"
                assert told.ids[-1] == "note-7"
        if not connected:
            await bus.js.delete_stream(AUDIT)
            await ensure_streams(bus.js, StreamSettings())
            await publish(bus, made.note(7))
            async with watching(feed, wanted, told.last_id) as (again, _):
                await holds(lambda: len(again.items) == 2)
                assert [name for name, _ in again.items] == ["gap", "audit"]
                assert again.of("gap")[0]["reason"] == "made_again"


async def test_who_does_not_read_is_told_what_was_dropped_and_can_have_it(bus: Bus) -> None:
    wanted = Wanted(kinds=["events"])
    many = bounds.MOST_ITEMS + 200
    async with feeding(bus) as feed:
        client = await feed.open(wanted)
        frames = client.frames()
        told = Told()
        told.take(await anext(frames))
        async with watching(feed, wanted) as (quick, _):
            await asyncio.gather(*(publish(bus, made.event(n)) for n in range(many)))
            await holds(lambda: len(quick.items) == many)
        assert len(client._waiting) == bounds.MOST_ITEMS
        async with asyncio.timeout(limit(20)):
            while not told.of("gap"):
                told.take(await anext(frames))
        (gap,) = told.of("gap")
        assert (gap["reason"], gap["missed"]) == ("slow", {"events": 200})
        await publish(bus, made.event(many))
        told.take(await anext(frames))
        assert told.ids[-1] == f"event-{many}"
        client.close()
        async with watching(feed, wanted, gap["from"]) as (rest, _):
            await holds(lambda: len(rest.items) == 201)
            assert set(told.ids) | set(rest.ids) == set(quick.ids) | {f"event-{many}"}


async def test_large_events_that_wait_for_a_client_are_bounded_by_bytes(bus: Bus) -> None:
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"])) as (quick, _):
        client = await feed.open(Wanted(kinds=["events"]))
        for number in range(400):
            await publish(bus, made.event(number, payload={"text": "x" * 7000}))
        await holds(lambda: len(quick.items) == 400)
        assert sum(len(each.frame) for each in client._waiting) < bounds.MOST_BYTES + 10_000
        client.close()


async def test_one_client_more_than_there_may_be_is_refused_and_a_place_that_is_left_is_given_again(bus: Bus) -> None:
    async with feeding(bus, most_clients=3) as feed, watching(feed), watching(feed), watching(feed) as (_, third):
        with pytest.raises(BusUnavailable, match="3 clients watch, as many as there may be"):
            await feed.open(Wanted())
        third.close()
        async with watching(feed) as (told, _):
            await holds(lambda: told.last_id)


async def test_reading_goes_on_after_nats_was_killed(bus: Bus, nats_server: NatsServer) -> None:
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"])) as (told, _):
        await publish(bus, made.event(1))
        await holds(lambda: told.ids == ["event-1"])
        nats_server.kill()
        nats_server.start()

        async def stored() -> bool:
            try:
                await publish(bus, made.event(2))
            except BusUnavailable:
                return False
            return True

        await until(stored, within_s=20)
        await holds(lambda: "event-2" in told.ids)
        assert told.of("gap") == []


async def test_a_position_behind_the_end_of_the_stream_goes_on_at_its_end(bus: Bus) -> None:
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"])) as (told, _):
        await publish(bus, made.event(1))
        await holds(lambda: told.ids)
    ahead = told.last_id.rpartition("-")[0] + "-500"
    async with feeding(bus) as feed, watching(feed, Wanted(kinds=["events"]), ahead) as (again, _):
        await holds(lambda: again.of("gap"))
        await publish(bus, made.event(2))
        await holds(lambda: again.ids == ["event-2"])
        assert again.of("gap")[0]["reason"] == "went_back"


async def test_the_end_of_the_process_is_told_and_ends_the_stream(bus: Bus) -> None:
    feed = new_feed(bus)
    async with watching(feed, Wanted(kinds=["events"])) as (told, _):
        await holds(lambda: told.last_id)
        await feed.close()
        assert told.of("end")[0]["reason"] == "stopping"
    with pytest.raises(BusUnavailable, match="stops"):
        await feed.open(Wanted())
