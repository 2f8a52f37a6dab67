"""Killed workers, killed servers, and announcements that were cut short, over a real nats-server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_server import connect, open_stores

from tests.deployment_set import DeploymentSet
from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.flow_runs.run_events import RunEventPublisher
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.pauses.pause_changes import NotPaused
from whenthen.runs.reaper import Reaper, ReaperSettings
from whenthen.runs.run_states import new_run
from whenthen.runs.stores import Flag
from whenthen.runs.worker import Worker
from whenthen.schemas.deployments import TERMINAL, Deployment, FlowRun, RunState
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event

pytestmark = pytest.mark.anyio
Eventually = Callable[..., Awaitable[None]]
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
KILL_GRACE_S = limit(2)  #: in which a run whose worker is dead ends what it does

WORKER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from flow_server import *
from tests.deployment_set import DeploymentSet
from whenthen.runs.worker import Worker, WorkerSettings
from whenthen.schemas.deployments import Deployment

class At:
    url = sys.argv[2]

async def main():
    stores = await open_stores(await connect(At))
    deployments = DeploymentSet([Deployment.model_validate_json(sys.argv[3])])
    settings = WorkerSettings(heartbeat=timedelta(seconds=0.3), lost_after=timedelta(seconds=10),
                              kill_grace=timedelta(seconds=float(sys.argv[5])), fetch_wait=timedelta(seconds=0.5),
                              left_reports_every=timedelta(seconds=0.3))
    await Worker(stores, deployments, root=Path(sys.argv[4]), settings=settings).run()

asyncio.run(main())
"""


@pytest.fixture
async def bus(own_server: NatsServer) -> AsyncIterator[Bus]:
    bus = await connect(own_server)
    yield bus
    await bus.close()


def start_worker(
    server: NatsServer, deployment: Deployment, root: Path, *, kill_grace_s: float = 0.3
) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).parent)
    words = [sys.executable, "-c", WORKER, here, server.url, deployment.model_dump_json(), str(root), str(kill_grace_s)]
    return subprocess.Popen(words)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_killed_worker_leaves_no_process_and_its_run_is_tried_again_never_twice_at_once(
    own_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually
) -> None:
    script = 'mkdir busy || echo TWICE >> twice; echo $$ >> pids; test "$WHENTHEN_ATTEMPT" = 2 && exit 0; sleep 60'
    deployment = Deployment(name="d", command=["sh", "-c", f"trap '' TERM; {script}"], retries=1, retry_delay=0)
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, DeploymentSet([deployment]))
    settings = ReaperSettings(lost_after=timedelta(seconds=limit(2)), interval=timedelta(seconds=0.2))
    reaping = asyncio.create_task(Reaper(stores, settings=settings).run())
    run = await orchestrator.run_deployment("d", {}, key="k")
    pids = tmp_path / "pids"
    workers = [start_worker(own_server, deployment, tmp_path)]
    try:

        async def started() -> bool:
            return pids.exists() and bool(pids.read_text().strip())

        await eventually(started)
        first = int(pids.read_text().split()[0])
        workers[0].send_signal(signal.SIGKILL)

        async def gone() -> bool:
            return not alive(first)

        await eventually(gone)
        (tmp_path / "busy").rmdir()
        workers.append(start_worker(own_server, deployment, tmp_path))

        async def ended() -> bool:
            return (await orchestrator.get_flow_run(run.id)).run.state in TERMINAL

        await eventually(ended, within_s=60)
    finally:
        reaping.cancel()
        for worker in workers:
            worker.kill()
            worker.wait()
    last = (await orchestrator.get_flow_run(run.id)).run
    assert (last.state, last.attempt) == (RunState.COMPLETED, 2)
    assert not (tmp_path / "twice").exists()
    assert len(pids.read_text().split()) == 2


async def test_a_run_without_retries_is_crashed_when_its_worker_is_killed(
    own_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually
) -> None:
    deployment = Deployment(name="d", command=["sh", "-c", "touch started; sleep 60"])
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, DeploymentSet([deployment]))
    run = await orchestrator.run_deployment("d", {}, key="k")
    worker = start_worker(own_server, deployment, tmp_path)

    async def started() -> bool:
        return (tmp_path / "started").exists()

    await eventually(started)
    worker.kill()
    worker.wait()
    settings = ReaperSettings(lost_after=timedelta(seconds=1), interval=timedelta(seconds=0.2))
    reaping = asyncio.create_task(Reaper(stores, settings=settings).run())

    async def crashed() -> bool:
        return (await orchestrator.get_flow_run(run.id)).run.state is RunState.CRASHED

    await eventually(crashed)
    reaping.cancel()


