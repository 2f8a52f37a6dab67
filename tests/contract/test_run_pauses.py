"""Runs that wait for people: paused and suspended by their code or by somebody, and resumed; with the stores in memory and over NATS."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import House, alive
from tests.patience import limit
from whenthen.runs.pauses.pause_changes import NotPaused, PauseOver
from whenthen.runs.reaper import Reaper, ReaperSettings
from whenthen.runs.run_states import transition
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound

pytestmark = pytest.mark.anyio
Eventually = Callable[..., Awaitable[None]]

FLOWS = """
import os, time
from datetime import date
from pydantic import BaseModel
from whenthen import flow, pause_flow_run, suspend_flow_run, task
from whenthen.cache_policies import INPUTS, RUN_ID
from whenthen.exceptions import FlowPauseTimeout
from whenthen.flow_runs import resume_flow_run
from whenthen.input import RunInput

class Approval(RunInput):
    approved: bool
    until: date | None = None
    note: str = "none"

@flow
def approve():
    found = pause_flow_run(wait_for_input=Approval.with_initial_data(description="Is it good?"), timeout=300)
    return [found.approved, str(found.until), found.note, os.getpid()]

@flow
def twice():
    return [pause_flow_run(wait_for_input=int), pause_flow_run(wait_for_input=list[int]), pause_flow_run()]

@flow
def asks_twice():
    return [pause_flow_run(wait_for_input=int), pause_flow_run(wait_for_input=int)]

@flow
def soon():
    try:
        pause_flow_run(timeout=0.2)
    except FlowPauseTimeout:
        return "nobody came"

@flow
def late():
    pause_flow_run(timeout=0.2)

@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def load(n):
    with open("loads", "a") as file:
        file.write(f"{n}\\n")
    return n

@flow
def suspends(n: int):
    first = load(n)
    with open("processes", "a") as file:
        file.write(f"{os.getpid()}\\n")
    found = suspend_flow_run(wait_for_input=Approval)
    return [first, found.approved, found.note]

@flow
async def suspends_async():
    found = await suspend_flow_run(wait_for_input=int, timeout=300)
    return found + 1

@flow
def stays():
    try:
        suspend_flow_run()
    except BaseException:
        while True:
            time.sleep(0.05)

@flow
def works():
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    while not os.path.exists("done"):
        time.sleep(0.05)
    return "worked"

@flow
def many():
    for number in range(10_000):
        load(number)
        if os.path.exists("done"):
            return number
        time.sleep(0.02)

@flow
def resumes(run: str):
    resume_flow_run(run, {"approved": True})
"""


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Eventually) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    (root / "flows.py").write_text(FLOWS)
    return House(stores, root, unique, eventually)


def deploy(house: House, flow: str, **fields: Any) -> str:
    return house.deploy(entrypoint=f"flows.py:{flow}", **fields)


def holding(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return condition()

    return look


async def states(house: House, run: FlowRun) -> list[str]:
    """What the run's flow told of itself."""
    page = await house.stores.task_runs.page(run.id, after=0, limit=100)
    return [state.name for one in page.task_runs if one.kind == "flow" for state in one.states]


