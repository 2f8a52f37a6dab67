"""What can never succeed is set aside, and the items behind it are handled."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.deployment_set import DeploymentSet
from tests.patience import limit
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.reaper import Reaper
from whenthen.runs.run_states import new_run, transition
from whenthen.runs.schedules.scheduler import Scheduler
from whenthen.runs.stores import Flag
from whenthen.runs.worker import MOST_UNFORESEEN, Worker, WorkerSettings
from whenthen.schemas.deployments import Deployment, FlowRun, RunState, Schedule
from whenthen.schemas.errors import BusUnavailable, InvalidInput

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    until = time.monotonic() + limit(30)
    while not await condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


async def test_a_schedule_whose_run_is_refused_does_not_stop_the_schedules_behind_it() -> None:
    clock = NOON
    stores = memory_stores()
    every = {"cron": "* * * * *"}
    deployments = DeploymentSet(
        [
            Deployment(name="a", command=["true"], schedules=[Schedule(**every, parameters={"deep": nested(201)})]),
            Deployment(name="b", command=["true"], schedules=[Schedule(**every)]),
        ]
    )
    orchestrator = BuiltInOrchestrator(stores, deployments, clock=lambda: clock)
    scheduler = Scheduler(stores, deployments, orchestrator, clock=lambda: clock)
    await scheduler.step()
    clock = NOON + timedelta(seconds=90)
    plan = await scheduler.step()
    assert [item.deployment.name for item in plan.due] == ["a", "b"]
    assert [stored.run.deployment for stored in await stores.runs.list()] == ["b"]
    assert not (await scheduler.step()).due  # both positions have advanced


async def test_a_flag_that_can_not_be_read_does_not_stop_the_schedules() -> None:
    clock = NOON
    stores = memory_stores()
    deployments = DeploymentSet([Deployment(name="a", command=["true"], schedules=[Schedule(cron="* * * * *")])])
    orchestrator = BuiltInOrchestrator(stores, deployments, clock=lambda: clock)
    scheduler = Scheduler(stores, deployments, orchestrator, clock=lambda: clock)
    await stores.flags.put("deployment/a", Flag(paused=False, changed="yesterday", note=""), 0)
    await scheduler.step()
    clock = NOON + timedelta(seconds=90)
    assert not (await scheduler.step()).due
    await stores.flags.put("deployment/a", Flag(paused=False, changed="2026-03-01T12:00:30Z", note=""), 1)
    assert len((await scheduler.step()).due) == 1


async def test_a_run_that_can_not_be_swept_does_not_stop_the_sweep_and_is_left_alone_until_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = memory_stores()
    deployment = Deployment(name="d", command=["true"])
    long_ago = NOON - timedelta(days=1)
    open_runs = []
    for key in ("bad", "good"):
        run = new_run(deployment, key=key, parameters={}, now=long_ago, scheduled_for=long_ago)
        stored = await stores.runs.create(run)
        stored = await stores.runs.update(transition(run, RunState.PENDING, long_ago, worker="w"), stored.version)
        running = transition(stored.run, RunState.RUNNING, long_ago, worker="w")
        open_runs.append(await stores.runs.update(running, stored.version))
    bad, good = open_runs
    update, tries = stores.runs.update, []

    async def refusing(run: FlowRun, version: int) -> Any:
        if run.id == bad.run.id:
            tries.append(version)
            raise InvalidInput("larger than the server accepts")
        return await update(run, version)

    monkeypatch.setattr(stores.runs, "update", refusing)
    reaper = Reaper(stores, clock=lambda: NOON)
    assert good.run.id in await reaper.sweep(open_runs)
    await reaper.sweep([bad])
    assert tries == [bad.version]
    newer = await update(replace(bad.run, message="changed"), bad.version)
    await reaper.sweep([newer])
    assert tries == [bad.version, newer.version]


async def test_a_sweep_ends_while_the_bus_is_away() -> None:
    stores = memory_stores()

    class Away(Reaper):
        async def reconcile(self, stored: Any) -> Any:
            raise BusUnavailable("away")

    run = new_run(Deployment(name="d", command=["true"]), key="k", parameters={}, now=NOON, scheduled_for=NOON)
    with pytest.raises(BusUnavailable):
        await Away(stores).sweep([await stores.runs.create(run)])


async def test_a_run_that_a_worker_can_not_handle_becomes_failed_after_five_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = memory_stores()
    deployments = DeploymentSet([Deployment(name="d", command=["true"])])
    orchestrator = BuiltInOrchestrator(stores, deployments)
    run = await orchestrator.run_deployment("d", {}, key="k")
    worker = Worker(stores, deployments, root=tmp_path, settings=WorkerSettings(fetch_wait=timedelta(seconds=0.01)))
    errors: list[int] = []

    async def broken(item: Any) -> None:
        errors.append(item.deliveries)
        raise RuntimeError("a defect")

    monkeypatch.setattr(worker, "_process", broken)
    item = await stores.queue.fetch("default", wait=timedelta(seconds=1))
    assert item is not None
    for _ in range(MOST_UNFORESEEN):
        assert (await orchestrator.get_flow_run(run.id)).run.state is RunState.SCHEDULED
        await worker._handle(item)
    ended = (await orchestrator.get_flow_run(run.id)).run
    assert ended.state is RunState.FAILED
    assert ended.message.endswith("could not handle it: RuntimeError: a defect")
    assert len(errors) == MOST_UNFORESEEN


async def test_a_run_waits_again_when_its_folder_can_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = memory_stores()
    deployments = DeploymentSet([Deployment(name="d", command=["true"])])
    orchestrator = BuiltInOrchestrator(stores, deployments)
    run = await orchestrator.run_deployment("d", {}, key="k")
    worker = Worker(stores, deployments, root=tmp_path)

    def full(**_: Any) -> str:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("whenthen.runs.attempts.starting.tempfile.mkdtemp", full)
    item = await stores.queue.fetch("default", wait=timedelta(seconds=1))
    assert item is not None
    assert await worker._process(item) == worker._settings.shortage_wait
    waits = (await orchestrator.get_flow_run(run.id)).run
    assert (waits.state, waits.attempt) == (RunState.SCHEDULED, 0)
    assert "Too many open files" in waits.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
async def test_a_run_waits_again_when_its_parameters_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("whenthen.runs.commands.Path.write_text", full)
    await _waits_again(tmp_path, os.strerror(number))


async def test_a_run_waits_again_when_no_process_can_be_started_for_want_of_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def starts(*_: Any, **__: Any) -> Any:
        """As `loop.subprocess_exec`, when the last file is open."""
        resource.setrlimit(resource.RLIMIT_NOFILE, ((opened := os.dup(0)) + 1, hard))
        try:
            return await subprocess_exec(*_, **__)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(opened)

    loop = asyncio.get_running_loop()
    subprocess_exec = loop.subprocess_exec
    monkeypatch.setattr(loop, "subprocess_exec", starts)
    await _waits_again(tmp_path, "Too many open files")


async def _waits_again(folder: Path, why: str) -> None:
    stores = memory_stores()
    deployments = DeploymentSet([Deployment(name="d", command=["true"])])
    orchestrator = BuiltInOrchestrator(stores, deployments)
    run = await orchestrator.run_deployment("d", {}, key="k")
    worker = Worker(stores, deployments, root=folder)
    item = await stores.queue.fetch("default", wait=timedelta(seconds=1))
    assert item is not None
    assert await worker._process(item) == worker._settings.shortage_wait
    waits = (await orchestrator.get_flow_run(run.id)).run
    assert (waits.state, waits.attempt) == (RunState.SCHEDULED, 0)
    assert why in waits.message
    assert worker.held == {}


async def test_a_state_that_can_not_be_stored_with_its_result_is_stored_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = memory_stores()
    deployments = DeploymentSet(
        [Deployment(name="d", command=["sh", "-c", 'echo "{\\"result\\": 1}" > $WHENTHEN_RESULT_FILE'])]
    )
    orchestrator = BuiltInOrchestrator(stores, deployments)
    run = await orchestrator.run_deployment("d", {}, key="k")
    update = stores.runs.update

    async def refusing(changed: FlowRun, version: int) -> Any:
        if changed.result is not None:
            raise InvalidInput("larger than the server accepts")
        return await update(changed, version)

    monkeypatch.setattr(stores.runs, "update", refusing)
    worker = Worker(stores, deployments, root=tmp_path, settings=WorkerSettings(fetch_wait=timedelta(seconds=0.05)))
    working = asyncio.create_task(worker.run())

    async def ended() -> bool:
        return (await orchestrator.get_flow_run(run.id)).run.state is RunState.COMPLETED

    await eventually(ended)
    worker.stop()
    await working
    assert (await orchestrator.get_flow_run(run.id)).run.message == "its result and message could not be stored"