async def test_a_run_survives_a_restart_of_the_server(
    own_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually
) -> None:
    script = "echo first; touch started; while ! test -e go; do sleep 0.1; done; echo last"
    deployments = DeploymentSet([Deployment(name="d", command=["sh", "-c", script])])
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, deployments)
    run = await orchestrator.run_deployment("d", {}, key="k")
    worker = Worker(stores, deployments, root=tmp_path)
    working = asyncio.create_task(worker.run())

    async def started() -> bool:
        return (tmp_path / "started").exists()

    await eventually(started)
    own_server.kill()
    (tmp_path / "go").touch()
    own_server.start()

    async def ended() -> bool:
        try:
            return (await orchestrator.get_flow_run(run.id)).run.state in TERMINAL
        except BusUnavailable:
            return False

    await eventually(ended, within_s=60)
    worker.stop()
    await working
    assert (await orchestrator.get_flow_run(run.id)).run.state is RunState.COMPLETED
    assert [line.text for line in await stores.logs.read(run.id)] == ["first", "last"]


async def test_every_transition_is_announced_in_order_also_when_announcing_is_cut_short(
    bus: Bus, tmp_path: Path, eventually: Eventually
) -> None:
    deployments = DeploymentSet([Deployment(name="d", command="true", tags=["nightly"])])
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, deployments)
    lineage = {"depth": 2, "firing": "f", "automations": ["a"]}
    related = [{"id": "whenthen.firing.f", "role": "firing"}, {"id": "bad\x00label"}]
    run = await orchestrator.run_deployment("d", {"n": 1}, key="k", lineage=lineage, related=related)
    seen: list[Event] = []
    failures = iter([True, False, True, False, False, True])

    async def publish(event: Event) -> None:
        seen.append(event)
        if next(failures, False):
            raise BusUnavailable("stored, but the answer was lost")

    noted: list[FlowRun] = []
    announcing = asyncio.create_task(RunEventPublisher(bus.client, publish, ended=noted.append).run())
    worker = Worker(stores, deployments, root=tmp_path)
    working = asyncio.create_task(worker.run())

    async def told() -> bool:
        return bool(noted)

    await eventually(told)
    announcing.cancel()
    worker.stop()
    await working
    ids = list(dict.fromkeys(event.id for event in seen))
    names = list(dict.fromkeys(event.name for event in seen))
    assert names == [f"flow-run.{state}" for state in ("Scheduled", "Pending", "Running", "Completed")]
    assert len(ids) == 4
    assert len(seen) > 4
    assert [(each.id, each.state) for each in noted] == [(run.id, RunState.COMPLETED)]
    last = seen[-1]
    assert last.resource == {
        "id": f"whenthen.flow-run.{run.id}",
        "name": f"d-{run.id[:8]}",
        "deployment": "d",
        "flow": "d",
        "state": "Completed",
    }
    assert [item["role"] for item in last.related] == ["deployment", "work-pool", "flow", "tag", "firing"]
    assert last.data["lineage"] == lineage
    assert last.payload["parameters"] == {"n": 1}


async def test_a_run_that_can_not_become_an_event_is_announced_without_its_data_and_holds_nothing_up(
    bus: Bus, eventually: Eventually
) -> None:
    deployment = Deployment(name="d", command="true")
    stores = await open_stores(bus)
    deep: Any = 1
    for _ in range(253):
        deep = [deep]
    first = new_run(deployment, key="deep", parameters={}, now=NOW, scheduled_for=NOW)
    await stores.runs.create(replace(first, result=deep, message="done"))
    await bus.js.publish("$KV.WT_runs.0123456789abcdef0123456789abcdef", b'{"of": "another version"}')
    await bus.js.publish("$KV.WT_runs.0123456789abcdef0123456789abcdef", b"no JSON at all")
    last = new_run(deployment, key="last", parameters={"n": 1}, now=NOW, scheduled_for=NOW)
    await stores.runs.create(last)
    seen: list[Event] = []
    aside: list[None] = []

    async def publish(event: Event) -> None:
        event.encode()
        seen.append(event)

    publisher = RunEventPublisher(bus.client, publish, count_set_aside=lambda: aside.append(None))
    announcing = asyncio.create_task(publisher.run())

    async def told() -> bool:
        return any(event.payload["id"] == last.id for event in seen)

    async def nothing_left() -> bool:
        info = await bus.js.consumer_info("KV_WT_runs", "announcer")
        return not info.num_pending and not info.num_ack_pending

    await eventually(told)
    await eventually(nothing_left)
    announcing.cancel()
    assert [event.payload["id"] for event in seen] == [first.id, last.id]
    assert seen[0].payload["result"] is None
    assert seen[0].payload["message"].startswith("done (parameters, result and related resources are left out")
    assert seen[1].payload["parameters"] == {"n": 1}
    assert len(aside) == 3
    assert {stored.run.id for stored in await stores.runs.list()} == {first.id, last.id}
    await bus.js.publish("$KV.WT_state.flow.broken", b"of another version")
    await stores.flags.put("deployment/d", Flag(paused=True, changed="2026-01-31T08:00:00Z", note=""), 0)
    assert list(await stores.flags.all()) == ["deployment/d"]


