"""What the processes of a run tell their worker arrives: states of task runs, lines with levels, events; whatever the processes do."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import House
from whenthen.runs.reports import report_socket
from whenthen.runs.reports.left_reports import FOLDER_PREFIX, LeftReports
from whenthen.runs.reports.run_reports import RunReports
from whenthen.runs.reports.task_runs import TaskRun
from whenthen.runs.run_output import LogLimits
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import RunState

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Callable[..., Awaitable[None]]) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    return House(stores, root, unique, eventually)


async def ended(house: House, code: str, *, parameters: dict[str, Any] | None = None, **fields: Any) -> Any:
    (house.root / "job.py").write_text(textwrap.dedent(code))
    house.deploy(**({"entrypoint": "job.py:main"} | fields))
    run = await house.start(**(parameters or {}))
    async with house.worker():
        return await house.ends(run)


async def task_runs(house: House, run: Any, kind: str = "task") -> list[TaskRun]:
    page = await house.stores.task_runs.page(run.id, after=0, limit=100_000)
    return [one for one in page.task_runs if one.kind == kind]


async def test_states_of_tasks_and_lines_with_levels_arrive(house: House) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow, get_run_logger, task

        @task(retries=1)
        def load(n):
            get_run_logger().warning("first\\nsecond %d", n)
            if n < 0:
                raise ValueError("negative")
            return n

        @flow(log_prints=True)
        def main(n: int):
            print("begins")
            load(n)
            load.submit(-n).wait()
            return n
        """,
        parameters={"n": "3"},
    )
    assert (run.state, run.result, run.message) == (RunState.COMPLETED, 3, "")
    good, bad = await task_runs(house, run)
    assert (good.of, good.state, good.tries, good.attempt) == ("load", "COMPLETED", 1, 1)
    assert [state.name for state in good.states] == ["Pending", "Running", "Completed"]
    assert [state.name for state in bad.states] == ["Pending", "Running", "Retrying", "Failed"]
    assert (bad.state, bad.message) == ("FAILED", "Task run encountered an exception ValueError: negative")
    (flow,) = await task_runs(house, run, "flow")
    assert (flow.id, good.parent, flow.parent, flow.state) == (run.id, run.id, "", "COMPLETED")
    lines = [line for line in await house.stores.logs.read(run.id) if line.stream == "log"]
    assert [(line.text, line.level, line.name) for line in lines][:3] == [
        ("begins", logging.INFO, ""),
        ("first", logging.WARNING, good.name),
        ("second 3", logging.WARNING, good.name),
    ]
    assert await house.text(run, "stderr") == []


