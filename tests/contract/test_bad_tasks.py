"""What code of users does to its process, its machine and its worker: each ends the run in a way that is told, and nothing else."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import House, alive
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import FlowRun, RunState

pytestmark = pytest.mark.anyio
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Eventually) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    return House(stores, root, unique, eventually)


def deploy(house: House, body: str, **fields: Any) -> None:
    """A flow with one task of this body, in a folder where it may leave files."""
    text = "import os, sys, time\nfrom pathlib import Path\nfrom whenthen import flow, task\n\n@task\ndef bad():\n"
    text += textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    text += "\n\n@flow\ndef main():\n    return bad()\n"
    (house.root / "job.py").write_text(text)
    house.deploy(**({"entrypoint": "job.py:main"} | fields))


async def ends(house: House, body: str, **fields: Any) -> FlowRun:
    deploy(house, body, **fields)
    run = await house.start()
    async with house.worker():
        return await house.ends(run)


async def test_a_task_that_ends_the_process_fails_the_run_with_its_exit_code(house: House) -> None:
    run = await ends(house, "os._exit(7)")
    assert (run.state, run.exit_code, run.message) == (RunState.FAILED, 7, "exit code 7")
    # its task has begun, and nobody says that it ended
    page = await house.stores.task_runs.page(run.id, after=0, limit=10)
    assert [one.state for one in page.task_runs if one.kind == "task"] == ["RUNNING"]


async def test_a_task_that_eats_all_memory_fails_as_any_error_where_it_has_a_limit(house: House) -> None:
    run = await ends(
        house,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
        eaten = []
        while True:
            eaten.append(bytes(64 << 20))
        """,
    )
    assert (run.state, run.message) == (RunState.FAILED, "MemoryError")


async def test_a_task_that_the_kernel_kills_for_its_memory_says_so(house: House) -> None:
    run = await ends(house, "os.kill(os.getpid(), 9)  # as the kernel does", retries=0)
    assert (run.state, run.exit_code, run.message) == (RunState.FAILED, -9, "killed by SIGKILL")


async def test_a_task_that_ignores_a_request_to_end_is_killed(house: House) -> None:
    body = """
        import signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    """
    assert (await ends(house, body, timeout="3s")).state is RunState.TIMED_OUT


async def test_a_task_that_prints_what_is_no_text_leaves_a_log(house: House) -> None:
    run = await ends(
        house,
        r"""
        for stream in (sys.stdout, sys.stderr):
            stream.buffer.write(bytes(range(256)) + b"\n\x00\xff\xfe\n" + "\ud800".encode("utf-8", "surrogatepass") + b"\nend\n")
        """,
    )
    assert (run.state, run.message) == (RunState.COMPLETED, "")
    for stream in ("stdout", "stderr"):
        lines = await house.text(run, stream)
        assert lines[-1] == "end"
        assert len(lines) >= 4
        assert all(line.encode() for line in lines)  # text, all of it


async def test_a_task_that_forks_a_daemon_ends_and_the_daemon_is_left_alone(
    house: House, eventually: Eventually
) -> None:
    run = await ends(
        house,
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                Path("daemon").write_text(str(os.getpid()))
                time.sleep(1000)
            os._exit(0)
        os.wait()
        while not Path("daemon").exists() or not Path("daemon").read_text():
            time.sleep(0.01)
        """,
    )
    assert (run.state, run.message) == (RunState.COMPLETED, "")
    daemon = int((house.root / "daemon").read_text())
    assert alive(daemon)
    os.kill(daemon, 9)


async def test_a_task_that_closes_its_descriptors_loses_what_it_prints_and_nothing_else(house: House) -> None:
    run = await ends(house, "os.closerange(0, 1024)\nreturn 42")
    assert (run.state, run.result, run.message) == (RunState.COMPLETED, 42, "")
    page = await house.stores.task_runs.page(run.id, after=0, limit=10)
    assert [one.state for one in page.task_runs if one.kind == "task"] == ["COMPLETED"]


async def test_a_module_that_fails_when_it_is_imported_fails_the_run_with_its_error(house: House) -> None:
    (house.root / "broken.py").write_text("raise RuntimeError('no licence')\n")
    (house.root / "job.py").write_text("import broken\ndef main():\n    pass\n")
    house.deploy(entrypoint="job.py:main")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.message) == (RunState.FAILED, "RuntimeError: no licence")
    lines = await house.text(run, "stderr")
    assert any("broken.py" in line for line in lines)


async def test_a_flow_file_that_changes_while_it_runs_counts_from_the_next_run_on(
    house: House, eventually: Eventually
) -> None:
    body = """
        Path("begun").write_text("x")
        while not Path("go").exists():
            time.sleep(0.01)
        return 'old'
    """
    deploy(house, body)
    run = await house.start()
    async with house.worker():

        async def begun() -> bool:
            return (house.root / "begun").exists()

        await eventually(begun)
        deploy(house, "return 'new'")
        (house.root / "go").write_text("x")
        first = await house.ends(run)
        second = await house.ends(await house.start("second"))
    assert (first.state, first.result) == (RunState.COMPLETED, "old")
    assert (second.state, second.result) == (RunState.COMPLETED, "new")


async def test_a_flow_file_that_is_half_written_fails_and_the_retry_takes_the_whole_one(house: House) -> None:
    (house.root / "job.py").write_text("def main():\n    retu")
    house.deploy(entrypoint="job.py:main", retries=20, retry_delay=0.2)
    run = await house.start()
    async with house.worker():
        await house.reaches(run, RunState.RETRYING)
        (house.root / "job.py").write_text("def main():\n    return 'whole'\n")
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, "whole")
    assert ended.attempt > 1