async def test_a_paused_run_waits_in_its_process_and_goes_on_with_its_input(house: House) -> None:
    deploy(house, "approve")
    run = await house.start()
    async with house.worker():
        paused = await house.reaches(run, RunState.PAUSED)
        assert paused.pause is not None
        assert (paused.pause["key"], paused.pause["description"]) == ("1", "Is it good?")
        assert set(paused.pause["schema"]["properties"]) == {"approved", "until", "note"}
        assert paused.pause["until"] > paused.pause["since"]
        resumed = await house.orchestrator.resume_flow_run(run.id, {"approved": True, "until": "2026-12-01"}, by="ada")
        assert (resumed.state, resumed.message, resumed.pause) == (RunState.RUNNING, "resumed by ada", None)
        ended = await house.ends(run)
    assert (ended.state, ended.attempt, ended.started) == (RunState.COMPLETED, 1, paused.started)
    assert ended.result[:3] == [True, "2026-12-01", "none"]
    assert ended.inputs == {"1": {"approved": True, "until": "2026-12-01"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, ["'approved' is a required property"]),
        (
            {"approved": "maybe", "note": 3},
            ["approved: 'maybe' is not of type 'boolean'", "note: 3 is not of type 'string'"],
        ),
        ({"approved": True, "aproved": True}, ["'aproved' was unexpected"]),
        ([1], ["is not of type 'object'"]),
    ],
)
async def test_input_that_does_not_fit_is_refused_and_each_field_named(
    house: House, given: Any, said: list[str]
) -> None:
    deploy(house, "approve")
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.PAUSED)
        with pytest.raises(InvalidInput) as caught:
            await house.orchestrator.resume_flow_run(run.id, given)
        assert all(text in str(caught.value) for text in said), str(caught.value)
        assert caught.value.path == ("input",)
        assert (await house.now(run)).state is RunState.PAUSED
        await house.orchestrator.cancel_flow_run(run.id)
        assert (await house.ends(run)).state is RunState.CANCELLED


async def test_each_pause_of_a_run_is_resumed_with_its_own_input(house: House) -> None:
    deploy(house, "twice")
    run = await house.start()
    async with house.worker():
        for key, given in (("1", 3), ("2", {"value": [4, 5]}), ("3", None)):
            await house._eventually(lambda key=key: waits_at(house, run, key))
            await house.orchestrator.resume_flow_run(run.id, given)
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, [3, [4, 5], None])


async def waits_at(house: House, run: FlowRun, key: str) -> bool:
    now = await house.now(run)
    return now.pause is not None and now.pause["key"] == key


async def test_nobody_resumes_in_time(house: House) -> None:
    caught, failed = deploy(house, "soon"), deploy(house, "late", name=f"{house.pool}.late")
    runs = [await house.start(name, name=name) for name in (caught, failed)]
    async with house.worker():
        ends = [await house.ends(run) for run in runs]
    assert [(end.state, end.result) for end in ends] == [
        (RunState.COMPLETED, "nobody came"),
        (RunState.FAILED, None),
    ]
    assert "never resumed" in ends[1].message
    with pytest.raises(NotPaused, match="is Completed; only one that is Paused or Suspended"):
        await house.orchestrator.resume_flow_run(runs[0].id, None)


async def test_of_many_who_resume_a_run_one_does(house: House) -> None:
    deploy(house, "approve")
    run = await house.start()

    async def resume(number: int) -> bool:
        try:
            await house.orchestrator.resume_flow_run(run.id, {"approved": True, "note": str(number)})
        except NotPaused:
            return False
        return True

    async with house.worker():
        await house.reaches(run, RunState.PAUSED)
        done = await asyncio.gather(*(resume(number) for number in range(5)))
        ended = await house.ends(run)
    assert sorted(done) == [False] * 4 + [True]
    assert ended.result[2] == str(done.index(True))


async def test_the_same_key_resumes_a_run_once(house: House) -> None:
    deploy(house, "approve")
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.PAUSED)
        for _ in range(2):
            await house.orchestrator.resume_flow_run(run.id, {"approved": True}, key="firing.0")
        await house.ends(run)


async def test_the_answer_to_one_pause_is_none_to_the_next(house: House) -> None:
    deploy(house, "asks_twice")
    run = await house.start()
    async with house.worker():
        first = (await house.reaches(run, RunState.PAUSED)).pause
        assert first is not None
        await house.orchestrator.resume_flow_run(run.id, 1, since=first["since"])

        async def waits_again() -> bool:
            now = (await house.orchestrator.get_flow_run(run.id)).run
            return now.state is RunState.PAUSED and now.pause != first

        await house._eventually(waits_again)
        with pytest.raises(NotPaused, match="another pause by now"):
            await house.orchestrator.resume_flow_run(run.id, 1, since=first["since"])
        await house.orchestrator.resume_flow_run(run.id, 2)
        ended = await house.ends(run)
    assert ended.result == [1, 2]