async def test_a_flow_ends_its_run_as_it_ended(house: House) -> None:
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            import time
            from whenthen import flow, task
            from whenthen.states import Cancelled, Completed, Failed

            tries = []

            @flow(retries=2)
            def fails():
                tries.append(1)
                raise ValueError(f"try {len(tries)}")

            @flow(retries=1)
            def recovers():
                tries.append(1)
                if len(tries) == 1:
                    raise ValueError("once")
                return len(tries)

            @flow
            def skips():
                return Completed(name="Skipped", message="nothing to do")

            @flow
            def refuses():
                return Failed(message="told so")

            @flow
            def gives_up():
                return Cancelled(message="no need")

            @flow(timeout_seconds=0.1)
            def slow():
                time.sleep(30)

            @flow
            async def later():
                return "async"

            @flow
            def yields():
                yield 1
                yield 2
            """
        )
    )
    names = ("fails", "recovers", "skips", "refuses", "gives_up", "slow", "later", "yields")
    for name in names:
        house.deploy(name=f"{house.pool}.{name}", entrypoint=f"job.py:{name}")
    runs = [await house.start(key=name, name=f"{house.pool}.{name}") for name in names]
    async with house.worker():
        ends = {name: await house.ends(run) for name, run in zip(names, runs, strict=True)}
    assert {name: (run.state, run.message, run.result) for name, run in ends.items()} == {
        "fails": (RunState.FAILED, "ValueError: try 3", None),
        "recovers": (RunState.COMPLETED, "", 2),
        "skips": (RunState.COMPLETED, "Skipped: nothing to do", None),
        "refuses": (RunState.FAILED, "told so", None),
        "gives_up": (RunState.CANCELLED, "no need", None),
        "slow": (RunState.TIMED_OUT, "FlowRunTimeoutError: Flow run exceeded timeout of 0.1 second(s)", None),
        "later": (RunState.COMPLETED, "", "async"),
        "yields": (RunState.COMPLETED, "", [1, 2]),
    }
    (flow,) = await task_runs(house, ends["recovers"], "flow")
    assert [state.name for state in flow.states] == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]
    assert flow.states[2].message == ""


async def test_parameters_are_coerced_and_each_that_does_not_fit_is_named_once(house: House) -> None:
    code = """
        from datetime import datetime
        from enum import Enum
        from pydantic import BaseModel
        from whenthen import flow

        class Colour(Enum):
            RED = "red"

        class Table(BaseModel):
            name: str
            rows: int

        @flow(retries=3)
        def main(at: datetime, sizes: list[int], colour: Colour, table: Table, last: float = 1.5):
            return [at.year, sum(sizes), colour.name, table.rows, last]
        """
    good = {"at": "2026-01-31T08:00:00Z", "sizes": ["1", 2], "colour": "red", "table": {"name": "t", "rows": "7"}}
    run = await ended(house, code, parameters=good)
    assert (run.state, run.result) == (RunState.COMPLETED, [2026, 3, "RED", 7, 1.5])
    bad = {"at": "never", "sizes": ["x"], "colour": "red", "tabel": {}}
    house.deploy(entrypoint="job.py:main", retries=3)
    started = await house.start(key="bad", **bad)
    async with house.worker():
        run = await house.ends(started)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    for named in ("at: Input should be a valid datetime", "sizes.0: ", "table: missing", "did you mean 'table'"):
        assert named in run.message
    assert run.message.count("sizes.0") == 1
    assert [one.kind for one in (await house.stores.task_runs.page(run.id, after=0, limit=10)).task_runs] == []


async def test_forks_closed_descriptors_and_exits_in_between_lose_nothing(house: House) -> None:
    run = await ended(
        house,
        """
        import multiprocessing, os, subprocess, sys
        from whenthen import flow, get_run_logger, task
        from whenthen.task_runners import ProcessPoolTaskRunner

        @task
        def step(n):
            get_run_logger().info("step %d", n)
            return n

        def forked():
            step(10)
            os._exit(0)

        @flow(task_runner=ProcessPoolTaskRunner())
        def main():
            step(1)
            os.closerange(3, 256)  # as daemons do
            files = [open(os.devnull, "w") for _ in range(20)]  # these now have the descriptors
            step(2)
            pid = os.fork()
            if pid == 0:
                forked()
            os.waitpid(pid, 0)
            subprocess.run([sys.executable, "-c", "from whenthen import task; task(lambda: 3, name='spawned')()"], check=True)
            step.submit(4).wait()
            assert all(file.tell() == 0 for file in files)
            step(5)
            os._exit(7)
        """,
    )
    assert (run.state, run.exit_code) == (RunState.FAILED, 7)
    found = await task_runs(house, run)
    assert sorted((one.of, one.state) for one in found) == sorted(
        [*[("step", "COMPLETED")] * 5, ("spawned", "COMPLETED")]
    )
    lines = {line.text for line in await house.stores.logs.read(run.id) if line.stream == "log"}
    assert {"step 1", "step 2", "step 10", "step 4", "step 5"} <= lines


async def test_a_flood_of_lines_stops_neither_the_worker_nor_the_states(house: House) -> None:
    (house.root / "quick.py").write_text("def main():\n    return 1\n")
    house.deploy(name=f"{house.pool}.quick", entrypoint="quick.py:main")
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            import threading
            from pathlib import Path
            from whenthen import flow, get_run_logger, task

            @task
            def shout(n):
                logger = get_run_logger()
                for k in range(10_000):
                    logger.info("%d %d %s", n, k, "x" * 500)

            @flow
            def main():
                shout.map(range(6)).wait()
            """
        )
    )
    house.deploy(entrypoint="job.py:main")
    loud = await house.start(key="loud")
    async with house.worker(concurrency=2):
        await house.reaches(loud, RunState.RUNNING)
        quick = await house.ends(await house.start(key="quick", name=f"{house.pool}.quick"))
        assert quick.state is RunState.COMPLETED
        run = await house.ends(loud)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 1)
    assert [one.state for one in await task_runs(house, run)] == ["COMPLETED"] * 6


