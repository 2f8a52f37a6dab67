"""The crash test of runs: workers, schedulers, the HTTP side and nats-server are killed at random while runs are started and work.

Runs are started over HTTP, each with a key until there is an answer 2xx, and by a schedule; as processes of their own and in interpreters
that waited. Each run notes when it begins and ends and holds a lock while it runs. Then the verdict: each key has one run, each run has ended,
none was executed twice but for further attempts that were asked for, none at the same time as itself, and none that completed is without
its execution. What is promised: docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import orjson

from tests.chaos.oracle import read_stream
from tests.chaos.processes import Supervised, lines_of, ready, whenthen
from tests.plain_http import plain_async_client
from tests.ports import free_ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.embedded import find_server
from whenthen.engine.bus.streams import RUN_STATES, RUNS
from whenthen.schemas.deployments import TERMINAL, RunState
from whenthen.schemas.errors import BusUnavailable

__all__ = ["chaos_of_runs"]

LOST_AFTER_S = 6
#: deployments, and whether a run of one may have several attempts
DEPLOYMENTS = {"once": False, "again": True, "flow": True, "command": False, "timed": False}
_RULES = """
deployments:
  - {name: once, entrypoint: "jobs.py:once", preload: [decimal]}
  - {name: again, entrypoint: "jobs.py:once", retries: 30, retry_delay: 300ms}
  - {name: flow, entrypoint: "flows.py:steps", retries: 30, retry_delay: 300ms, preload: [whenthen]}
  - {name: command, command: "python jobs.py"}
  - {name: timed, entrypoint: "jobs.py:once", schedules: [{interval: 2s, parameters: {seconds: 0.2}, catch_up: all}]}
