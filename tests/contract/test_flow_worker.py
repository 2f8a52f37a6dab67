"""Workers run real processes; with the stores in memory and over NATS."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import venv
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.deployment_set import DeploymentSet
from tests.patience import limit
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.reaper import Reaper, ReaperSettings
from whenthen.runs.run_output import LogLimits
from whenthen.runs.run_states import transition
from whenthen.runs.stores import Stores
from whenthen.runs.worker import Worker, WorkerSettings
from whenthen.schemas.deployments import TERMINAL, Deployment, FlowRun, RunState
from whenthen.schemas.errors import NotFound

pytestmark = pytest.mark.anyio
Eventually = Callable[..., Awaitable[None]]

FAST = WorkerSettings(
    heartbeat=timedelta(seconds=0.2),
    lost_after=timedelta(seconds=limit(1.2)),
    kill_grace=timedelta(seconds=0.5),
    drain_grace=timedelta(seconds=0.2),
    slot_wait=timedelta(seconds=0.1),
    fetch_wait=timedelta(seconds=0.3),
    retry_pause=timedelta(seconds=0.1),
)


class House:
    """One deployment, its orchestrator, and workers of its own pool."""

    def __init__(self, stores: Stores, root: Path, unique: str, eventually: Eventually) -> None:
        self.stores = stores
        self.root = root
        self.pool = unique
        self.deployments = DeploymentSet()
        self.orchestrator = BuiltInOrchestrator(stores, self.deployments)
        self._eventually = eventually

    def deploy(self, **fields: Any) -> str:
        name = fields.pop("name", self.pool)
        known = [d for d in self.deployments.current().values() if d.name != name]
        self.deployments.replace([*known, Deployment(name=name, work_pool=self.pool, **fields)])
        return str(name)

    async def start(self, key: str = "k", name: str | None = None, **parameters: Any) -> FlowRun:
        return await self.orchestrator.run_deployment(name or self.pool, parameters, key=f"{self.pool}/{key}")

    async def reaches(self, run: FlowRun, *states: RunState) -> FlowRun:
        await self._eventually(lambda: self._is_in(run.id, states))
        return await self.now(run)

    async def ends(self, run: FlowRun) -> FlowRun:
        return await self.reaches(run, *TERMINAL)

    async def now(self, run: FlowRun) -> FlowRun:
        return (await self.orchestrator.get_flow_run(run.id)).run

    async def text(self, run: FlowRun, stream: str = "stdout") -> list[str]:
        return [line.text for line in await self.stores.logs.read(run.id) if line.stream == stream]

    async def gone(self, pid: int) -> None:
        """Wait for the end of a process that was killed, which the system takes its time for."""

        async def ended() -> bool:
            return not alive(pid)

        await self._eventually(ended)

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[Worker]:
        name = changes.pop("name", None)
        worker = Worker(
            self.stores,
            self.deployments,
            root=self.root,
            pool=self.pool,
            name=name,
            settings=replace(FAST, **changes),
        )
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(task, limit(30))

    async def _is_in(self, run_id: str, states: tuple[RunState, ...]) -> bool:
        return (await self.orchestrator.get_flow_run(run_id)).run.state in states


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Eventually) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    return House(stores, root, unique, eventually)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_command_gets_its_parameters_as_words_and_variables(house: House) -> None:
    script = 'printf "%s|" "$@"; echo; echo "$WHENTHEN_PARAM_PATH_1"; echo "$WHENTHEN_DEPLOYMENT" >&2'
    house.deploy(command=["sh", "-c", script, "sh", "--in={{ path_1 }}", "{{ n }}"])
    run = await house.start(path_1='a b"; rm -rf $HOME; `x`', n=[1, None])
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code, ended.attempt) == (RunState.COMPLETED, 0, 1)
    assert ended.started is not None
    assert ended.ended is not None
    assert await house.text(run) == ['--in=a b"; rm -rf $HOME; `x`|[1,null]|', 'a b"; rm -rf $HOME; `x`']
    assert await house.text(run, "stderr") == [house.pool]


async def test_the_same_key_is_one_run(house: House) -> None:
    house.deploy(command="sh -c 'echo ran'")
    runs = await asyncio.gather(*(house.start() for _ in range(5)))
    assert len({run.id for run in runs}) == 1
    async with house.worker(), house.worker():
        await house.ends(runs[0])
        again = await house.start()
    assert again.state is RunState.COMPLETED
    assert await house.text(runs[0]) == ["ran"]


async def test_an_unknown_deployment_is_refused_with_near_names(house: House) -> None:
    house.deploy(name="loader", command="true")
    with pytest.raises(NotFound, match="did you mean 'loader'"):
        await house.start(name="loadr")


async def test_a_command_that_does_not_exist_fails_the_run_with_a_clear_message(house: House) -> None:
    house.deploy(command="no-such-program --x", retries=3)
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert ended.message.startswith("command 'no-such-program' not found in PATH;")
    assert (await house.text(run, "system"))[0] == ended.message


async def test_a_missing_parameter_fails_the_run_and_names_it(house: House) -> None:
    house.deploy(command="echo {{ path }}")
    run = await house.start(pth="x")
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert "'path'" in ended.message
    assert "pth" in ended.message


async def test_a_file_that_is_no_program_fails_the_run(house: House) -> None:
    (house.root / "tool").write_bytes(b"\x00\x01not a program")
    (house.root / "tool").chmod(0o755)
    house.deploy(command="./tool")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert "can not be started" in ended.message


async def test_parameters_too_large_for_a_command_line_fail_the_run(house: House) -> None:
    house.deploy(command="echo {{ text }}")
    run = await house.start(text="x" * 200_000)
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert "too long" in ended.message


async def test_a_failing_command_tells_its_exit_code_and_last_words(house: House) -> None:
    house.deploy(command=["sh", "-c", "echo first >&2; echo 'no such table' >&2; exit 3"])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code, ended.message) == (RunState.FAILED, 3, "exit code 3: no such table")


async def test_a_command_that_a_signal_ends_says_which(house: House) -> None:
    house.deploy(command=["sh", "-c", "kill -SEGV $$"])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code, ended.message) == (RunState.FAILED, -11, "killed by SIGSEGV")


async def test_a_function_is_called_and_its_result_kept(house: House) -> None:
    (house.root / "flows.py").write_text(
        "import helper\nasync def load(path, n=2):\n    print('loading', path)\n    return {'rows': helper.rows(n)}\n"
    )
    (house.root / "helper.py").write_text("def rows(n):\n    return n * 21\n")
    house.deploy(entrypoint="flows.py:load")
    run = await house.start(path="p" * 200_000)
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.message, ended.result) == (RunState.COMPLETED, "", {"rows": 42})
    assert "".join(await house.text(run)).startswith("loading ppp")


@pytest.mark.parametrize("entrypoint", ["jobs.load:run", "jobs/load.py:run", "jobs.load:Load.run"])
async def test_modules_of_the_rules_folder_can_be_imported_and_named(house: House, entrypoint: str) -> None:
    (house.root / "jobs").mkdir()
    (house.root / "work").mkdir()
    (house.root / "jobs" / "load.py").write_text(
        "from jobs.shared import rows\ndef run():\n    return rows\nclass Load:\n    @staticmethod\n    def run():\n        return rows\n"
    )
    (house.root / "jobs" / "shared.py").write_text("rows = 7\n")
    house.deploy(entrypoint=entrypoint, working_dir="work")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.message, ended.result) == (RunState.COMPLETED, "", 7)


async def test_a_deployment_runs_in_an_interpreter_of_its_own(house: House) -> None:
    (house.root / "jobs.py").write_text("import sys\ndef run():\n    return sys.prefix\n")
    venv.create(house.root / "env", with_pip=False)
    house.deploy(entrypoint="jobs.py:run", python="env/bin/python")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, str((house.root / "env").absolute()))
    house.deploy(entrypoint="jobs.py:run", python="gone/bin/python")
    other = await house.start("other")
    async with house.worker():
        ended = await house.ends(other)
    assert ended.state is RunState.FAILED
    assert "python 'gone/bin/python' is not there" in ended.message


async def test_a_secret_parameter_reaches_the_function_and_is_kept_nowhere(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAD_KEY", "very-secret-key")
    (house.root / "jobs.py").write_text("def run(key, n):\n    print('key is', key)\n    return [len(key), n]\n")
    house.deploy(entrypoint="jobs.py:run", parameters={"n": 1}, secret_parameters={"key": "env:LOAD_KEY"})
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result, ended.parameters) == (RunState.COMPLETED, [15, 1], {"n": 1})
    assert await house.text(run) == ["key is ***"]


async def test_an_exception_fails_the_run_with_its_traceback_in_the_log(house: House) -> None:
    (house.root / "flows.py").write_text("def load():\n    raise KeyError('orders')\n")
    house.deploy(entrypoint="flows.py:load")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code, ended.message) == (RunState.FAILED, 1, "KeyError: 'orders'")
    log = await house.text(run, "stderr")
    assert log[0] == "Traceback (most recent call last):"
    assert any("raise KeyError('orders')" in line for line in log)
    assert not any("runner.py" in line for line in log)


async def test_the_traceback_of_a_flow_shows_the_frames_of_its_own_file_alone(house: House) -> None:
    (house.root / "flows.py").write_text(
        "from whenthen import flow, task\n"
        "@task\n"
        "def read():\n"
        "    raise KeyError('orders')\n"
        "@flow\n"
        "def load():\n"
        "    try:\n"
        "        read()\n"
        "    except KeyError as error:\n"
        "        raise ValueError('no orders') from error\n"
    )
    house.deploy(entrypoint="flows.py:load")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.message) == (RunState.FAILED, "ValueError: no orders")
    log = await house.text(run, "stderr")
    assert [line.split(", ")[1:] for line in log if line.startswith("  File ")] == [
        ["line 8", "in load"],
        ["line 4", "in read"],
        ["line 10", "in load"],
    ], log


async def test_a_parameter_that_a_flow_refuses_leaves_a_message_and_no_frames(house: House) -> None:
    (house.root / "flows.py").write_text("from whenthen import flow\n@flow\ndef load(count: int):\n    pass\n")
    house.deploy(entrypoint="flows.py:load")
    run = await house.start(count="many")
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    log = await house.text(run, "stderr")
    assert not any(line.startswith("  File ") for line in log), log
    assert any(line.startswith(" - count: Input should be a valid integer") for line in log), log


@pytest.mark.parametrize(
    ("entrypoint", "parameters", "message"),
    [
        ("flows.py:laod", {}, "did you mean 'load'"),
        ("flows.py:load", {"pth": 1}, "it takes: path"),
        ("nothing.py:load", {}, "there is no file"),
        ("broken.py:load", {}, "SyntaxError"),
    ],
)
async def test_a_function_that_can_not_be_called_fails_the_run(
    house: House, entrypoint: str, parameters: dict[str, Any], message: str
) -> None:
    (house.root / "flows.py").write_text("def load(path): ...\n")
    (house.root / "broken.py").write_text("def load(:\n")
    house.deploy(entrypoint=entrypoint)
    run = await house.start(**parameters)
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert message in ended.message


async def test_a_run_that_takes_too_long_is_stopped_also_when_it_ignores_the_request(house: House) -> None:
    script = "trap '' TERM; echo $$; sleep 60 & echo $!; wait; sleep 60"
    house.deploy(command=["sh", "-c", script], timeout=limit(0.6))  # in which it says who it is
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.message) == (RunState.TIMED_OUT, f"took longer than {limit(0.6):g}s")
    pids = [int(text) for text in await house.text(run)]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


async def test_a_failing_run_is_retried_until_it_succeeds(house: House) -> None:
    script = 'test -e done && exit 0; [ "$WHENTHEN_ATTEMPT" = 2 ] && touch done; echo "try $WHENTHEN_ATTEMPT"; exit 1'
    house.deploy(command=["sh", "-c", script], retries=5, retry_delay=0.1)
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.attempt) == (RunState.COMPLETED, 3)
    assert await house.text(run) == ["try 1", "try 2"]


async def test_the_last_failed_try_fails_the_run(house: House) -> None:
    house.deploy(command=["sh", "-c", "exit 7"], retries=1, retry_delay=0)
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.attempt, ended.message) == (RunState.FAILED, 2, "exit code 7")


async def test_a_cancelled_run_and_its_children_are_stopped(house: House, eventually: Eventually) -> None:
    house.deploy(command=["sh", "-c", "sleep 60 & echo $!; echo $$; wait"])
    run = await house.start()
    async with house.worker():

        async def both_said() -> bool:
            return len(await house.text(run)) == 2

        await eventually(both_said)
        await house.orchestrator.cancel_flow_run(run.id)
        ended = await house.ends(run)
        await house.orchestrator.cancel_flow_run(run.id)
    assert (ended.state, ended.message) == (RunState.CANCELLED, "cancelled")
    assert not any(alive(int(text)) for text in await house.text(run))


async def test_a_waiting_run_is_cancelled_at_once_and_never_starts(house: House) -> None:
    house.deploy(command="sh -c 'echo ran'")
    run = await house.start()
    await house.orchestrator.cancel_flow_run(run.id)
    assert (await house.now(run)).state is RunState.CANCELLED
    other = await house.start("other")
    async with house.worker():
        await house.ends(other)
    assert await house.text(run) == []


async def test_no_more_runs_than_the_limit_are_active_across_workers(house: House) -> None:
    script = 'echo x >> active; wc -l < active; sleep 0.3; sed -i "\\$d" active; echo done'
    house.deploy(command=["flock", "lock", "sh", "-c", "exit 0"], concurrency_limit=1)
    house.deploy(command=["sh", "-c", script], concurrency_limit=1)
    runs = [await house.start(str(number)) for number in range(4)]
    async with house.worker(name="one"), house.worker(name="two"):
        ended = [await house.ends(run) for run in runs]
    assert {run.state for run in ended} == {RunState.COMPLETED}
    assert [(await house.text(run))[0].strip() for run in runs] == ["1"] * 4
    spans = sorted((run.started or "", run.ended or "") for run in ended)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


async def test_a_run_that_another_worker_has_is_not_started_again(house: House) -> None:
    house.deploy(command="sh -c 'echo ran'")
    run = await house.start()
    stored = await house.orchestrator.get_flow_run(run.id)
    for state in (RunState.PENDING, RunState.RUNNING):
        changed = transition(stored.run, state, datetime.now(UTC), worker="another")
        stored = await house.stores.runs.update(changed, stored.version)
    async with asyncio.timeout(limit(30)), house.worker():
        for _ in range(12):
            await house.stores.heartbeats.beat(run.id, "another")
            await asyncio.sleep(FAST.lost_after.total_seconds() / 10)
        assert (await house.orchestrator.get_flow_run(run.id)) == stored
        assert await house.text(run) == []
        ended = await house.ends(run)
    assert ended.state is RunState.CRASHED
    assert "another" in ended.message


async def test_a_stopping_worker_hands_back_what_it_can_not_finish(house: House) -> None:
    house.deploy(command=["sh", "-c", "echo $$; test -e again && exit 0; touch again; sleep 60"])
    run = await house.start()
    async with house.worker(name="first"):
        await house.reaches(run, RunState.RUNNING)
        while not await house.text(run):
            await asyncio.sleep(0.02)
    back = await house.now(run)
    assert (back.state, back.attempt) == (RunState.SCHEDULED, 0)
    assert "first" in back.message
    await house.gone(int((await house.text(run))[0]))
    async with house.worker(name="second"):
        ended = await house.ends(run)
    assert (ended.state, ended.attempt) == (RunState.COMPLETED, 1)


async def test_a_stopping_worker_finishes_what_ends_in_time(house: House) -> None:
    house.deploy(command=["sleep", "0.5"])
    run = await house.start()
    async with house.worker(drain_grace=timedelta(seconds=limit(20))):
        await house.reaches(run, RunState.RUNNING)
    assert (await house.now(run)).state is RunState.COMPLETED


async def test_long_lines_are_split_and_of_a_long_log_the_beginning_and_the_end_are_kept(house: House) -> None:
    script = "head -c 2500 /dev/zero | tr '\\0' a; echo; seq 10000; exit 2"
    house.deploy(command=["sh", "-c", script])
    run = await house.start()
    async with house.worker(
        logs=LogLimits(line_chars=1000, batch_chars=500, head_bytes=4000, tail_bytes=6000, batch_lines=50)
    ):
        ended = await house.ends(run)
    lines = await house.stores.logs.read(run.id)
    texts = [line.text for line in lines if line.stream == "stdout"]
    assert [len(text) for text in texts[:3]] == [1000, 1000, 500]
    (gap,) = [number for number, line in enumerate(lines) if line.stream == "system"]
    said = re.match(r"(\d+) lines \((\d+) bytes\) are left out here", lines[gap].text)
    assert said
    head = [int(text) for text in texts[3:gap]]
    assert head == list(range(1, len(head) + 1))
    tail = [int(text) for text in texts[gap:]]
    assert tail == list(range(10001 - len(tail), 10001))
    assert len(head) + int(said[1]) + len(tail) == 10000
    assert sum(len(f"{number}") + 1 for number in range(head[-1] + 1, tail[0])) == int(said[2])
    assert 4000 <= sum(len(text) + 1 for text in texts[:gap]) < 4000 + 1100
    assert 6000 <= sum(len(text) + 1 for text in texts[gap:]) < 6000 + 1100
    assert ended.exit_code == 2


async def test_a_log_below_its_limit_is_whole_also_beyond_its_beginning(house: House) -> None:
    house.deploy(command=["seq", "2000"])
    run = await house.start()
    async with house.worker(logs=LogLimits(batch_chars=500, head_bytes=1000, tail_bytes=9000)):
        await house.ends(run)
    assert await house.text(run) == [str(number) for number in range(1, 2001)]
    assert await house.text(run, "system") == []


async def test_a_log_has_a_limit_of_lines_which_take_room_when_empty(house: House) -> None:
    # stdout and stderr are read side by side: what may still be in a pipe when the end is written is less than the tail
    wide = "yes $(printf %04000d 0) | head -n 100"
    house.deploy(command=["sh", "-c", f"yes '' | head -n 5000; {wide}; echo end >&2; exit 2"])
    run = await house.start()
    async with house.worker(logs=LogLimits(head_lines=20, tail_lines=80, batch_lines=10)):
        ended = await house.ends(run)
    assert 100 <= len(await house.text(run)) + 1 <= 120
    assert "lines (" in (await house.text(run, "system"))[0]
    assert await house.text(run, "stderr") == ["end"]
    assert ended.exit_code == 2


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("os.mkdir('d' * 200); os.chdir('d' * 200)", id="folders-2000-deep"),
        pytest.param("open(f'f{n}', 'w').close()", id="2000-files"),
    ],
)
async def test_the_folder_of_a_run_is_removed_whatever_is_left_in_it(
    house: House, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        f"import os\nos.chdir(os.path.dirname(os.environ['WHENTHEN_RESULT_FILE']))\nfor n in range(2000):\n    {left}"
    )
    house.deploy(command=[sys.executable, "-c", script])
    run = await house.start()
    async with house.worker():
        assert (await house.ends(run)).state is RunState.COMPLETED
    left_over = await asyncio.to_thread(os.listdir, tmp_path)
    assert not [name for name in left_over if name.startswith("whenthen-run-")]


async def test_what_a_run_leaves_in_the_background_ends_with_it(house: House) -> None:
    house.deploy(command=["sh", "-c", "sleep 60 & echo $!"])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.COMPLETED
    await house.gone(int((await house.text(run))[0]))


async def test_a_daemon_that_left_the_group_does_not_hold_the_run(house: House) -> None:
    house.deploy(command=["sh", "-c", "echo before; setsid sleep 15 & echo after"])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.COMPLETED
    assert sorted(await house.text(run)) == ["after", "before"]


async def test_secrets_of_the_environment_do_not_reach_the_log(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("s3cr3t-file\n")
    monkeypatch.setenv("PLANTED", "s3cr3t-env")
    monkeypatch.setenv("WHENTHEN_API_TOKEN", "s3cr3t-api")
    script = 'echo "$A and $B"; env | grep -c API_TOKEN; echo "bad $A" >&2; exit 1'
    house.deploy(command=["sh", "-c", script], env={"A": "env:PLANTED", "B": f"file:{tmp_path}/token"})
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert await house.text(run) == ["*** and ***", "0"]
    assert ended.message == "exit code 1: bad ***"


async def test_secrets_of_the_environment_do_not_reach_the_result(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", "s3cr3t-env")
    monkeypatch.setenv("PIN", "48151623")
    result = '{"result": {"s3cr3t-env": ["x s3cr3t-env", 48151623, 7, true, null]}}'
    script = f"echo '{result}' > $WHENTHEN_RESULT_FILE"
    house.deploy(command=["sh", "-c", script], env={"A": "env:PLANTED", "B": "env:PIN"})
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.result == {"***": ["x ***", "***", 7, True, None]}


async def test_a_missing_secret_fails_the_run_and_names_the_reference(house: House) -> None:
    house.deploy(command="true", env={"A": "env:NOT_SET_ANYWHERE"})
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert "env:NOT_SET_ANYWHERE" in ended.message


async def test_a_deployment_that_left_the_rules_fails_its_waiting_runs(house: House) -> None:
    house.deploy(command="true")
    run = await house.start()
    house.deployments.replace([])
    async with house.worker():
        ended = await house.ends(run)
    assert ended.state is RunState.FAILED
    assert "not in the rules" in ended.message


async def test_a_delayed_run_starts_when_it_is_due(house: House) -> None:
    house.deploy(command="true")
    async with house.worker():
        run = await house.orchestrator.run_deployment(
            house.pool, {}, key=f"{house.pool}/late", delay=timedelta(seconds=1)
        )
        ended = await house.ends(run)
    assert ended.started is not None
    assert ended.started >= run.scheduled_for


async def test_a_run_that_was_stored_but_not_queued_is_queued_by_the_reaper(house: House) -> None:
    house.deploy(command="sh -c 'echo ran'")
    run = await house.start()
    item = await house.stores.queue.fetch(house.pool, wait=timedelta(seconds=10))
    assert item is not None
    await item.ack()
    settings = ReaperSettings(requeue_after=timedelta(seconds=0.3), interval=timedelta(seconds=0.1))
    reaping = asyncio.create_task(Reaper(house.stores, settings=settings).run())
    async with house.worker():
        ended = await house.ends(run)
    reaping.cancel()
    assert ended.state is RunState.COMPLETED
    assert await house.text(run) == ["ran"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('mkfifo "$WHENTHEN_RESULT_FILE"', "it is a FIFO"),
        ('ln -s /etc/hostname "$WHENTHEN_RESULT_FILE"', "it is a symbolic link"),
        ('mkdir "$WHENTHEN_RESULT_FILE"', "it is a directory"),
        ('truncate -s 1T "$WHENTHEN_RESULT_FILE"', "it has more than 128 KiB"),
        ('echo "{\\"result\\": NaN}" > "$WHENTHEN_RESULT_FILE"', "NaN is not a JSON value"),
    ],
)
async def test_a_result_file_of_another_kind_is_dropped_with_a_note_and_the_run_completes(
    house: House, script: str, said: str
) -> None:
    house.deploy(command=["sh", "-c", script])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, None)
    assert said in ended.message
    assert await house.text(run, "system") == [ended.message]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"t": datetime.datetime.now()}', "Object of type datetime is not JSON serializable"),
        ('"x" * 70_000', "70,002 bytes of JSON; at most 64 KiB are kept"),
    ],
)
async def test_a_function_result_that_is_not_kept_is_named_in_the_message_and_the_log(
    house: House, value: str, said: str
) -> None:
    (house.root / "jobs.py").write_text(f"import datetime\n\ndef run():\n    return {value}\n")
    house.deploy(command=None, entrypoint="jobs.py:run")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, None)
    assert ended.message.startswith("the result was dropped: ")
    assert said in ended.message
    assert await house.text(run, "system") == [ended.message]


async def test_a_result_nested_253_deep_is_dropped_with_a_note_and_the_run_completes(house: House) -> None:
    (house.root / "deep.json").write_text('{"result": ' + "[" * 253 + "]" * 253 + "}")
    house.deploy(command=["sh", "-c", f'cp {house.root}/deep.json "$WHENTHEN_RESULT_FILE"'])
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, None)
    assert ended.message == "the result was dropped: it is nested more than 100 deep; flatten it"
