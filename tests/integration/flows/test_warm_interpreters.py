"""Interpreters that wait for runs: a run in one begins as it would in its own, and whatever is in doubt begins in its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import venv
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import FAST, House
from tests.patience import eventually as soon
from tests.patience import until
from whenthen.runs.commands import warm_start_of
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.warm import warm_pool
from whenthen.runs.warm.warm_room import WarmRoom
from whenthen.runs.worker import Worker
from whenthen.schemas.deployments import Deployment, FlowRun, RunState

pytestmark = pytest.mark.anyio

WAITED = "waiting_interpreter.py"
OWN = "runner.py"
#: says in which program it runs, and whatever a test adds
JOB = """
import os, sys
from pathlib import Path
def where():
    return Path(sys.modules["__main__"].__file__).name
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def house(tmp_path: Path) -> House:
    root = tmp_path / "rules"
    root.mkdir()

    async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 30.0) -> None:
        await until(condition, within_s=within_s, every_s=0.02)

    return House(memory_stores(), root, "pool", eventually)


@pytest.fixture
def warnings_told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "whenthen.runs.warm.warm_pool")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "whenthen.runs.warm.warm_pool"]


def write(house: House, **files: str) -> None:
    for name, text in files.items():
        (house.root / f"{name}.py").write_text(textwrap.dedent(text))


async def waits(worker: Worker, name: str = "pool", count: int = 1) -> None:
    async def ready() -> bool:
        return worker.warm[name] >= count

    await until(ready, what=f"{count} interpreters wait for {name}: {worker.warm}")


async def result(house: House, key: str, **parameters: Any) -> Any:
    ended = await house.ends(await house.start(key, **parameters))
    assert ended.state is RunState.COMPLETED, ended.message
    return ended.result