async def test_a_suspended_run_whose_deployment_is_gone_keeps_its_question(house: House) -> None:
    deploy(house, "suspends", env={"WHENTHEN_RESULTS": str(house.root / "results")})
    run = await house.start(n=7)
    async with house.worker():
        await house.reaches(run, RunState.SUSPENDED)
    house.deployments.replace([])
    with pytest.raises(Conflict, match="is not in the rules any more; bring it back"):
        await house.orchestrator.resume_flow_run(run.id, {"approved": True})
    deploy(house, "suspends")
    assert (await house.orchestrator.resume_flow_run(run.id, {"approved": True})).state is RunState.SCHEDULED


async def test_a_suspended_run_ends_its_process_and_starts_again_with_input_and_results(house: House) -> None:
    deploy(house, "suspends", env={"WHENTHEN_RESULTS": str(house.root / "results")})
    run = await house.start(n=7)
    async with house.worker(concurrency=1) as worker:
        suspended = await house.reaches(run, RunState.SUSPENDED)
        (pid,) = (house.root / "processes").read_text().split()
        await house._eventually(holding(lambda: not worker.held))
        assert not alive(int(pid))
        assert (suspended.worker, suspended.message, suspended.suspensions) == (None, "waits for input", 1)
        assert (await states(house, run))[-1] == "Suspended"
        assert await house.text(run, "stderr") == []
        resumed = await house.orchestrator.resume_flow_run(run.id, {"approved": True, "note": "go"})
        assert resumed.state is RunState.SCHEDULED
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, [7, True, "go"])
    assert (ended.attempt, ended.inputs) == (2, {"1": {"approved": True, "note": "go"}})
    assert (house.root / "loads").read_text() == "7\n"
    assert len((house.root / "processes").read_text().split()) == 2


async def test_an_async_flow_is_suspended_and_another_worker_goes_on(house: House) -> None:
    deploy(house, "suspends_async")
    run = await house.start()
    async with house.worker(name=f"{house.pool}-1"):
        await house.reaches(run, RunState.SUSPENDED)
    await house.orchestrator.resume_flow_run(run.id, 41)
    async with house.worker(name=f"{house.pool}-2"):
        ended = await house.ends(run)
    assert (ended.state, ended.result, ended.worker) == (RunState.COMPLETED, 42, f"{house.pool}-2")


async def test_a_suspended_run_goes_on_with_the_file_as_it_is_then(house: House) -> None:
    deploy(house, "suspends_async")
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.SUSPENDED)
        (house.root / "flows.py").write_text(FLOWS.replace("found + 1", "['new', found]"))
        await house.orchestrator.resume_flow_run(run.id, 1)
        assert (await house.ends(run)).result == ["new", 1]
    other = await house.start("other")
    async with house.worker():
        await house.reaches(other, RunState.SUSPENDED)
        (house.root / "flows.py").write_text(
            FLOWS.replace("wait_for_input=int, timeout", "wait_for_input=Approval, timeout")
        )
        await house.orchestrator.resume_flow_run(other.id, 1)
        ended = await house.ends(other)
    assert ended.state is RunState.FAILED
    assert "input of the run does not fit" in ended.message


async def test_a_process_that_asked_to_be_suspended_and_goes_on_is_stopped(house: House) -> None:
    deploy(house, "stays")
    run = await house.start()
    async with house.worker():
        suspended = await house.reaches(run, RunState.SUSPENDED)
        assert suspended.message == "waits to be resumed"
    await house.orchestrator.cancel_flow_run(run.id)
    assert (await house.now(run)).state is RunState.CANCELLED


