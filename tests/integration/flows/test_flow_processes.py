"""Flows and processes: tasks in children, forks, folders that several processes write to, and what an import costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.flows.programs import ROOT, run_program
from tests.patience import eventually, limit
from whenthen import flow, get_run_logger, task
from whenthen.exceptions import CrashedRun, SerializationError
from whenthen.flows.execution.reporter import REPORTER
from whenthen.futures import wait
from whenthen.runtime import flow_run, task_run
from whenthen.task_runners import ProcessPoolTaskRunner


class Local(Exception):
    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")


def test_functions_run_in_processes_of_their_own_and_everything_else_here() -> None:
    own = os.getpid()
    hooks: list[int] = []
    tried: list[int] = []

    @task(retries=1, on_completion=[lambda task, run, state: hooks.append(os.getpid())])
    def where(n: int) -> tuple[int, str, int, int]:
        tried.append(n)  # in the child: not seen here
        if task_run.run_count == 1:
            raise ValueError
        return os.getpid(), str(task_run.task_name), int(flow_run.parameters["n"]), n

    @task
    async def later(n: int) -> int:
        return n + 1

    @task
    def yields(n: int) -> Any:
        yield from range(n)

    @task
    def nested(n: int) -> list[int]:
        return later.map([n, n]).result()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def run(n: int) -> Any:
        return (
            where.map([1, 2, 3]).result(),
            later.submit(n).result(),
            yields.submit(3).result(),
            nested.submit(n).result(),
        )

    found, later_one, yielded, below = run(7)
    assert [one[1:] for one in found] == [("where", 7, 1), ("where", 7, 2), ("where", 7, 3)]
    assert own not in {one[0] for one in found}
    assert (hooks, tried) == ([own] * 3, [])
    assert (later_one, yielded, below) == (8, [0, 1, 2], [8, 8])


def test_what_goes_wrong_in_a_process_says_what() -> None:
    @task
    def bad() -> None:
        raise ValueError("x")

    @task
    def local() -> None:
        raise Local(3, why="y")

    @task
    def die() -> None:
        os._exit(3)

    @task
    def killed() -> None:
        os.kill(os.getpid(), 9)

    @task
    def lock() -> Any:
        return threading.Lock()

    @task(timeout_seconds=0.2)
    def slow() -> None:
        threading.Event().wait()  # in C, for ever: the process is killed

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=3))
    def run() -> Any:
        futures = [one.submit() for one in (bad, local, die, killed, lock, slow)]
        wait(futures)
        return [future.state for future in futures]

    states = run(return_state=True).data
    assert [state.name for state in states] == ["Failed"] * 5 + ["TimedOut"]
    errors = [state.data for state in states]
    assert isinstance(errors[0], ValueError)
    assert "in the process of the task:" in errors[0].__notes__[0]
    assert isinstance(errors[1], CrashedRun)
    assert "Local: 3: y" in str(errors[1])
    assert "ended without a result: exit code 3" in str(errors[2])
    assert "ended without a result: signal SIGKILL" in str(errors[3])
    assert isinstance(errors[4], SerializationError)


def test_a_child_tells_the_reporter_of_its_parent() -> None:
    class Reporter:
        def __init__(self) -> None:
            self.heard: list[tuple[str, Any]] = []

        def state(self, run: Any, state: Any) -> None:
            self.heard.append((run.name.split("-")[0], state.name))

        def log(self, run: Any, record: Any) -> None:
            self.heard.append((run.name.split("-")[0], record.getMessage()))

        def event(self, event: Any) -> None: ...

        def artifact(self, artifact: Any) -> None: ...

        def request(self, kind: str, body: dict[str, Any]) -> Any:
            if kind == "bad":
                raise LookupError(kind)
            return {kind: body}

    @task
    def inner() -> None: ...

    @task
    def outer() -> Any:
        get_run_logger().info("from %s", "the child")
        inner()
        with pytest.raises(LookupError):
            REPORTER.get().request("bad", {})
        return REPORTER.get().request("slot", {"n": 1})

    @flow(task_runner=ProcessPoolTaskRunner())
    def run() -> Any:
        return outer.submit().result()

    reporter = Reporter()
    token = REPORTER.set(reporter)
    try:
        assert run() == {"slot": {"n": 1}}
    finally:
        REPORTER.reset(token)
    of_tasks = [heard for heard in reporter.heard if heard[0] in ("inner", "outer")]
    assert of_tasks == [
        ("outer", "Pending"),
        ("outer", "Running"),
        ("outer", "from the child"),
        ("inner", "Pending"),
        ("inner", "Running"),
        ("inner", "Completed"),
        ("outer", "Completed"),
    ]


def test_a_flow_out_of_time_kills_its_processes(tmp_path: Path) -> None:
    @task
    def endless() -> None:
        (tmp_path / str(os.getpid())).touch()
        threading.Event().wait()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2), timeout_seconds=limit(1))  # in which a process begins
    def run() -> None:
        endless.submit()
        endless.submit().wait()

    assert run(return_state=True).name == "TimedOut"

    def none_left() -> bool:
        return not any(Path(f"/proc/{file.name}").exists() for file in tmp_path.iterdir())

    assert list(tmp_path.iterdir())
    eventually(none_left)


def test_a_flow_runs_in_a_fork_of_a_process_in_which_flows_run() -> None:
    @task
    def add(n: int) -> int:
        return n + 1

    @flow
    def inner(n: int) -> int:
        return add.submit(n).result()

    @flow
    def outer() -> tuple[int, int]:
        assert add.submit(1).result() == 2  # this flow has threads, which the fork has not
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = inner(2) + add.submit(10).result()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), add.submit(3).result()

    assert outer() == (14, 4)


WRITER = """
import sys
from whenthen import flow, task