def waiting_pids(house: House) -> list[int]:
    """Interpreters that wait in the folder of the rules."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(entry / "cwd") == str(house.root)
        except (OSError, ValueError):
            continue
        if here and any(word.endswith(WAITED.encode()) for word in words) and b"--waiting" not in words:
            found.append(int(entry.name))
    return found


async def test_a_run_begins_in_the_interpreter_that_has_imported_what_the_deployment_names(house: House) -> None:
    write(
        house,
        tracked="import os\nwith open('loaded.txt', 'a') as file:\n    file.write(f'{os.getpid()}\\n')\n",
        job=JOB + "import tracked\ndef main():\n    return [where(), os.getpid()]\n",
    )
    house.deploy(entrypoint="job.py:main", preload=["tracked"])
    async with house.worker() as worker:
        await waits(worker)
        loaded = (house.root / "loaded.txt").read_text().split()
        assert len(loaded) == 1
        assert await result(house, "first") == [WAITED, int(loaded[0])]
        await waits(worker)  # another one: each serves one run
        second = await result(house, "second")
        assert second[0] == WAITED
        assert second[1] != int(loaded[0])


async def test_what_two_runs_have_imported_is_there_for_the_third(house: House) -> None:
    write(
        house,
        job="""
            import sys, tabnanny
            from pathlib import Path
            from whenthen import flow
            @flow
            def main(told: str):
                print(told)
                return Path(sys.modules["__main__"].__file__).name
        """,
    )
    house.deploy(entrypoint="job.py:main")
    async with house.worker() as worker:
        assert [await result(house, f"run {number}", told="x") for number in range(2)] == [OWN, OWN]
        await waits(worker)
        run = await house.start("third", told="hello")
        assert (await house.ends(run)).result == WAITED
        assert await house.text(run) == ["hello"]


async def test_libraries_alone_are_learnt_and_none_when_a_program_changes_its_environment(house: House) -> None:
    body = (
        "import {library}\nimport helper\ndef main():\n"
        "    import json\n    return [where(), 'helper' in BEFORE, '{library}' in BEFORE]\n"
    )
    write(
        house,
        job=JOB + "BEFORE = set(sys.modules)\n" + body.format(library="yaml"),
        other=JOB + "BEFORE = set(sys.modules)\nos.environ['OMP_NUM_THREADS'] = '1'\n" + body.format(library="yaml"),
        helper="rows = 7\n",
    )
    house.deploy(entrypoint="job.py:main")
    house.deploy(name="other", entrypoint="other.py:main")
    async with house.worker() as worker:
        for name in ("pool", "other"):
            for number in range(2):
                ended = await house.ends(await house.start(f"{name} {number}", name))
                assert ended.result == [OWN, False, False], ended.message
            await waits(worker, name)
            ended = await house.ends(await house.start(f"{name} warm", name))
            # whatever is imported after the environment was changed may have looked at it
            assert ended.result == [WAITED, False, name == "pool"], ended.message


async def test_a_run_sees_what_it_would_see_in_an_interpreter_of_its_own(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("very-secret-value\n")
    (house.root / "work").mkdir()
    write(
        house,
        job="""
            import os, resource, signal, stat, sys
            own = ("WHENTHEN_RUN", "WHENTHEN_RES", "WHENTHEN_PARAMETERS_FILE", "WHENTHEN_SCHED")
            def main(n, key):
                return {
                    "cwd": os.getcwd(),
                    "env": {k: v for k, v in os.environ.items() if not k.startswith(own)},
                    "path": sys.path,
                    "argv": [os.path.basename(word) for word in sys.argv],
                    "mask": os.umask(0o22),
                    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
                    "signals": [str(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP)],
                    "stdin": os.path.realpath("/proc/self/fd/0"),
                    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
                    "leads": os.getpgrp() == os.getppid(),
                    "module": __name__,
                    "n": n, "key": len(key),
                }
        """,
    )
    fields = {
        "entrypoint": "job.py:main",
        "working_dir": "work",
        "env": {"PLAIN": "x", "DB": f"file:{secret}", "PYTHONHASHSEED": "7"},
        "secret_parameters": {"key": f"file:{secret}"},
    }
    house.deploy(**fields)
    async with house.worker(warm_interpreters=0):
        alone = await result(house, "alone", n=[1])
    house.deploy(**fields, preload=["decimal"])
    async with house.worker() as worker:
        await waits(worker)
        folder = house.root / "work"
        (pid,) = waiting_pids(House(house.stores, folder, "pool", house._eventually))
        held = (Path("/proc") / str(pid) / "environ").read_bytes() + (Path("/proc") / str(pid) / "cmdline").read_bytes()
        assert b"PLAIN=x" in held
        assert b"very-secret" not in held
        warm = await result(house, "warm", n=[1])
    assert warm == alone
    assert warm["env"]["DB"] == "***"


async def test_what_is_printed_while_modules_are_imported_is_in_the_log_of_the_run(house: House) -> None:
    write(
        house,
        told="print('told at import')\n",
        job=JOB + "import told\ndef main():\n    print('run')\n    return where()\n",
    )
    house.deploy(entrypoint="job.py:main", preload=["told"])
    async with house.worker() as worker:
        await waits(worker)
        run = await house.start()
        assert (await house.ends(run)).result == WAITED
        assert await house.text(run) == ["told at import", "run"]


async def replaced(
    house: House, change: Callable[[], object], *, preload: str = "rates"
) -> tuple[list[Any], list[Any]]:
    """What a run gives in an interpreter that waited, and what one gives after a change while another waited."""
    write(house, job=JOB + f"import {preload}\ndef main():\n    return [where(), getattr({preload}, 'RATE', None)]\n")
    house.deploy(entrypoint="job.py:main", preload=[preload])
    async with house.worker() as worker:
        await waits(worker)
        before = await result(house, "before")
        await waits(worker)
        change()
        return before, await result(house, "after")


async def test_a_changed_module_is_never_run_from_an_interpreter_that_has_the_old_one(house: House) -> None:
    write(house, rates="RATE = 1\n")
    file = house.root / "rates.py"

    def change() -> None:
        old = file.stat()
        file.write_text("RATE = 2\n")  # as long as before
        os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
        for cached in (house.root / "__pycache__").glob("rates.*"):
            cached.unlink()  # the interpreter itself would believe the time of the file

    assert await replaced(house, change) == ([WAITED, 1], [OWN, 2])


async def test_a_data_file_that_a_module_reads_when_it_is_imported_is_looked_at_too(house: House) -> None:
    write(house, rates="RATE = int(open('rate.txt').read())\n")
    (house.root / "rate.txt").write_text("1")
    assert await replaced(house, lambda: (house.root / "rate.txt").write_text("2")) == ([WAITED, 1], [OWN, 2])


async def test_a_file_that_was_not_there_when_a_module_looked_for_it_is_looked_for_again(house: House) -> None:
    write(
        house,
        rates="""
            try:
                RATE = int(open('rate.txt').read())
            except FileNotFoundError:
                RATE = 0
        """,
    )
    assert await replaced(house, lambda: (house.root / "rate.txt").write_text("2")) == ([WAITED, 0], [OWN, 2])


async def test_a_new_file_that_hides_a_library_is_what_the_run_imports(house: House) -> None:
    found = await replaced(house, lambda: write(house, tabnanny="RATE = 3\n"), preload="tabnanny")
    assert found == ([WAITED, None], [OWN, 3])


async def test_other_rules_end_the_interpreters_that_waited_for_the_old_ones(house: House) -> None:
    write(house, job=JOB + "def main():\n    return [where(), os.environ['MODE']]\n")
    house.deploy(entrypoint="job.py:main", preload=["decimal"], env={"MODE": "old"})
    async with house.worker() as worker:
        await waits(worker)
        house.deploy(entrypoint="job.py:main", preload=["decimal"], env={"MODE": "new"})
        assert await result(house, "at once") == [OWN, "new"]
        (old,) = [worker.warm["pool"]]
        assert old <= 1
        await until_all_new(house, worker)
        assert await result(house, "later") == [WAITED, "new"]


async def until_all_new(house: House, worker: Worker) -> None:
    async def new() -> bool:
        pids = waiting_pids(house)
        return worker.warm["pool"] == 1 and all(
            b"MODE=new" in (Path("/proc") / str(pid) / "environ").read_bytes() for pid in pids
        )

    await until(new, what="one that was started with the new rules")


async def test_a_module_that_reads_a_secret_when_it_is_imported_is_imported_by_the_run(
    house: House, tmp_path: Path, warnings_told: Callable[[], list[str]]
) -> None:
    (tmp_path / "secret").write_text("very-secret-value")
    write(
        house,
        settings_of="import os\nLENGTH = len(os.environ.get('DB', ''))\n",
        job=JOB + "import settings_of\ndef main():\n    return [where(), settings_of.LENGTH]\n",
    )
    house.deploy(entrypoint="job.py:main", preload=["settings_of"], env={"DB": f"file:{tmp_path / 'secret'}"})
    async with house.worker() as worker:
        await waits(worker)
        assert await result(house, "one") == [OWN, 17]
        assert await result(house, "two") == [OWN, 17]
    (told,) = warnings_told()
    assert "reads DB of the environment while it is imported" in told


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise ImportError('no driver')\n", "preload 'broken' can not be imported: ImportError: no driver"),
        ("def (:\n", "preload 'broken' can not be imported: SyntaxError"),
        ("raise SystemExit(3)\n", "preload 'broken' can not be imported: SystemExit: 3"),
        ("import os\nos._exit(0)\n", "it ended before it was ready"),
    ],
)
async def test_a_module_that_fails_at_import_leaves_runs_to_their_own_interpreters_and_is_told_once(
    house: House, warnings_told: Callable[[], list[str]], module: str, said: str
) -> None:
    write(house, broken=module, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=["broken"])
    async with house.worker():
        for number in range(3):
            assert await result(house, str(number)) == OWN

        async def told() -> bool:
            return bool(warnings_told())

        await until(told, what="the log says so")
        assert await result(house, "last") == OWN
    (message,) = warnings_told()
    assert said in message
    assert waiting_pids(house) == []


async def test_one_that_is_killed_while_it_waits_costs_no_run(house: House) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=["decimal"])
    async with house.worker() as worker:
        await waits(worker)
        (pid,) = waiting_pids(house)
        os.kill(pid, signal.SIGKILL)
        assert await result(house, "at once") in (OWN, WAITED)
        await waits(worker)
        assert pid not in waiting_pids(house)
        (pid,) = waiting_pids(house)
        os.kill(pid, signal.SIGSTOP)  # it answers nothing
        assert await result(house, "stopped") == OWN
        await house.gone(pid)


async def test_a_worker_that_stops_leaves_none_behind(house: House) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=["decimal"])
    async with house.worker() as worker:
        await waits(worker)
        (pid,) = waiting_pids(house)
    await house.gone(pid)


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.deployment_set import DeploymentSet
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.worker import Worker
from whenthen.schemas.deployments import Deployment

deployment = Deployment(name="d", entrypoint="job.py:main", preload=["decimal"])
asyncio.run(Worker(memory_stores(), DeploymentSet([deployment]), root=Path(sys.argv[1])).run())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_is_killed_leaves_none_behind(house: House, how: signal.Signals) -> None:
    write(house, job="def main(): pass\n")
    words = [sys.executable, "-c", WORKER, str(house.root)]
    worker = await asyncio.to_thread(subprocess.Popen, words, cwd=Path(__file__).parents[3])
    try:
        (pid,) = await asyncio.to_thread(soon, lambda: waiting_pids(house))
        worker.send_signal(how)
        await house.gone(pid)
    finally:
        worker.kill()
        worker.wait()


async def test_their_number_and_their_memory_are_bounded(house: House, warnings_told: Callable[[], list[str]]) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    for name in ("a", "b", "c"):
        house.deploy(name=name, entrypoint="job.py:main", preload=["decimal"])
    async with house.worker(warm_interpreters=2) as worker:

        async def two() -> bool:
            return worker.warm.total() == 2

        await until(two)
        assert len(waiting_pids(house)) == 2
        # the deployment that runs takes the place of one that does not
        name = next(name for name in ("a", "b", "c") if not worker.warm[name])
        await house.ends(await house.start("k", name))
        await waits(worker, name)
        assert len(waiting_pids(house)) <= 2
    async with house.worker(warm_bytes=1 << 20) as worker:
        for name in ("a", "b"):
            ended = await house.ends(await house.start(f"{name} small", name))
            assert ended.result == OWN

        async def told() -> bool:
            return len(warnings_told()) >= 2

        await until(told)
        assert worker.warm.total() == 0
    assert all("more than all that wait may (1,048,576)" in message for message in warnings_told())


async def test_of_a_thousand_deployments_with_modules_few_are_looked_at_and_as_many_wait_as_may(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    fields: dict[str, Any] = {"work_pool": house.pool, "entrypoint": "job.py:main", "preload": ["decimal"]}
    house.deployments.replace([Deployment(name=f"d{number}", **fields) for number in range(1_000)])
    looked_at: set[str] = set()

    def noted(deployment: Deployment, **more: Any) -> Any:
        looked_at.add(deployment.name)
        return warm_start_of(deployment, **more)

    monkeypatch.setattr(warm_pool, "warm_start_of", noted)
    async with house.worker(warm_interpreters=3) as worker:

        async def three() -> bool:
            return worker.warm.total() == 3

        await until(three)
        for name in ("d500", "d999"):
            await house.ends(await house.start(name, name))
            await waits(worker, name)
            assert len(waiting_pids(house)) <= 3
    assert len(looked_at) <= 10


async def test_those_of_all_workers_of_a_process_share_its_memory_and_the_last_run_counts(house: House) -> None:
    write(house, job=JOB + "def main():\n    return where()\n", large="held = bytearray(b'x') * (64 << 20)\n")
    pools = ("pool", "other")
    fields: dict[str, Any] = {"entrypoint": "job.py:main", "preload": ["large"]}
    house.deployments.replace([Deployment(name=pool, work_pool=pool, **fields) for pool in pools])
    room = WarmRoom(120 << 20)  # for one of them
    workers = {
        pool: Worker(house.stores, house.deployments, root=house.root, pool=pool, settings=FAST, warm_room=room)
        for pool in pools
    }
    running = [asyncio.create_task(worker.run()) for worker in workers.values()]
    try:
        for number, name in enumerate(["pool", "other", "pool"]):
            await house.ends(await house.start(f"{number}", name))

            async def alone(name: str = name) -> bool:
                waiting = {pool: worker.warm.total() for pool, worker in workers.items()}
                return waiting == {pool: int(pool == name) for pool in pools} and len(waiting_pids(house)) == 1

            await until(alone)
    finally:
        for worker in workers.values():
            worker.stop()
        await asyncio.gather(*running)


async def test_a_deployment_that_runs_again_and_again_has_several(house: House) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=["decimal"])
    async with house.worker(warm_interpreters=3) as worker:
        await waits(worker)
        for number in range(3):
            await result(house, str(number))
        await waits(worker, count=3)
        runs = [await house.start(f"burst {number}") for number in range(3)]
        assert [(await house.ends(run)).result for run in runs] == [WAITED] * 3


async def ends_as(house: House, body: str, **fields: Any) -> tuple[FlowRun, str]:
    """How a run ends in an interpreter that waited."""
    write(
        house,
        job="import os, signal, sys, time\nfrom pathlib import Path\ndef main():\n"
        + textwrap.indent(textwrap.dedent(body), "    "),
    )
    house.deploy(entrypoint="job.py:main", preload=["decimal"], **fields)
    async with house.worker() as worker:
        await waits(worker)
        run = await house.ends(await house.start())
    return run, "\n".join(await house.text(run, "stderr"))


@pytest.mark.parametrize(
    ("body", "state", "exit_code", "message"),
    [
        ("os._exit(3)", RunState.FAILED, 3, "exit code 3"),
        ("sys.exit(4)", RunState.FAILED, 4, "exit code 4"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", RunState.FAILED, -11, "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", RunState.FAILED, -9, "killed by SIGKILL"),
        ("os.closerange(0, 200)\nreturn 1", RunState.COMPLETED, 0, ""),
        ("raise ValueError('no rows')", RunState.FAILED, 1, "ValueError: no rows"),
    ],
)
async def test_a_run_in_one_ends_as_it_would_in_its_own(
    house: House, body: str, state: RunState, exit_code: int, message: str
) -> None:
    run, _ = await ends_as(house, body)
    assert (run.state, run.exit_code, run.message) == (state, exit_code, message)


async def test_a_traceback_shows_the_frames_of_the_run_alone(house: House) -> None:
    _, told = await ends_as(house, "raise ValueError('no rows')")
    assert [line.split(", ")[1] for line in told.splitlines() if line.startswith("  File ")] == ["line 4"]


async def test_a_run_in_one_is_stopped_with_its_children_also_when_it_ignores_the_request(house: House) -> None:
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        import subprocess
        child = subprocess.Popen(["sleep", "1000"])
        Path("child").write_text(str(child.pid))
        time.sleep(1000)
    """
    run, _ = await ends_as(house, body, timeout="3s")
    assert run.state is RunState.TIMED_OUT
    await house.gone(int((house.root / "child").read_text()))