@pytest.mark.parametrize(
    "attack",
    [
        "s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')",
        "s.sendall(hello(token='no'))",
        "s.sendall(hello(protocol=2))",
        "s.sendall(hello() + b'\\x00\\xff garbage\\n' + b'[' * 100_000 + b'\\n' + b'{\"type\": \"state\", \"id\": \"..>\"}\\n')",
        "s.sendall(hello() + b'x' * 3_000_000)",
        "s.sendall(hello(closed=['../../../etc/passwd', '1-00000000-000001.jsonl']))",
        "[socket.socket(socket.AF_UNIX).connect(path) for _ in range(400)]",
        "os.mkfifo(folder + '/1-00000000-000001.jsonl')",
        "os.symlink('/dev/zero', folder + '/1-00000000-000001.jsonl')",
        "os.unlink(path)",
        "shutil.rmtree(folder)",
    ],
)
async def test_what_is_no_report_is_passed_over(house: House, attack: str) -> None:
    run = await ended(
        house,
        f"""
        import contextlib, json, os, shutil, socket
        from whenthen import flow, task

        path = os.environ["WHENTHEN_RUN_SOCKET"]
        folder = os.path.dirname(path) + "/reports"

        def hello(**changes):
            token = os.environ["WHENTHEN_RUN_TOKEN"]
            return json.dumps({{"type": "hello", "protocol": 1, "token": token, "for": "reports"}} | changes).encode() + b"\\n"

        @task
        def step():
            return 1

        @flow
        def main():
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            with contextlib.suppress(OSError):
                {attack}
            step()
        """,
    )
    assert (run.state, run.message) == (RunState.COMPLETED, "")
    gone = "rmtree" in attack or "unlink(path)" in attack
    assert len(await task_runs(house, run)) in ((0, 1) if gone else (1,))


async def test_slots_of_a_limit_are_counted_among_all_runs_and_come_free_with_the_run(house: House) -> None:
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            import os
            from pathlib import Path
            from whenthen import flow, task
            from whenthen.concurrency.sync import concurrency, rate_limit
            from whenthen.task_runners import ProcessPoolTaskRunner

            inside = Path("inside")

            @task
            def one(n):
                with concurrency("data-base"):
                    mine = inside / f"{os.getpid()}-{n}"
                    mine.touch()
                    found = len(list(inside.iterdir()))
                    mine.unlink()
                    return found

            @flow
            def threads():
                inside.mkdir(exist_ok=True)
                return max(one.map(range(4)).result())

            @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
            def processes():
                inside.mkdir(exist_ok=True)
                return max(one.map(range(4)).result())

            @flow
            def dies():
                with concurrency("data-base"):
                    os._exit(3)

            @flow
            def too_late():
                with concurrency("data-base", occupy=3, timeout_seconds=0.5):
                    pass

            @flow
            def by_time():
                rate_limit("api")
                with concurrency("unlimited"):
                    return 1
            """
        )
    )
    env = {"WHENTHEN_LIMIT_DATA_BASE": "1", "WHENTHEN_LIMIT_API": "5, 100/s"}
    names = ("threads", "processes", "dies", "too_late", "by_time")
    for name in names:
        house.deploy(name=f"{house.pool}.{name}", entrypoint=f"job.py:{name}", env=env)
    runs = [await house.start(key=f"{name}", name=f"{house.pool}.{name}") for name in names]
    async with house.worker(concurrency=3), house.worker(concurrency=3, name="second"):
        ends = {name: await house.ends(run) for name, run in zip(names, runs, strict=True)}
    assert (ends["threads"].result, ends["processes"].result) == (1, 1)
    assert ends["dies"].exit_code == 3
    assert "3 slots of 'data-base' will never be free: there are 1" in ends["too_late"].message
    assert (ends["by_time"].state, ends["by_time"].result) == (RunState.COMPLETED, 1)
    assert await house.stores.slots.holders("@limit/WHENTHEN_LIMIT_DATA_BASE") == []


async def test_a_run_starts_others_and_waits_for_them(house: House) -> None:
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            from whenthen import flow
            from whenthen.deployments import run_deployment
            from whenthen.exceptions import ObjectNotFound

            @flow
            def double(n: int):
                return 2 * n

            @flow
            def parent(name: str):
                run = run_deployment(f"double/{name}", parameters={"n": 21}, poll_interval=0.1)
                again = run_deployment(name, parameters={"n": 1}, timeout=0, idempotency_key="once")
                same = run_deployment(name, parameters={"n": 2}, timeout=0, idempotency_key="once")
                try:
                    run_deployment("nobody")
                except ObjectNotFound as error:
                    return [run.state.result(), again.id == same.id, "nobody" in str(error)]
            """
        )
    )
    child = f"{house.pool}.child"
    house.deploy(name=child, entrypoint="job.py:double")
    house.deploy(name=f"{house.pool}.parent", entrypoint="job.py:parent")
    async with house.worker(concurrency=2):
        started = await house.orchestrator.run_deployment(
            f"{house.pool}.parent", {"name": child}, key=f"{house.pool}/parent"
        )
        ended = await house.ends(started)
    assert (ended.state, ended.result) == (RunState.COMPLETED, [42, True, True]), ended.message


