"""How many runs are active at once: of a deployment, of a value of a parameter, of a work pool; in memory and over NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.contract.test_flow_worker import House
from whenthen.runs.run_states import transition
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import Deployment, FlowRun, RunState
from whenthen.schemas.errors import Conflict
from whenthen.schemas.work_pools import WorkPool

pytestmark = pytest.mark.anyio

#: waits for the file `go`, and writes how many of its kind run
COUNTED = 'echo x >> "$0.$WHENTHEN_RUN_ID"; until test -e go; do sleep 0.05; done'


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Callable[..., Awaitable[None]]) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    return House(stores, root, unique, eventually)


async def running(house: House, runs: list[FlowRun]) -> list[FlowRun]:
    return [run for run in runs if (await house.now(run)).state is RunState.RUNNING]


async def test_each_value_of_the_key_has_a_limit_of_its_own(
    house: House, eventually: Callable[..., Awaitable[None]]
) -> None:
    house.deploy(command=["sh", "-c", COUNTED], concurrency={"limit": 1, "key": "$.parameters.customer.id"})
    ones = [await house.start(f"one-{number}", customer={"id": 1}) for number in range(3)]
    others = [await house.start("two", customer={"id": 2}), await house.start("text", customer={"id": "1"})]
    nothing = [await house.start("none"), await house.start("null", customer={"id": None})]
    async with house.worker(name="a"), house.worker(name="b"):
        for run in others:
            await house.reaches(run, RunState.RUNNING)

        async def one_of_each() -> bool:
            return len(await running(house, ones)) == 1 and len(await running(house, nothing)) == 1

        await eventually(one_of_each)
        assert sorted(await house.stores.slots.holders(house.pool)) == []  # none is without a key
        (house.root / "go").touch()
        ended = [await house.ends(run) for run in (*ones, *others, *nothing)]
    assert {run.state for run in ended} == {RunState.COMPLETED}
    spans = sorted((run.started or "", run.ended or "") for run in ended[:3])
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


async def test_a_new_run_above_the_limit_is_cancelled_and_a_retry_is_not(house: House) -> None:
    fails = ["sh", "-c", "test -e again && exit 0; touch again; until test -e go; do sleep 0.05; done; exit 1"]
    limits = {"limit": 1, "on_limit": "cancel-new"}
    house.deploy(command=fails, concurrency=limits, retries=1, retry_delay="0s")
    first = await house.start("first")
    async with house.worker():
        await house.reaches(first, RunState.RUNNING)
        new = await house.ends(await house.start("new"))
        assert new.state is RunState.CANCELLED
        assert "1 slots of deployment" in new.message
        (house.root / "go").touch()
        ended = await house.ends(first)
    assert (ended.state, ended.attempt) == (RunState.COMPLETED, 2)


async def test_the_newest_run_takes_the_slot_of_the_oldest(house: House) -> None:
    house.deploy(command=["sh", "-c", COUNTED], concurrency={"limit": 1, "on_limit": "cancel-running"})
    async with house.worker(name="a"), house.worker(name="b"):
        first = await house.start("1")
        await house.reaches(first, RunState.RUNNING)
        second = await house.start("2")
        await house.reaches(second, RunState.RUNNING)
        cancelled = await house.ends(first)
        third, fourth = await house.start("3"), await house.start("4")
        await house.reaches(fourth, RunState.RUNNING)
        assert [(await house.ends(run)).state for run in (second, third)] == [RunState.CANCELLED] * 2
        (house.root / "go").touch()
        assert (await house.ends(fourth)).state is RunState.COMPLETED
    assert cancelled.state is RunState.CANCELLED


async def test_the_limit_of_a_pool_holds_for_all_its_deployments(
    house: House, eventually: Callable[..., Awaitable[None]]
) -> None:
    house.deploy(name=f"{house.pool}-a", command=["sh", "-c", COUNTED])
    house.deploy(name=f"{house.pool}-b", command=["sh", "-c", COUNTED])
    house.deployments.pools[house.pool] = WorkPool(name=house.pool, limit=2)
    runs = [await house.start(str(number), f"{house.pool}-{'ab'[number % 2]}") for number in range(4)]
    async with house.worker(name="a"), house.worker(name="b"):

        async def two() -> bool:
            return len(await running(house, runs)) == 2

        await eventually(two)
        for _ in range(20):
            assert len(await running(house, runs)) == 2
        (house.root / "go").touch()
        ended = [await house.ends(run) for run in runs]
    assert {run.state for run in ended} == {RunState.COMPLETED}
    assert await house.stores.slots.holders(f"work-pool/{house.pool}") == []


async def test_the_slot_of_a_dead_worker_comes_free_with_its_run(house: House) -> None:
    house.deploy(command="true", concurrency={"limit": 1, "key": "$.parameters.customer"})
    house.deployments.pools[house.pool] = WorkPool(name=house.pool, limit=1)
    dead = await house.start("dead", customer="c")
    stored = await house.orchestrator.get_flow_run(dead.id)
    for state in (RunState.PENDING, RunState.RUNNING):
        changed = transition(stored.run, state, datetime.now(UTC), worker="dead")
        stored = await house.stores.runs.update(changed, stored.version)

    async def yes(_: str) -> bool:
        return True

    key = house.deployments.current()[house.pool].limits.key_of(dead.parameters)  # type: ignore[union-attr]
    assert await house.stores.slots.acquire(house.pool, [dead.id], 1, yes, key=key)
    assert await house.stores.slots.acquire(f"work-pool/{house.pool}", [dead.id], 1, yes)
    waits = await house.start("waits", customer="c")
    async with house.worker():
        assert (await house.ends(waits)).state is RunState.COMPLETED
    assert (await house.now(dead)).state is RunState.CRASHED


async def test_a_paused_pool_starts_nothing_until_it_is_resumed(
    house: House, eventually: Callable[..., Awaitable[None]]
) -> None:
    house.deploy(command="true")
    await house.orchestrator.pause_work_pool(house.pool)
    run = await house.start()
    async with house.worker() as worker:

        async def seen() -> bool:
            return worker.paused

        await eventually(seen)
        assert (await house.now(run)).state is RunState.SCHEDULED
        await house.orchestrator.resume_work_pool(house.pool)
        assert (await house.ends(run)).state is RunState.COMPLETED


async def test_a_pool_that_the_rules_pause_is_resumed_by_a_flag(
    house: House, eventually: Callable[..., Awaitable[None]]
) -> None:
    house.deploy(command="true")
    house.deployments.pools[house.pool] = WorkPool(name=house.pool, paused=True)
    run = await house.start()
    async with house.worker() as worker:

        async def seen() -> bool:
            return worker.paused

        await eventually(seen)
        await house.orchestrator.resume_work_pool(house.pool)
        assert (await house.ends(run)).state is RunState.COMPLETED


async def test_workers_take_the_runs_of_queues_in_their_order_and_their_own_last(house: House) -> None:
    urgent, bulk = f"{house.pool}-urgent", f"{house.pool}-bulk"
    words = ["sh", "-c", 'echo "$WHENTHEN_DEPLOYMENT" >> order']
    pools = {"own": house.pool, "urgent": urgent, "bulk": bulk}
    house.deployments.replace(
        [Deployment(name=f"{house.pool}-{name}", work_pool=pool, command=words) for name, pool in pools.items()]
    )
    house.deployments.pools = {
        house.pool: WorkPool(name=house.pool, limit=1, queues=[urgent, bulk]),
        bulk: WorkPool(name=bulk, paused=True),
    }
    runs = [
        await house.start(f"{name}-{number}", name=f"{house.pool}-{name}")
        for number in range(2)
        for name in ("own", "bulk", "urgent")
    ]
    async with house.worker(concurrency=1):
        for run in runs:
            if run.work_pool != bulk:
                await house.ends(run)
        assert (await house.now(runs[1])).state is RunState.SCHEDULED
        await house.orchestrator.resume_work_pool(bulk)
        for run in runs:
            await house.ends(run)
    order = [line.rpartition("-")[2] for line in (house.root / "order").read_text().splitlines()]
    assert order == ["urgent", "urgent", "own", "own", "bulk", "bulk"]


def test_a_queue_is_another_pool() -> None:
    for queues in (["p"], ["a", "a"]):
        with pytest.raises(ValueError, match="other pools"):
            WorkPool(name="p", queues=queues)


async def test_a_run_that_has_ended_is_retried_once_for_each_key(house: House) -> None:
    house.deploy(command=["sh", "-c", 'test "$WHENTHEN_PARAM_N" = 2'])
    failed = await house.start(n=1)
    with pytest.raises(Conflict, match="is Scheduled; only one that has ended"):
        await house.orchestrator.retry_flow_run(failed.id, key=f"{house.pool}/again")
    async with house.worker():
        assert (await house.ends(failed)).state is RunState.FAILED
        again = [await house.orchestrator.retry_flow_run(failed.id, key=f"{house.pool}/again") for _ in range(2)]
        assert again[0].id == again[1].id != failed.id
        ended = await house.ends(again[0])
    assert (ended.parameters, ended.state) == ({"n": 1}, RunState.FAILED)
    assert {"id": f"whenthen.flow-run.{failed.id}", "role": "retried"} in ended.related


async def test_workers_are_known_while_they_work(house: House, eventually: Callable[..., Awaitable[None]]) -> None:
    house.deploy(command=["sh", "-c", COUNTED])
    async with house.worker(name="one", concurrency=3), house.worker(name="two"):
        run = await house.start()
        await house.reaches(run, RunState.RUNNING)

        async def listed() -> bool:
            here = [each for each in await house.stores.workers.all() if each.pool == house.pool]
            return (
                sorted((each.name, each.concurrency) for each in here) == [("one", 3), ("two", 4)]
                and sum(each.running for each in here) == 1
            )

        await eventually(listed)
        (house.root / "go").touch()
        await house.ends(run)
    assert [each for each in await house.stores.workers.all() if each.pool == house.pool] == []
