"""Runs in containers: the command line that `docker` is given, and what becomes of the run. A program of that name stands in for it: it notes its
arguments and runs the command with the environment that a container would have."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import FAST, House, alive
from tests.patience import limit
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.worker import Worker
from whenthen.schemas.deployments import RunState
from whenthen.schemas.work_pools import WorkPool

pytestmark = pytest.mark.anyio

FAKE = f"""#!{sys.executable} -IS
import json, os, signal, subprocess, sys

folder = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
with open(folder + "/calls.jsonl", "a") as calls:
    print(json.dumps(words), file=calls)
if words[0] == "rm":
    try:
        pid = int(open(f"{{folder}}/{{words[-1]}}.pid").read())
        os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError):
        print("Error: No such container", file=sys.stderr)
    sys.exit(0)
env, rest, workdir, name = {{"PATH": os.environ["PATH"]}}, words[1:], None, None
while rest[0].startswith("-"):
    word = rest.pop(0)
    if word in ("--rm", "--init") or "=" in word:
        continue
    value = rest.pop(0)
    if word == "--env":
        given = value.partition("=")
        env[given[0]] = given[2] if given[1] else os.environ[given[0]]
    elif word == "--workdir":
        workdir = value
    elif word == "--name":
        name = value
image, *command = rest
if image == "no/such-image":
    print("docker: Error response from daemon: No such image: no/such-image.", file=sys.stderr)
    sys.exit(125)
# outside of the client's process group, as a container is
child = subprocess.Popen(command, cwd=workdir, env=env, start_new_session=True)
with open(f"{{folder}}/{{name}}.pid", "w") as pid:
    print(child.pid, file=pid)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda got, _: child.send_signal(got))
code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
"""


class ContainerHouse(House):
    """Workers whose pool is of type docker."""

    def __init__(self, root: Path, bin_folder: Path, unique: str, eventually: Callable[..., Awaitable[None]]) -> None:
        super().__init__(memory_stores(), root, unique, eventually)
        self.bin = bin_folder
        self.deployments.pools[unique] = WorkPool(
            name=unique, type="docker", image="python:3.12-slim", docker_options=["--network=none"]
        )

    def calls(self) -> list[list[str]]:
        file = self.bin / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[Worker]:
        environment = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "OF_THE_WORKER": "1", "HOME": "/root"}
        worker = Worker(
            self.stores,
            self.deployments,
            root=self.root,
            pool=self.pool,
            settings=replace(FAST, **changes),
            environment=environment,
        )
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(task, limit(30))


@pytest.fixture
def house(tmp_path: Path, unique: str, eventually: Callable[..., Awaitable[None]]) -> ContainerHouse:
    root, bin_folder = tmp_path / "rules", tmp_path / "bin"
    root.mkdir()
    bin_folder.mkdir()
    docker = bin_folder / "docker"
    docker.write_text(FAKE)
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    python = bin_folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return ContainerHouse(root, bin_folder, unique, eventually)


async def test_a_command_runs_in_the_image_with_its_own_environment_alone(
    house: ContainerHouse, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("hunter2-hunter2")
    script = 'env | cut -d= -f1 | sort; pwd; echo "$API_KEY" "$TEXT" "$1"; cat "$WHENTHEN_PARAMETERS_FILE"'
    (house.root / "sub").mkdir()
    house.deploy(
        command=["sh", "-c", script, "sh", "{{ n }}"],
        working_dir="sub",
        image="alpine:3",
        env={"API_KEY": f"file:{tmp_path / 'key'}", "TEXT": "a b\nc", "HOME": "/home/run"},
    )
    run = await house.start(n=3)
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code) == (RunState.COMPLETED, 0), ended.message
    lines = await house.text(run)
    assert {"API_KEY", "TEXT", "HOME", "WHENTHEN_RUN_ID", "WHENTHEN_RUN_SOCKET", "WHENTHEN_PARAM_N"} <= set(lines)
    assert "OF_THE_WORKER" not in lines
    assert str(house.root / "sub") in lines
    assert "*** a b" in lines
    assert "c 3" in lines
    assert lines[-1] == '{"n":3}'
    words = house.calls()[0]
    assert words[:5] == ["run", "--rm", "--init", "--name", f"whenthen-{run.id}-1"]
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    mounts = [words[place + 1] for place, word in enumerate(words) if word == "--mount"]
    assert f"type=bind,source={house.root},target={house.root}" in mounts
    assert [mount for mount in mounts if mount.endswith(",readonly")] == [mounts[-1]]
    assert "HOME=/home/run" in words
    assert words[words.index("--network=none") + 1 :][:2] == ["alpine:3", "sh"]
    assert not [word for word in words if "hunter2" in word]


async def test_a_flow_in_a_container_speaks_to_its_worker(house: ContainerHouse) -> None:
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            from whenthen import flow, task
            from whenthen.variables import Variable

            @task
            def step():
                return 2

            @flow(log_prints=True)
            def main(n: int):
                print("inside")
                Variable.set("of-container", n)
                return step() + Variable.get("of-container")
            """
        )
    )
    house.deploy(entrypoint="job.py:main")
    run = await house.start(n="3")
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.result) == (RunState.COMPLETED, 5), ended.message
    page = await house.stores.task_runs.page(run.id, after=0, limit=10)
    assert [one.state for one in page.task_runs if one.kind == "task"] == ["COMPLETED"]
    assert "inside" in await house.text(run, "log")
    words = house.calls()[0]
    assert words[words.index("python:3.12-slim") + 1] == "python3"


@pytest.mark.parametrize(
    ("command", "state", "code", "said"),
    [
        (["sh", "-c", "echo bad >&2; exit 7"], RunState.FAILED, 7, "exit code 7"),
        (["sh", "-c", "kill -9 $$"], RunState.FAILED, -9, "killed by SIGKILL"),
    ],
)
async def test_exit_codes_are_states(
    house: ContainerHouse, command: list[str], state: RunState, code: int, said: str
) -> None:
    house.deploy(command=command)
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code) == (state, code)
    assert said in ended.message


async def test_an_image_that_does_not_exist_fails_the_run_and_says_so(house: ContainerHouse) -> None:
    house.deploy(command="true", image="no/such-image")
    run = await house.start()
    async with house.worker():
        ended = await house.ends(run)
    assert (ended.state, ended.exit_code) == (RunState.FAILED, 125)
    assert "No such image" in ended.message


async def test_without_docker_the_run_fails_and_says_what_to_install(house: ContainerHouse) -> None:
    (house.bin / "docker").unlink()
    house.deploy(command="true", retries=2)
    run = await house.start()
    async with house.worker() as worker:
        worker._environment["PATH"] = str(house.bin)
        ended = await house.ends(run)
    assert (ended.state, ended.attempt) == (RunState.FAILED, 1)
    assert "install it where the worker runs" in ended.message


async def test_a_container_that_ignores_the_end_is_removed(house: ContainerHouse) -> None:
    house.deploy(command=["sh", "-c", "trap '' TERM; echo $$; while true; do sleep 0.1; done"])
    run = await house.start()
    async with house.worker():

        async def told() -> bool:
            return bool(await house.text(run))

        await house._eventually(told)
        (pid,) = map(int, await house.text(run))
        await house.orchestrator.cancel_flow_run(run.id)
        ended = await house.ends(run)
        assert ended.state is RunState.CANCELLED
        # the state is stored when nothing of it runs any more

        async def gone() -> bool:
            return not alive(pid)

        await house._eventually(gone)
    assert ["rm", "--force", f"whenthen-{run.id}-1"] in house.calls()