async def test_a_running_run_is_suspended_by_somebody_and_starts_again(house: House) -> None:
    deploy(house, "works", retries=0)
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.RUNNING)
        await house._eventually(holding((house.root / "pids").exists))
        suspended = await house.orchestrator.suspend_flow_run(run.id, by="ada")
        assert (suspended.state, suspended.message) == (RunState.SUSPENDED, "suspended by ada")
        await house.orchestrator.suspend_flow_run(run.id)
        with pytest.raises(InvalidInput, match="takes no input"):
            await house.orchestrator.resume_flow_run(run.id, {"n": 1})
        (house.root / "done").touch()
        await house.orchestrator.resume_flow_run(run.id, None)
        ended = await house.ends(run)
    assert (ended.state, ended.result, ended.attempt) == (RunState.COMPLETED, "worked", 2)
    first, second = (house.root / "pids").read_text().split()
    assert first != second
    assert "stopping: suspended" in await house.text(run, "system")


async def test_a_run_that_somebody_pauses_waits_before_its_next_task(house: House) -> None:
    deploy(house, "many", env={"WHENTHEN_RESULTS": str(house.root / "results")})
    run = await house.start()
    loads = house.root / "loads"
    async with house.worker():
        await house.reaches(run, RunState.RUNNING)
        await house._eventually(holding(loads.exists))
        paused = await house.orchestrator.pause_flow_run(run.id, by="ada")
        assert (paused.state, paused.message) == (RunState.PAUSED, "paused by ada")

        async def stands_still() -> bool:
            before = loads.read_text()
            await asyncio.sleep(0.3)
            return loads.read_text() == before

        await house._eventually(stands_still)
        (house.root / "done").touch()
        await house.orchestrator.resume_flow_run(run.id, None)
        ended = await house.ends(run)
    assert (ended.state, ended.attempt) == (RunState.COMPLETED, 1)
    house.deploy(command="sleep 60")
    other = await house.start("other")
    with pytest.raises(Conflict, match="is a command, which knows of no pauses"):
        await house.orchestrator.pause_flow_run(other.id)


async def test_a_paused_run_that_is_suspended_waits_for_the_same_thing(house: House) -> None:
    deploy(house, "approve")
    run = await house.start()
    async with house.worker():
        paused = await house.reaches(run, RunState.PAUSED)
        suspended = await house.orchestrator.suspend_flow_run(run.id)
        assert suspended.pause == paused.pause
        await house.orchestrator.resume_flow_run(run.id, {"approved": False})
        ended = await house.ends(run)
    assert (ended.state, ended.result[0], ended.attempt) == (RunState.COMPLETED, False, 2)


async def test_a_run_that_waits_is_kept_back_until_it_is_resumed(house: House) -> None:
    deploy(house, "works")
    (house.root / "done").touch()
    run = await house.start()
    await house.orchestrator.suspend_flow_run(run.id)
    async with house.worker():
        other = await house.start("other")
        await house.ends(other)
        assert (await house.now(run)).state is RunState.SUSPENDED
        await house.orchestrator.resume_flow_run(run.id, None)
        # its first delivery may not be acknowledged yet; the reaper queues it then
        await reap_until_ended(house, run)
    assert ((await house.now(run)).state, (await house.now(run)).attempt) == (RunState.COMPLETED, 1)


async def reap_until_ended(house: House, run: FlowRun) -> None:
    settings = ReaperSettings(lost_after=timedelta(seconds=limit(2)), requeue_after=timedelta(seconds=0.2))
    reaper = Reaper(house.stores, settings=settings)

    async def ended() -> bool:
        stored = await house.stores.runs.get(run.id)
        assert stored is not None
        await reaper.sweep([stored])
        return stored.run.ended is not None

    await house._eventually(ended)


async def test_one_run_resumes_another(house: House) -> None:
    approve, resumes = deploy(house, "approve"), deploy(house, "resumes", name=f"{house.pool}.resumes")
    run = await house.start(approve, name=approve)
    async with house.worker():
        await house.reaches(run, RunState.PAUSED)
        other = await house.start(resumes, name=resumes, run=run.id)
        assert (await house.ends(other)).state is RunState.COMPLETED
        ended = await house.ends(run)
    assert ended.state is RunState.COMPLETED
    again = await house.start("again", name=resumes, run=run.id)
    async with house.worker():
        failed = await house.ends(again)
    assert "NotPausedError" in failed.message