async def test_more_threads_than_connections_wait_for_their_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_socket, "MOST_CONNECTIONS", 20)
    run = await ended(
        house,
        """
        from whenthen import flow, task
        from whenthen.concurrency.sync import concurrency
        from whenthen.task_runners import ThreadPoolTaskRunner

        @task
        def one(n):
            with concurrency("many"):
                return 1

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=60))
        def main():
            return sum(one.map(range(120)).result())
        """,
        env={"WHENTHEN_LIMIT_MANY": "30"},
    )
    assert (run.state, run.result, run.message) == (RunState.COMPLETED, 120, "")


async def test_those_who_wait_for_slots_leave_connections_to_those_who_give_them_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_socket, "MOST_CONNECTIONS", 4)
    run = await ended(
        house,
        """
        import threading
        from whenthen import flow, task
        from whenthen.concurrency.sync import concurrency
        from whenthen.task_runners import ThreadPoolTaskRunner

        held, others = threading.Event(), threading.Barrier(12)

        @task
        def holds():
            with concurrency("one"):
                held.set()
                others.wait()
                threading.Event().wait(1)  # the others are waiting for the slot
            return 1

        @task
        def waits():
            held.wait()
            others.wait()
            with concurrency("one"):
                return 1

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=12))
        def main():
            futures = [holds.submit(), *(waits.submit() for _ in range(11))]
            return sum(future.result() for future in futures)
        """,
        env={"WHENTHEN_LIMIT_ONE": "1"},
    )
    assert (run.state, run.result, run.message) == (RunState.COMPLETED, 12, "")


@pytest.mark.parametrize("spoilt", ["protocol", "token"])
async def test_a_flow_whose_protocol_or_token_the_worker_does_not_know_fails_once_and_says_so(
    house: House, spoilt: str
) -> None:
    change = "channels.PROTOCOL = 99" if spoilt == "protocol" else "REPORTER.get().channel._token = 'guessed'"
    run = await ended(
        house,
        f"""
        import whenthen.flows.reporting.worker_channel as channels
        from whenthen import flow
        from whenthen.flows.execution.reporter import REPORTER
        {change}

        @flow
        def main():
            pass
        """,
        retries=2,
    )
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    wanted = "it speaks protocol 99, the worker" if spoilt == "protocol" else "the token is not that of this attempt"
    assert wanted in run.message


async def test_a_worker_that_can_not_be_reached_does_not_fail_a_flow(house: House) -> None:
    run = await ended(
        house,
        """
        import os
        from whenthen import flow, task
        os.unlink(os.environ["WHENTHEN_RUN_SOCKET"])

        @task
        def step():
            pass

        @flow
        def main():
            step()
        """,
    )
    assert (run.state, run.message) == (RunState.COMPLETED, "")
    assert [one.state for one in await task_runs(house, run)] == ["COMPLETED"]


async def test_the_folder_of_an_attempt_is_left_alone_while_its_worker_lives_and_when_it_has_ended(
    house: House, tmp_path: Path
) -> None:
    house.deploy(entrypoint="job.py:main")
    run = await house.start()
    folder = tmp_path / f"{FOLDER_PREFIX}x"
    folder.mkdir(mode=0o700)
    left = LeftReports(
        parent=tmp_path,
        stores=house.stores,
        deployments=house.deployments,
        resolve=str,
        clock=lambda: datetime.now(UTC),
        limits=LogLimits(),
    )
    reports = RunReports(replace(run, attempt=1), folder)
    await reports.open()
    (folder / "reports" / "1-00000000-000001.jsonl").write_text('{"type":"dropped","lines":1}\n')
    assert await left.take() == 0
    await reports.abandon()
    assert await left.take() == 0
    assert (folder / "reports" / "1-00000000-000001.jsonl").exists()