"""
_JOBS = """
import fcntl, os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def note(what):
    line = f"{what} {os.environ['WHENTHEN_RUN_ID']} {os.environ['WHENTHEN_ATTEMPT']} {os.environ['WHENTHEN_DEPLOYMENT']}\\n"
    file = os.open(os.path.join(HERE, "..", "executed.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.close(file)

def once(seconds=0.3):
    held = os.open(os.path.join(HERE, "..", "locks", os.environ["WHENTHEN_RUN_ID"]), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("beside-itself")
    note("begin")
    time.sleep(seconds)
    note("end")
    return os.environ["WHENTHEN_ATTEMPT"]

if __name__ == "__main__":
    once(float(os.environ["WHENTHEN_PARAM_SECONDS"]))
"""
_FLOWS = """
from whenthen import flow, task
from jobs import once

@task
def step(number):
    return number

@flow
def steps(seconds: float):
    step.map(range(3)).result()
    return once(seconds)
"""


class RunHouse:
    """A nats-server, the HTTP side, two schedulers and two workers, each a process that is started again when it is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, Supervised] = {}
        http, nats = free_ports(2)
        self.url, self.nats_url = f"http://127.0.0.1:{http}", f"nats://127.0.0.1:{nats}"
        self._ports = (http, nats)
        self.executed = folder / "executed.txt"

    async def __aenter__(self) -> RunHouse:
        rules = self.folder / "rules"
        for made in (rules, self.folder / "locks"):
            made.mkdir()
        for name, text in {"rules.yaml": _RULES, "jobs.py": _JOBS, "flows.py": _FLOWS}.items():
            (rules / name).write_text(text)
        http, nats = self._ports
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{nats}"\njetstream {{ store_dir: "{self.folder / "store"}", max_file_store: 1PB }}\n'
        )
        self._run("nats", [str(find_server()), "-c", str(config)])
        shared = ["--nats", self.nats_url]
        self._run("api", whenthen("serve", rules, *shared, "--role", "api", "--port", str(http)))
        for number in (0, 1):
            self._run(f"scheduler-{number}", whenthen("serve", rules, *shared, "--role", "scheduler"))
            self._run(f"worker-{number}", whenthen("serve", rules, *shared, "--role", "worker"))
        try:
            await ready(self.url, 180)
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> None:
        await asyncio.gather(*(one.halt() for one in self.processes.values() if one.name != "nats"))
        await self.processes["nats"].halt()

    def _run(self, name: str, words: list[str]) -> None:
        environment = {
            "XDG_STATE_HOME": str(self.folder.resolve() / "state"),
            "WHENTHEN_WORKER_LOST_AFTER": f"{LOST_AFTER_S}s",
            "WHENTHEN_OPEN_LOOPBACK": "true",
            "PATH": os.environ["PATH"],
        }
        process = self.processes[name] = Supervised(name, words, self.folder, env=environment)
        process.start()


@dataclass(slots=True, kw_only=True)
class Started:
    """What was asked for: the run that each key was answered with."""

    runs: dict[str, str] = field(default_factory=dict)
    repeated: int = 0  #: requests that were sent again, since there was no answer


async def _start_runs(house: RunHouse, seed: int, count: int, pause_s: float, started: Started) -> None:
    chance = random.Random(seed)
    async with plain_async_client() as client:
        for number in range(count):
            name = chance.choice(["once", "again", "flow", "command"])
            key, parameters = f"run {number}", {"seconds": round(chance.uniform(0, 1.2), 2)}
            while True:
                try:
                    answer = await client.post(
                        f"{house.url}/api/deployments/{name}/run",
                        json={"key": key, "parameters": parameters},
                        timeout=20,
                    )
                    if answer.status_code < 300:
                        break
                    assert answer.status_code >= 500, f"{answer.status_code}: {answer.text}"
                except httpx.TransportError:
                    pass
                started.repeated += 1
                await asyncio.sleep(0.1)
            started.runs[key] = answer.json()["id"]
            await asyncio.sleep(chance.uniform(0, 2 * pause_s))


async def _kill(house: RunHouse, seed: int, kills: int, every_s: float) -> None:
    chance = random.Random(seed)
    weights = {"nats": 1, "api": 1, "scheduler-0": 1, "scheduler-1": 1, "worker-0": 3, "worker-1": 3}
    done = 0
    while done < kills:
        await asyncio.sleep(every_s * chance.uniform(0.3, 1.7))
        done += house.processes[chance.choices(list(weights), list(weights.values()))[0]].kill()


async def chaos_of_runs(
    folder: Path, seed: int, *, runs: int, kills: int, every_s: float, pause_s: float, settle_s: float = 300.0
) -> dict[str, Any]:
    """Start `runs` runs and kill `kills` processes meanwhile, and give the summary; its `faults` are the promises that were broken."""
    started = Started()
    async with RunHouse(folder) as house:
        async with asyncio.TaskGroup() as both:
            both.create_task(_start_runs(house, seed, runs, pause_s, started))
            both.create_task(_kill(house, seed, kills, every_s))
        # nothing is scheduled any more, and what is under way ends
        for number in (0, 1):
            await house.processes[f"scheduler-{number}"].replace(
                whenthen("serve", _without_schedule(house.folder), "--nats", house.nats_url, "--role", "scheduler")
            )
        began = time.monotonic()
        found, queued = await _ended(house, settle_s)
        settled_s = time.monotonic() - began
    executed = [line.split() for line in lines_of(house.executed)]
    ends = Counter(f"{run['deployment']} {run['state']}" for run in found.values())
    return {
        "form": "runs",
        "seed": seed,
        "kills": {name: one.kills for name, one in house.processes.items()},
        "requests_repeated": started.repeated,
        "runs": len(found),
        "ends": dict(sorted(ends.items())),
        "attempts": sum(what == "begin" for what, *_ in executed),
        "settled_after_s": round(settled_s, 1),
        "faults": _faults(found, queued, started, executed),
    }


def _without_schedule(folder: Path) -> Path:
    """The rules with the schedule switched off."""
    file = folder / "rules" / "rules.yaml"
    file.write_text(_RULES.replace("{interval: 2s,", "{interval: 2s, active: false,"))
    return file.parent


async def _ended(house: RunHouse, within_s: float) -> tuple[dict[str, dict[str, Any]], int]:
    """All runs, when they have ended, or after `within_s`; and how many are queued."""
    deadline = time.monotonic() + within_s
    bus = Bus(house.nats_url)
    await bus.connect(timeout_s=60)
    try:
        while True:
            found: dict[str, dict[str, Any]] = {}
            try:
                async for message in read_stream(bus, f"KV_{RUN_STATES}", f"$KV.{RUN_STATES}.>"):
                    if message.data:
                        run = orjson.loads(message.data)
                        found[run["id"]] = run
                queued = (await bus.js.stream_info(RUNS)).state.messages
            except BusUnavailable:
                queued = 1
            if found and not queued and all(RunState(run["state"]) in TERMINAL for run in found.values()):
                return found, queued
            if time.monotonic() > deadline:
                return found, queued
            await asyncio.sleep(0.5)
    finally:
        await bus.close()


def _faults(found: dict[str, dict[str, Any]], queued: int, started: Started, executed: list[list[str]]) -> list[str]:
    begun = Counter((run, attempt) for what, run, attempt, _ in executed if what == "begin")
    ended = Counter((run, attempt) for what, run, attempt, _ in executed if what == "end")
    attempts = Counter(run for run, _ in begun)
    faults = [f"{queued} runs are queued"] * bool(queued)

    def fault(what: str, which: list[Any]) -> None:
        if which:
            faults.append(f"{len(which)} {what}: {which[:5]}")

    runs = list(found.values())
    keys = Counter(run["key"] for run in runs)
    fault("runs are lost", [key for key, run in started.runs.items() if run not in found])
    fault("keys have several runs", [key for key, count in keys.items() if count > 1])
    fault("runs have not ended", [(run["id"], run["state"]) for run in runs if RunState(run["state"]) not in TERMINAL])
    fault("attempts were executed twice", [one for one, count in begun.items() if count > 1])
    fault("runs were executed beside themselves", [run for what, run, *_ in executed if what == "beside-itself"])
    fault(
        "runs were executed again that nobody wanted retried",
        [run["id"] for run in runs if not DEPLOYMENTS[run["deployment"]] and attempts[run["id"]] > 1],
    )
    fault("executions belong to no run", [run for run in attempts if run not in found])
    fault(
        "runs completed without an execution",
        [run["id"] for run in runs if run["state"] == "Completed" and not ended[run["id"], str(run["attempt"])]],
    )
    fault(
        "runs ended in a way that no kill explains",
        [(run["id"], run["state"], run["message"]) for run in runs if run["state"] not in ("Completed", "Crashed")],
    )
    fault(
        "runs crashed that were to be retried",
        [run["id"] for run in runs if run["state"] == "Crashed" and DEPLOYMENTS[run["deployment"]]],
    )
    return faults