async def test_a_suspended_run_that_nobody_resumes_in_time_fails(house: House) -> None:
    deploy(house, "suspends_async")
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.SUSPENDED)
    stored = await house.stores.runs.get(run.id)
    assert stored is not None
    reaper = Reaper(house.stores, clock=lambda: datetime.now(UTC) + timedelta(seconds=301))
    await reaper.sweep([stored])
    failed = await house.now(run)
    assert (failed.state, failed.message) == (RunState.FAILED, "it was suspended, and nobody resumed it in time")


async def test_it_is_too_late_to_resume_although_nobody_has_noticed_yet(house: House) -> None:
    deploy(house, "works")
    run = await house.start()
    await house.orchestrator.suspend_flow_run(run.id, timeout_s=0)
    with pytest.raises(PauseOver, match="could be resumed until"):
        await house.orchestrator.resume_flow_run(run.id, None)


async def test_a_paused_run_whose_worker_died_is_retried_and_not_asked_again(house: House) -> None:
    deploy(house, "twice", retries=1, retry_delay="0s")
    run = await house.start()
    async with house.worker(name=f"{house.pool}-1") as worker:
        await house.reaches(run, RunState.PAUSED)
        await house.orchestrator.resume_flow_run(run.id, 3)
        await house._eventually(lambda: waits_at(house, run, "2"))
        # as if the worker were gone: somebody finds the run without a heartbeat
        stored = await house.stores.runs.get(run.id)
        assert stored is not None
        crashed = transition(stored.run, RunState.RETRYING, datetime.now(UTC))
        await house.stores.runs.update(crashed, stored.version)
        await house._eventually(holding(lambda: not worker.held))
    async with house.worker(name=f"{house.pool}-2"):
        await house.stores.queue.put(run.id, pool=house.pool, deployment=house.pool)
        await house._eventually(lambda: waits_at(house, run, "2"))
        assert (await house.now(run)).attempt == 2
        await house.orchestrator.resume_flow_run(run.id, [1])
        await house._eventually(lambda: waits_at(house, run, "3"))
        await house.orchestrator.resume_flow_run(run.id, None)
        ended = await house.ends(run)
    assert ended.result == [3, [1], None]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_cancelled_flow_calls_its_hooks(house: House, kind: str) -> None:
    wait = "await asyncio.sleep(60)" if kind == "async def" else "time.sleep(60)"
    code = f"""
    import asyncio, time
    from whenthen import flow

    def gone(flow, run, state):
        print("hook", flow.name, state.name, flush=True)

    @flow(on_cancellation=[gone], on_crashed=[gone], on_failure=[gone])
    {kind} main():
        print("begun", flush=True)
        try:
            {wait}
        finally:
            print("cleaned up", flush=True)
    """
    (house.root / "job.py").write_text(textwrap.dedent(code))
    house.deploy(entrypoint="job.py:main")
    run = await house.start()
    async with house.worker(kill_grace=timedelta(seconds=20)):

        async def begun() -> bool:
            return await house.text(run) == ["begun"]

        await house._eventually(begun)
        await house.orchestrator.cancel_flow_run(run.id)
        ended = await house.ends(run)
    assert (ended.state, ended.message) == (RunState.CANCELLED, "cancelled")
    assert await house.text(run) == ["begun", "cleaned up", "hook main Cancelled"]
    assert (await states(house, run))[-1] == "Cancelled"
    assert await house.text(run, "stderr") == ["Flow run was cancelled."]