def test_the_guard_ends_the_group_when_its_parent_is_killed(tmp_path: Path) -> None:
    from whenthen.runs import guard

    read, write = os.pipe()
    words = [sys.executable, "-I", "-S", str(guard.__file__), "0.2", "sh", "-c", "trap '' TERM; echo up; sleep 60"]
    process = subprocess.Popen(words, stdin=read, stdout=subprocess.PIPE, start_new_session=True)
    os.close(read)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.close(write)
    assert process.wait(limit(20)) == -signal.SIGKILL
    assert process.stdout.read() == b""
    process.stdout.close()


@pytest.mark.parametrize("stopped_before", [False, True])
async def test_what_a_dead_worker_did_not_hear_is_read_by_the_next_one(
    own_server: NatsServer,
    bus: Bus,
    tmp_path: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    stopped_before: bool,
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "run"))
    code = """
        import signal, time
        from pathlib import Path
        from whenthen import flow, get_run_logger, task
        @task
        def before(): return 1
        @task
        def after():
            get_run_logger().error("my worker is dead")
        @flow
        def main():
            signal.signal(signal.SIGTERM, lambda *_: None)
            before()
            Path("begun").touch()
            while not Path("go").exists():
                time.sleep(0.01)
            after()
            Path("told").touch()
            time.sleep(60)
        """
    (tmp_path / "job.py").write_text(textwrap.dedent(code))
    deployment = Deployment(name="d", entrypoint="job.py:main")
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, DeploymentSet([deployment]))
    run = await orchestrator.run_deployment("d", {}, key="k")
    workers = [start_worker(own_server, deployment, tmp_path, kill_grace_s=KILL_GRACE_S)]

    def there(name: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return (tmp_path / name).exists()

        return look

    async def task_states() -> dict[str, str]:
        page = await stores.task_runs.page(run.id, after=0, limit=10)
        return {one.of: one.state for one in page.task_runs if one.kind == "task"}

    async def first_is_told() -> bool:
        return await task_states() == {"before": "COMPLETED"}

    async def all_is_told() -> bool:
        return await task_states() == {"before": "COMPLETED", "after": "COMPLETED"}

    try:
        await eventually(there("begun"))
        await eventually(first_is_told)
        if stopped_before:  # what the run tells is in its socket, unread
            workers[0].send_signal(signal.SIGSTOP)
            (tmp_path / "go").touch()
            await eventually(there("told"))
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        (tmp_path / "go").touch()
        await eventually(there("told"))
        workers.append(start_worker(own_server, deployment, tmp_path, kill_grace_s=KILL_GRACE_S))
        await eventually(all_is_told)

        async def removed() -> bool:
            return not list((tmp_path / "run").glob("whenthen-run-*"))

        await eventually(removed)

        async def logged() -> bool:
            return "my worker is dead" in [line.text for line in await stores.logs.read(run.id) if line.level]

        if not stopped_before:  # lines of the log that were in the socket are gone
            await eventually(logged)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


PAUSES = """
from whenthen import flow, pause_flow_run

@flow
def asks():
    return [pause_flow_run(wait_for_input=int), pause_flow_run(wait_for_input=int)]
"""


@pytest.mark.parametrize(("retries", "end"), [(0, RunState.CRASHED), (1, RunState.COMPLETED)])
async def test_a_paused_run_whose_worker_is_killed_is_crashed_or_tried_again_without_asking_twice(
    own_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually, retries: int, end: RunState
) -> None:
    (tmp_path / "flows.py").write_text(PAUSES)
    deployment = Deployment(name="d", entrypoint="flows.py:asks", retries=retries, retry_delay=0)
    stores = await open_stores(bus)
    orchestrator = BuiltInOrchestrator(stores, DeploymentSet([deployment]))
    settings = ReaperSettings(lost_after=timedelta(seconds=limit(2)), interval=timedelta(seconds=0.2))
    reaping = asyncio.create_task(Reaper(stores, settings=settings).run())
    run = await orchestrator.run_deployment("d", {}, key="k")
    workers = [start_worker(own_server, deployment, tmp_path)]

    async def now() -> FlowRun:
        return (await orchestrator.get_flow_run(run.id)).run

    async def waits_at(key: str, attempt: int) -> bool:
        found = await now()
        return found.attempt == attempt and found.pause is not None and found.pause["key"] == key

    async def ended() -> bool:
        return (await now()).state in TERMINAL

    try:
        await eventually(lambda: waits_at("1", 1), within_s=60)
        await orchestrator.resume_flow_run(run.id, 1)
        await eventually(lambda: waits_at("2", 1))
        workers[0].kill()
        if retries:
            workers.append(start_worker(own_server, deployment, tmp_path))
            await eventually(lambda: waits_at("2", 2), within_s=60)
            await orchestrator.resume_flow_run(run.id, 2)
        await eventually(ended, within_s=60)
    finally:
        reaping.cancel()
        for worker in workers:
            worker.kill()
            worker.wait()
    last = await now()
    assert (last.state, last.result) == (end, [1, 2] if retries else None)
    with pytest.raises(NotPaused):
        await orchestrator.resume_flow_run(run.id, 3)
