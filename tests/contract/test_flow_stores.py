"""What the orchestrator relies on, held by every implementation of its stores."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.deployment_set import DeploymentSet
from tests.patience import limit
from whenthen.runs import BuiltInOrchestrator
from whenthen.runs.attempts.attempt_logs import LogBefore, LogLine
from whenthen.runs.run_states import new_run, transition
from whenthen.runs.stores import Flag, RunFilter, Stores
from whenthen.schemas.deployments import Deployment, FlowRun, RunState
from whenthen.schemas.errors import Conflict, NotFound

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHORT = timedelta(milliseconds=200)
LONG = timedelta(seconds=10)


def a_run(deployment: str, key: str = "k", *, now: datetime = NOW) -> FlowRun:
    return new_run(Deployment(name=deployment, command=["true"]), key=f"{deployment}/{key}", parameters={}, now=now)


async def test_a_created_run_is_read_back_as_it_was(stores: Stores, unique: str) -> None:
    run = replace(a_run(unique), parameters={"n": 1, "ü": [None, "\x00"]}, lineage={"depth": 1}, tags=("a",))
    created = await stores.runs.create(run)
    assert created.run == run
    assert await stores.runs.get(run.id) == created
    assert await stores.runs.get("0" * 32) is None


async def test_creating_a_run_again_gives_what_is_stored(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    first = await stores.runs.create(run)
    moved = await stores.runs.update(transition(run, RunState.PENDING, NOW), first.version)
    assert await stores.runs.create(run) == moved


async def test_of_many_creators_one_wins_and_all_see_the_same(stores: Stores, unique: str) -> None:
    runs = [replace(a_run(unique), message=str(number)) for number in range(10)]
    created = await asyncio.gather(*(stores.runs.create(run) for run in runs))
    assert len({(stored.version, stored.run.message) for stored in created}) == 1


async def test_of_two_updates_from_one_version_one_is_refused_and_changes_nothing(stores: Stores, unique: str) -> None:
    first = await stores.runs.create(a_run(unique))
    kept = await stores.runs.update(transition(first.run, RunState.PENDING, NOW), first.version)
    assert kept.version > first.version
    with pytest.raises(Conflict, match=first.run.id):
        await stores.runs.update(transition(first.run, RunState.CANCELLED, NOW), first.version)
    assert await stores.runs.get(first.run.id) == kept


async def test_runs_are_listed_newest_first_and_filtered(stores: Stores, unique: str) -> None:
    runs = [a_run(unique, str(minute), now=NOW + timedelta(minutes=minute)) for minute in (2, 0, 1)]
    for run in runs:
        await stores.runs.create(run)
    other = await stores.runs.create(a_run(unique + "x"))
    assert [s.run.id for s in await stores.runs.list(RunFilter(deployment=unique))] == [
        runs[0].id,
        runs[2].id,
        runs[1].id,
    ]
    assert [s.run.id for s in await stores.runs.list(RunFilter(deployment=unique), limit=1)] == [runs[0].id]
    stored = await stores.runs.get(runs[1].id)
    assert stored is not None
    await stores.runs.update(transition(stored.run, RunState.CANCELLED, NOW), stored.version)
    cancelled = await stores.runs.list(RunFilter(deployment=unique, states=frozenset({RunState.CANCELLED})))
    assert [s.run.id for s in cancelled] == [runs[1].id]
    assert other.run.id in {s.run.id for s in await stores.runs.list(limit=10_000)}


async def test_a_watch_gives_what_is_there_then_what_comes(stores: Stores, unique: str) -> None:
    first = await stores.runs.create(a_run(unique))
    await stores.runs.create(a_run(unique + "x"))
    async with asyncio.timeout(limit(20)):
        async with aclosing(stores.runs.watch(first.run.id)) as one:
            assert await anext(one) == first
            assert await anext(one) is None
            moved = await stores.runs.update(transition(first.run, RunState.PENDING, NOW), first.version)
            assert await anext(one) == moved
        async with aclosing(stores.runs.watch()) as every:
            seen = []
            async for stored in every:
                if stored is None:
                    break
                seen.append(stored)
            assert moved in seen
            await stores.runs.update(transition(moved.run, RunState.CANCELLED, NOW), moved.version)
            async for stored in every:
                if stored is not None and stored.run.id == first.run.id:
                    assert stored.run.state is RunState.CANCELLED
                    break


async def test_a_watch_of_nothing_says_so_at_once(stores: Stores) -> None:
    async with asyncio.timeout(limit(20)), aclosing(stores.runs.watch("f" * 32)) as nothing:
        assert await anext(nothing) is None


async def test_flags_have_compare_and_set(stores: Stores, unique: str) -> None:
    key = f"schedule/{unique}/every day, *>.é"
    flag = Flag(paused=True, changed="2026-03-01T12:00:00.000000Z")
    assert await stores.flags.get(key) is None
    version = await stores.flags.put(key, flag, 0)
    with pytest.raises(Conflict):
        await stores.flags.put(key, flag, 0)
    assert await stores.flags.get(key) == (flag, version)
    newer = await stores.flags.put(key, replace(flag, paused=False, note="n"), version)
    with pytest.raises(Conflict):
        await stores.flags.put(key, flag, version)
    assert (await stores.flags.all())[key] == replace(flag, paused=False, note="n")
    with pytest.raises(Conflict):
        await stores.flags.delete(key, version)
    await stores.flags.delete(key, newer)
    assert await stores.flags.get(key) is None
    assert key not in await stores.flags.all()
    assert (await stores.flags.put(key, flag, 0)) > 0
    assert newer != version


async def test_log_lines_come_back_in_order_and_tail_gives_the_last(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text=f"line {number} \x1b é", attempt=2) for number in range(7)]
    await stores.logs.append(run.id, lines[:3])
    await stores.logs.append(run.id, [])
    await stores.logs.append(run.id, lines[3:])
    assert await stores.logs.read(run.id) == lines
    assert await stores.logs.read(run.id, tail=2) == lines[-2:]
    assert await stores.logs.read(run.id, tail=0) == []
    assert await stores.logs.read(run.id, tail=100) == lines
    assert await stores.logs.read("e" * 32) == []


async def test_a_log_is_read_page_by_page_by_lines_and_bytes(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text=f"{number:05}") for number in range(50)]
    for begin in range(0, 50, 7):
        await stores.logs.append(run.id, lines[begin : begin + 7])
    for limit_, most_bytes in ((1, 10_000), (7, 10_000), (10, 10_000), (50, 10_000), (51, 10_000), (1000, 37), (5, 1)):
        found: list[LogLine] = []
        place = 0
        while True:
            page = await stores.logs.page(run.id, after=place, limit=limit_, most_bytes=most_bytes)
            place = page.next
            assert 1 <= len(page.lines) <= limit_
            assert sum(len(line.text) for line in page.lines) <= max(most_bytes, 5)
            found += page.lines
            if not page.more:
                break
        assert found == lines
    places = [0]
    for number in range(50):
        page = await stores.logs.page(run.id, after=places[-1], limit=1, most_bytes=100)
        assert (page.lines, page.more) == ([lines[number]], number < 49)
        places.append(page.next)
    for after in (49, 3, 0, 20, 50):
        page = await stores.logs.page(run.id, after=places[after], limit=2, most_bytes=100)
        assert page.lines == lines[after : after + 2]
        assert page.more == (after + 2 < 50)
    await stores.logs.append(run.id, lines[:1])
    assert (await stores.logs.page(run.id, after=places[50], limit=2, most_bytes=100)).lines == lines[:1]
    assert (await stores.logs.page("e" * 32, after=0, limit=2, most_bytes=100)).lines == []


async def test_a_place_in_a_log_stays_what_it_is_when_lines_before_it_are_gone(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text=f"{number}") for number in range(6)]
    first = await stores.logs.append(run.id, lines[:2])
    await stores.logs.append(run.id, lines[2:4])
    page = await stores.logs.page(run.id, after=0, limit=3, most_bytes=100)
    assert page.lines == lines[:3]
    await stores.logs.drop(run.id, first)
    await stores.logs.append(run.id, lines[4:])
    assert (await stores.logs.page(run.id, after=page.next, limit=10, most_bytes=100)).lines == lines[3:]


async def test_what_is_left_out_of_a_log_is_said_where_it_was(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text=f"line {number}") for number in range(8)]
    names: list[int] = []
    for number in range(0, 8, 2):
        before = LogBefore(lines=number, bytes=7 * number)
        names += await stores.logs.append(run.id, lines[number : number + 2], before=before)
    assert await stores.logs.read(run.id) == lines
    await stores.logs.drop(run.id, names[1:3])
    found = await stores.logs.read(run.id)
    assert [*found[:2], *found[3:]] == [*lines[:2], *lines[6:]]
    assert (found[2].stream, found[2].text[:35]) == ("system", "4 lines (28 bytes) are left out her")
    for limit_ in (1, 2, 3):
        pages: list[LogLine] = []
        place, more = 0, True
        while more:
            page = await stores.logs.page(run.id, after=place, limit=limit_, most_bytes=1000)
            pages, place, more = [*pages, *page.lines], page.next, page.more
        assert [line.stream for line in pages] == [line.stream for line in found]
    again = [LogLine(at="t", stream="stdout", text="again", attempt=2)]
    await stores.logs.append(run.id, again, before=LogBefore())
    assert (await stores.logs.read(run.id))[5:] == again


async def test_the_end_of_a_log_is_read_without_what_is_before_it(stores: Stores, unique: str) -> None:
    run, other = a_run(unique), a_run(f"{unique}-other")
    lines = [LogLine(at="t", stream="stdout", text=f"{number:05}") for number in range(50)]
    for begin in range(0, 50, 7):
        await stores.logs.append(run.id, lines[begin : begin + 7])
        await stores.logs.append(other.id, lines[:20])
    for limit_ in (1, 6, 7, 8, 30, 49, 50, 51, 10_000):
        found = await stores.logs.last(run.id, limit=limit_, most_bytes=10_000)
        assert (found.lines, found.more) == (lines[-limit_:], False), limit_
        assert (await stores.logs.page(run.id, after=found.next, limit=10, most_bytes=100)).lines == []
    found = await stores.logs.last(run.id, limit=50, most_bytes=20)
    assert 1 <= len(found.lines) <= 4
    assert found.lines == lines[-len(found.lines) :]
    await stores.logs.append(run.id, lines[:3])
    following = await stores.logs.page(run.id, after=found.next, limit=10, most_bytes=100)
    assert following.lines == lines[:3]
    nothing = await stores.logs.last("e" * 32, limit=5, most_bytes=100)
    assert (nothing.lines, nothing.next) == ([], 0)


async def test_the_end_of_a_log_says_what_is_left_out_of_it_alone(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text=f"line {number}") for number in range(8)]
    names: list[int] = []
    for number in range(0, 8, 2):
        names += await stores.logs.append(
            run.id, lines[number : number + 2], before=LogBefore(lines=number, bytes=7 * number)
        )
    await stores.logs.drop(run.id, names[2:3])
    assert (await stores.logs.last(run.id, limit=2, most_bytes=1000)).lines == lines[6:]
    found = (await stores.logs.last(run.id, limit=4, most_bytes=1000)).lines
    assert [line.stream for line in found] == ["stdout", "system", "stdout", "stdout"]
    assert found[0] == lines[3]
    whole = (await stores.logs.last(run.id, limit=100, most_bytes=1000)).lines
    assert whole == await stores.logs.read(run.id)


async def test_more_log_lines_than_fit_a_message_are_kept(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    lines = [LogLine(at="t", stream="stdout", text="\x01" * 16_000) for _ in range(30)]
    await stores.logs.append(run.id, lines)
    assert await stores.logs.read(run.id) == lines


async def test_a_run_is_queued_once_until_it_was_answered(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    queue = stores.queue
    assert await queue.put(run.id, pool=unique, deployment=unique)
    assert not await queue.put(run.id, pool=unique, deployment=unique)
    item = await queue.fetch(unique, wait=LONG)
    assert item is not None
    assert (item.run_id, item.deliveries) == (run.id, 1)
    assert not await queue.put(run.id, pool=unique, deployment=unique)
    assert await queue.fetch(unique, wait=SHORT) is None
    await item.ack()
    assert await queue.put(run.id, pool=unique, deployment=unique)


async def test_a_pool_gets_its_own_runs_only(stores: Stores, unique: str) -> None:
    await stores.queue.put(a_run(unique).id, pool=unique + ".a *>", deployment="d")
    assert await stores.queue.fetch(unique + ".b", wait=SHORT) is None
    item = await stores.queue.fetch(unique + ".a *>", wait=LONG)
    assert item is not None
    await item.ack()


async def test_a_run_that_is_handed_back_comes_again_after_the_delay(stores: Stores, unique: str) -> None:
    await stores.queue.put(a_run(unique).id, pool=unique, deployment="d")
    item = await stores.queue.fetch(unique, wait=LONG)
    assert item is not None
    await item.nak(timedelta(seconds=limit(0.5)))
    assert await stores.queue.fetch(unique, wait=timedelta(seconds=0.1)) is None
    again = await stores.queue.fetch(unique, wait=LONG)
    assert again is not None
    assert again.deliveries == 2
    await again.nak(timedelta(0))
    third = await stores.queue.fetch(unique, wait=LONG)
    assert third is not None
    await third.ack()
    assert await stores.queue.fetch(unique, wait=SHORT) is None


async def test_a_run_whose_taker_fell_silent_comes_again_and_one_in_progress_does_not(
    stores: Stores, unique: str
) -> None:
    await stores.queue.put(a_run(unique, "silent").id, pool=unique, deployment="d")
    await stores.queue.put(a_run(unique, "busy").id, pool=unique, deployment="d")
    taken = [await stores.queue.fetch(unique, wait=LONG), await stores.queue.fetch(unique, wait=LONG)]
    busy = next(item for item in taken if item is not None and item.run_id == a_run(unique, "busy").id)

    async def keep_busy() -> None:
        while True:
            await busy.in_progress()
            await asyncio.sleep(stores.queue.ack_wait.total_seconds() / 10)

    keeper = asyncio.create_task(keep_busy())
    again = await stores.queue.fetch(unique, wait=LONG)
    assert again is not None
    assert again.run_id == a_run(unique, "silent").id
    await again.ack()
    assert await stores.queue.fetch(unique, wait=stores.queue.ack_wait + SHORT) is None
    keeper.cancel()
    await busy.ack()


async def test_heartbeats_tell_when_the_last_one_came(stores: Stores, unique: str) -> None:
    run = a_run(unique)
    assert await stores.heartbeats.last(run.id) is None
    before = datetime.now(UTC)
    await stores.heartbeats.beat(run.id, "w")
    last = await stores.heartbeats.last(run.id)
    assert last is not None
    assert abs(last - before) < timedelta(seconds=10)
    await stores.heartbeats.clear(run.id)
    assert await stores.heartbeats.last(run.id) is None


async def test_slots_are_never_given_to_more_than_the_limit(stores: Stores, unique: str) -> None:
    async def alive(_: str) -> bool:
        return True

    asked = [str(number) for number in range(8)]
    got = await asyncio.gather(*(stores.slots.acquire(unique, [holder], 3, alive) for holder in asked))
    assert sum(got) == 3
    holders = await stores.slots.holders(unique)
    assert len(holders) == 3
    assert await stores.slots.acquire(unique, [holders[0]], 3, alive)
    await stores.slots.release(unique, [holders[0]])
    await stores.slots.release(unique, ["nobody"])
    assert await stores.slots.acquire(unique, ["next"], 3, alive)
    assert not await stores.slots.acquire(unique, ["after"], 3, alive)


async def test_slots_of_holders_that_are_gone_are_freed(stores: Stores, unique: str) -> None:
    async def alive(holder: str) -> bool:
        return holder != "gone"

    assert await stores.slots.acquire(unique, ["gone"], 1, alive)
    assert await stores.slots.acquire(unique, ["here"], 1, alive)
    assert await stores.slots.holders(unique) == ["here"]


async def test_slots_of_several_holders_are_taken_all_or_none(stores: Stores, unique: str) -> None:
    async def alive(holder: str) -> bool:
        return not holder.startswith("gone")

    many = [f"many.{number}" for number in range(1000)]
    assert await stores.slots.acquire(unique, many, 1003, alive)
    assert await stores.slots.acquire(unique, [*many[:2], "gone.1"], 1003, alive)  # two have theirs already
    assert not await stores.slots.acquire(unique, ["a", "b", "c", "d"], 1003, alive)
    assert set(await stores.slots.holders(unique)) <= {*many, "gone.1"}  # no part of them
    assert await stores.slots.acquire(unique, ["a", "b", "c"], 1003, alive)  # who is gone has none any more
    assert await stores.slots.acquire(
        unique, ["a", many[0]], 3, alive
    )  # what is held is kept, whatever the limit is now
    await stores.slots.release(unique, [*many, "nobody"])
    assert await stores.slots.holders(unique) == ["a", "b", "c"]


@pytest.mark.parametrize("text", [">", "*", "", "*" * 32, "." * 32])
async def test_a_text_that_is_no_id_of_a_run_names_no_run(stores: Stores, unique: str, text: str) -> None:
    stored = await stores.runs.create(a_run(unique))
    await stores.logs.append(stored.run.id, [LogLine(at="t", stream="stdout", attempt=1, text="secret")])
    assert await stores.runs.get(text) is None
    orchestrator = BuiltInOrchestrator(stores, DeploymentSet([]))
    for ask in (orchestrator.get_flow_run, orchestrator.logs, orchestrator.cancel_flow_run):
        with pytest.raises(NotFound, match="there is no flow run"):
            await ask(text)
    assert (await stores.runs.get(stored.run.id)) == stored