async def test_a_run_in_a_warm_interpreter_is_paused_and_its_hooks_are_called(house: House) -> None:
    code = """
    from whenthen import flow, pause_flow_run

    @flow(on_cancellation=[lambda flow, run, state: print("hook", state.name, flush=True)])
    def main():
        print(pause_flow_run(wait_for_input=int), flush=True)
        pause_flow_run()
    """
    (house.root / "job.py").write_text(textwrap.dedent(code))
    house.deploy(entrypoint="job.py:main", preload=["whenthen"])
    async with house.worker(kill_grace=timedelta(seconds=20)) as worker:
        await house._eventually(holding(lambda: sum(worker.warm.values()) > 0))
        run = await house.start()
        await house.reaches(run, RunState.PAUSED)
        await house.orchestrator.resume_flow_run(run.id, 3)
        await house._eventually(lambda: waits_at(house, run, "2"))
        await house.orchestrator.cancel_flow_run(run.id)
        assert (await house.ends(run)).state is RunState.CANCELLED
    assert await house.text(run) == ["3", "hook Cancelled"]


async def test_a_state_is_set_by_somebody_where_the_table_has_the_move(house: House) -> None:
    deploy(house, "works")
    run = await house.start()
    async with house.worker() as worker:
        await house.reaches(run, RunState.RUNNING)
        await house._eventually(holding((house.root / "pids").exists))
        await house.orchestrator.change_flow_run_state(run.id, "failed", message="no use")
        failed = await house.now(run)
        assert (failed.state, failed.message) == (RunState.FAILED, "no use")
        (pid,) = (house.root / "pids").read_text().split()
        await house._eventually(holding(lambda: not worker.held and not alive(int(pid))))
    with pytest.raises(Conflict, match="it has ended"):
        await house.orchestrator.change_flow_run_state(run.id, "Completed")
    with pytest.raises(InvalidInput, match="did you mean 'Failed'"):
        await house.orchestrator.change_flow_run_state(run.id, "Faild")
    other = await house.start("other")
    with pytest.raises(Conflict, match="can not become Completed"):
        await house.orchestrator.change_flow_run_state(other.id, "Completed")
    await house.orchestrator.change_flow_run_state(other.id, "Cancelled")
    assert (await house.now(other)).state is RunState.CANCELLED


async def test_a_run_that_has_ended_is_deleted_with_its_log(house: House) -> None:
    deploy(house, "soon")
    run = await house.start()
    with pytest.raises(Conflict, match="cancel it first"):
        await house.orchestrator.delete_flow_run(run.id)
    async with house.worker():
        await house.ends(run)
    await house.stores.logs.append(run.id, [])
    assert await house.stores.task_runs.page(run.id, after=0, limit=1)
    deleted = await house.orchestrator.delete_flow_run(run.id)
    assert deleted.state is RunState.COMPLETED
    with pytest.raises(NotFound):
        await house.orchestrator.get_flow_run(run.id)
    assert await house.stores.logs.read(run.id) == []
    assert (await house.stores.task_runs.page(run.id, after=0, limit=1)).total == 0
    again = await house.start()
    assert (again.id, again.state) == (run.id, RunState.SCHEDULED)


async def test_flows_that_start_each_other_end(house: House) -> None:
    code = """
    from whenthen import flow
    from whenthen.deployments import run_deployment

    @flow
    def main(other: str, name: str):
        run_deployment(other, parameters={"other": name, "name": other}, timeout=0)
    """
    (house.root / "job.py").write_text(textwrap.dedent(code))
    one, two = (house.deploy(entrypoint="job.py:main", name=f"{house.pool}.{number}") for number in (1, 2))
    run = await house.orchestrator.run_deployment(one, {"other": two, "name": one}, key=f"{house.pool}/first")
    async with house.worker(max_depth=3):
        await house.ends(run)

        async def runs() -> list[FlowRun]:
            found = await house.stores.runs.list(limit=1000)
            return [stored.run for stored in found if stored.run.deployment in (one, two)]

        async def failed() -> bool:
            return any(each.state is RunState.FAILED for each in await runs())

        await house._eventually(failed)
    ended = sorted(await runs(), key=lambda each: each.created)
    assert [(each.lineage or {"depth": 0})["depth"] for each in ended] == [0, 1, 2, 3]
    assert [each.state for each in ended] == [RunState.COMPLETED] * 3 + [RunState.FAILED]
    assert "at most 3 may (`max_depth`)" in ended[-1].message