@task(cache_key_fn=lambda context, parameters: "one-key", refresh_cache=True)
def compute(n):
    return [n] * 50_000

@task(cache_key_fn=lambda context, parameters: "one-key")
def read():
    return [-1] * 50_000

@flow
def run(n):
    for _ in range(30):
        for found in (compute(n), read()):
            assert len(found) == 50_000 and len(set(found)) == 1, found[:3]
    print("whole")

run(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


def test_processes_that_write_one_result_at_once_never_leave_half_of_it(tmp_path: Path) -> None:
    program = tmp_path / "writer.py"
    program.write_text(WRITER)
    running = [
        subprocess.Popen(
            [sys.executable, program, str(n)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    answers = [process.communicate(timeout=limit(60)) for process in running]
    assert [answer for answer, _ in answers] == ["whole\n"] * 3, answers
    assert [error for _, error in answers] == [""] * 3
    assert [file.name for file in (tmp_path / ".whenthen" / "results").iterdir()] == ["one-key"]


FULL = """
import resource
from whenthen import task
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a file can not grow, as on a full disk

@task(cache_key_fn=lambda context, parameters: "k")
def compute():
    return bytes(100_000)

print(len(compute()), len(compute()), compute(return_state=True).name)
"""


def test_a_disk_that_is_full_costs_the_kept_result_and_nothing_else(tmp_path: Path) -> None:
    done = run_program("-c", FULL, cwd=tmp_path)
    assert done.stdout == "100000 100000 Completed\n", done
    assert done.stderr.count("the result is not kept, the run goes on: [Errno 27] File too large") == 3
    assert list((tmp_path / ".whenthen" / "results").iterdir()) == []


def test_a_plain_script_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    program = """
import sys, threading
import whenthen
assert not any(name.startswith("whenthen.") for name in sys.modules), "an import alone loads nothing"
from whenthen import flow, task
assert threading.active_count() == 1
import logging
assert logging.getLogger("whenthen").handlers == []

@task(retries=1)
def t(n):
    return n

@flow
def f(n):
    return t(n)

print(f(3), threading.active_count(), [name for name in ("asyncio", "httpx", "aiohttp", "nats", "yaml", "whenthen.schemas") if name in sys.modules])
"""
    done = run_program("-c", program, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("3 1 ['asyncio']\n", "")
    assert list(tmp_path.iterdir()) == []


def test_lines_of_runs_are_shown_once_with_and_without_handlers_of_the_program(tmp_path: Path) -> None:
    program = """
import logging
from whenthen import flow, get_run_logger

@flow(flow_run_name="named")
def f():
    get_run_logger().info("a line")
    get_run_logger().debug("too fine")

f()
logging.basicConfig(format="own: %(message)s %(flow_run_name)s")
f()
"""
    done = run_program("-c", program, cwd=tmp_path)
    first, second = done.stderr.splitlines()
    assert first.endswith("| INFO    | Flow run 'named' - a line")
    assert second == "own: a line named"


def imported(statement: str) -> float:
    """The processor time of an import in a fresh interpreter."""
    program = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


@pytest.mark.takes(5)
@pytest.mark.parametrize("statement", ["import whenthen", "from whenthen import flow, task"])
def test_the_import_takes_less_than_three_times_that_of_what_it_is_made_of(statement: str) -> None:
    imported(statement), imported("import asyncio, logging, pydantic")  # bytecode
    own = statistics.median(imported(statement) for _ in range(7))
    base = statistics.median(imported("import asyncio, logging, pydantic") for _ in range(7))
    assert own < 3 * base, f"{own:.3f} s, {own / base:.1f} times"


def test_the_sdk_imports_pydantic_alone_and_that_when_a_type_is_checked() -> None:
    program = """
import sys
before = set(sys.modules)
import whenthen.flows, whenthen.tasks, whenthen.states, whenthen.futures, whenthen.transactions, whenthen.task_runners, whenthen.runtime
import whenthen.cache_policies, whenthen.context, whenthen.exceptions, whenthen.logging, whenthen.utilities.annotations
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names) - {"whenthen"}))
@whenthen.flow
def f(n: int): return n
f("1")
print("pydantic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (
        "No module named 'pydantic'" in done.stderr
    )  # without site-packages everything is imported, and a type can not be checked
    assert done.stdout == "[]\n"


def test_an_interrupt_of_a_script_ends_it_with_what_it_submitted(tmp_path: Path) -> None:
    program = tmp_path / "script.py"
    program.write_text(
        "import time\nfrom whenthen import flow, task\n"
        "@task\ndef work():\n    print('begun', flush=True)\n    while True: time.sleep(0.01)\n"
        "@flow(on_crashed=[lambda f, r, s: print(s.message, flush=True)])\ndef f():\n    work.submit().wait()\n"
        "f()\n"
    )
    process = subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    began = time.monotonic()
    process.send_signal(2)
    output, error = process.communicate(timeout=limit(20))
    assert output.splitlines()[-1] == "Execution was aborted by an interrupt signal."
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert time.monotonic() - began < limit(10)