async def test_one_waits_with_the_packages_of_the_deployments_own_interpreter(house: House) -> None:
    write(house, job=JOB + "def main():\n    return [where(), sys.prefix, 'yaml' in sys.modules]\n")
    venv.create(house.root / "env", with_pip=False)
    house.deploy(entrypoint="job.py:main", python="env/bin/python", preload=["decimal"])
    async with house.worker() as worker:
        await waits(worker)
        assert await result(house, "k") == [WAITED, str(house.root / "env"), False]


async def test_an_empty_list_says_that_none_waits(house: House) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=[])
    async with house.worker() as worker:
        assert [await result(house, str(number)) for number in range(4)] == [OWN] * 4
        assert not worker.warm


async def test_a_module_of_the_name_of_the_entry_points_file_is_told(
    house: House, warnings_told: Callable[[], list[str]]
) -> None:
    write(house, job=JOB + "def main():\n    return where()\n")
    house.deploy(entrypoint="job.py:main", preload=["job"])
    async with house.worker():

        async def told() -> bool:
            return bool(warnings_told())

        await until(told)
        assert await result(house, "k") == OWN
    (message,) = warnings_told()
    assert "has the name of a module that is imported, 'job'" in message


async def test_a_module_that_is_the_entry_point_may_be_imported_ahead_and_a_change_of_it_counts(house: House) -> None:
    write(house, job=JOB + "def main():\n    return [where(), 1]\n")
    house.deploy(entrypoint="job:main", preload=["job"])
    async with house.worker() as worker:
        await waits(worker)
        assert await result(house, "one") == [WAITED, 1]
        await waits(worker)
        write(house, job=JOB + "def main():\n    return [where(), 2, 'changed']\n")
        assert await result(house, "two") == [OWN, 2, "changed"]
