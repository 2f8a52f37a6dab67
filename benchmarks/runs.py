"""What a deployment's runs cost, beside Prefect in the same run: a task whose states are told, runs a minute, an event's first line of code.

    python -m benchmarks.runs [--tasks 1000] [--runs 200] [--events 30] [--peer PYTHON]

`whenthen serve` runs as a process with its embedded nats-server and one worker of four runs at once; Prefect (`peers/prefect_runs.py`) with its
server, its SQLite and a process worker of four, that looks every second. Both run the same flows, one after the other. An event counts
from its request to the first line of the flow's file, in turns for a deployment with warm interpreters and for one without; between the
stages lie the times that the server noted.

Checked: the answers of the flows, that the server knows every task run as completed, that every event had one run, and that warm runs
were warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks._shared import ROOT, ServerProcess, folder, machine, prefect_python, wait_for

__all__ = ["main"]

#: how many times less than Prefect's the overhead of a task must be, how many times more runs, how many times sooner the first line
TASK_TIMES, RATE_TIMES, SOONER_TIMES = 30.0, 10.0, 10.0
WARM_S = 0.060  #: of the median from an event to the first line in a warm interpreter
#: what Prefect 3.9 takes on two cores of a virtual machine, for a run without it
WITHOUT_PEER = {"task_us": 15_000.0, "runs_a_minute": 30.0, "first_line_s": 4.0}

FLOWS = """\
import time
FIRST = time.time()
import json
import sys
from pathlib import Path
from {package} import flow, task

HERE = Path(__file__).parent

@task
def same(n: int):
    return n

@flow
def empty():
    return 1

@flow
def first(key: str):
    part = HERE / f"part-{{key}}"
    part.write_text(repr(FIRST))
    part.rename(HERE / f"first-{{key}}")
    return Path(sys.modules["__main__"].__file__).stem

@flow
def tasks(count: int):
    began = time.perf_counter()
    total = sum(same(n) for n in range(count))
    found = [time.perf_counter() - began, total]
    (HERE / "tasks.json").write_text(json.dumps(found))
    return found
"""
RULES = """
deployments:
  - {name: empty, entrypoint: "flows.py:empty"}
  - {name: tasks, entrypoint: "flows.py:tasks"}
  - {name: warm, entrypoint: "flows.py:first"}
  - {name: cold, entrypoint: "flows.py:first", preload: []}
automations:
  - name: begin-warm
    trigger: {expect: order.warm}
    actions: [{run-deployment: warm, parameters: {key: $.resource.id}}]
  - name: begin-cold
    trigger: {expect: order.cold}
    actions: [{run-deployment: cold, parameters: {key: $.resource.id}}]
"""


class Api:
    """A few requests to the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        with self._opener.open(self._url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def start(self, deployment: str, **parameters: Any) -> str:
        return str(self.post(f"/api/deployments/{deployment}/run", {"parameters": parameters})["id"])

    def ended(self, run: str) -> Any:
        """The run, once it is completed."""
        found = self.get(f"/api/runs/{run}")
        if found["state"] in ("Failed", "Crashed", "TimedOut", "Cancelled"):
            raise SystemExit(f"a run of {found['deployment']} ended as {found['state']}: {found['message']}")
        return found if found["state"] == "Completed" else None

    def end(self, run: str, *, every_s: float = 0.02) -> Any:
        deadline = time.monotonic() + 300
        while (found := self.ended(run)) is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"run {run} has not ended within 300 s")
            time.sleep(every_s)
        return found


def task_us(api: Api, count: int) -> float:
    """Microseconds of a task."""
    run = api.start("tasks", count=count)
    seconds, total = api.end(run)["result"]
    if total != count * (count - 1) // 2:
        raise SystemExit(f"{count} tasks gave {total}")
    completed, after = 0, 0
    while True:
        page = api.get(f"/api/runs/{run}/task-runs?after={after}&limit=1000")
        completed += sum(one["type"] == "COMPLETED" and one["kind"] == "task" for one in page["task_runs"])
        after += len(page["task_runs"])
        if not page["task_runs"]:
            break
    if completed != count:
        raise SystemExit(f"of {count} task runs the server knows {completed} as completed")
    return float(seconds) / count * 1e6


def runs_a_minute(api: Api, count: int) -> float:
    runs = [api.start("empty") for _ in range(count)]
    found = [api.end(run, every_s=0.5) for run in runs]  # to ask takes time from those that run
    if {run["result"] for run in found} != {1}:
        raise SystemExit(f"empty runs gave {[run['result'] for run in found][:5]}")
    took = max(_time(run["ended"]) for run in found) - min(_time(run["started"]) for run in found)
    return count / took * 60


def first_lines(api: Api, here: Path, kind: str, count: int) -> dict[str, list[float]]:
    """Seconds of each stage from an event's request to the first line of its run, event by event."""
    stages: dict[str, list[float]] = {"event to run": [], "run to start": [], "start to first line": [], "in all": []}
    for number in range(count):
        key, began = f"{kind}-{number}", time.time()
        api.post("/api/events", {"event": f"order.{kind}", "resource": {"id": key}})
        mark = here / f"first-{key}"
        wait_for(mark.exists, f"the run of {key}", 60)
        first = float(mark.read_text())
        (run,) = [one for one in api.get(f"/api/runs?deployment={kind}&limit=5") if one["parameters"] == {"key": key}]
        run = api.end(run["id"])
        if run["result"] != {"warm": "waiting_interpreter", "cold": "runner"}[kind] and number >= 5:
            raise SystemExit(f"run {number} of {kind} began in {run['result']}")
        created, started = _time(run["created"]), _time(run["started"])
        stages["event to run"].append(created - began)
        stages["run to start"].append(started - created)
        stages["start to first line"].append(first - started)
        stages["in all"].append(first - began)
        time.sleep(0.5)  # the next interpreter is loaded
    return stages


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ours(tasks: int, runs: int, events: int) -> dict[str, Any]:
    with folder() as here:
        server = ServerProcess(here, RULES)
        (server.rules / "flows.py").write_text(FLOWS.format(package="whenthen"))
        with server:
            api = Api(server.url)
            api.end(api.start("empty"))
            per_task = statistics.median(task_us(api, tasks) for _ in range(3))
            rate = runs_a_minute(api, runs)
            warm = first_lines(api, server.rules, "warm", events + 5)
            cold = first_lines(api, server.rules, "cold", events // 2)
    # of five runs the imports are learnt
    warm = {name: values[5:] for name, values in warm.items()}
    return {
        "task_us": round(per_task, 1),
        "runs_a_minute": round(rate),
        "warm_ms": _milliseconds(warm),
        "cold_ms": _milliseconds(cold),
    }


def _milliseconds(stages: dict[str, list[float]]) -> dict[str, float]:
    found = {name: round(statistics.median(values) * 1e3, 1) for name, values in stages.items()}
    return found | {"in all, 9 of 10": round(sorted(stages["in all"])[int(0.9 * len(stages["in all"]))] * 1e3, 1)}


def theirs(python: Path, tasks: int, runs: int, events: int) -> dict[str, Any]:
    with folder() as here:
        (here / "flows.py").write_text(FLOWS.format(package="prefect"))
        program = ROOT / "benchmarks" / "peers" / "prefect_runs.py"
        done = subprocess.run(
            [str(python), str(program), str(here), str(tasks), str(runs), str(events)],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"Prefect ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["first_line_s"] = statistics.median(found["first_line_s"])
    return {name: value if isinstance(value, str) else float(f"{value:.4g}") for name, value in found.items()}


def measure(tasks: int, runs: int, events: int, peer: Path | None) -> dict[str, Any]:
    own = ours(tasks, runs, events)
    base: dict[str, Any] = (
        WITHOUT_PEER if peer is None else theirs(peer, max(tasks // 5, 1), max(runs // 8, 1), max(events // 6, 1))
    )
    times = {
        "task": base["task_us"] / own["task_us"],
        "runs_a_minute": own["runs_a_minute"] / base["runs_a_minute"],
        "first_line_warm": base["first_line_s"] * 1e3 / own["warm_ms"]["in all"],
        "first_line_cold": base["first_line_s"] * 1e3 / own["cold_ms"]["in all"],
    }
    document: dict[str, Any] = {
        "benchmark": "runs",
        **machine(),
        "own": own,
        "prefect" if peer is not None else "prefect_assumed": base,
        "times": {name: round(value, 1) for name, value in times.items()},
        "limits": {
            "task": TASK_TIMES,
            "runs_a_minute": RATE_TIMES,
            "first_line_warm": SOONER_TIMES,
            "warm_ms": WARM_S * 1e3,
        },
    }
    document["holds"] = (
        times["task"] >= TASK_TIMES
        and times["runs_a_minute"] >= RATE_TIMES
        and times["first_line_warm"] >= SOONER_TIMES
        and own["warm_ms"]["in all"] < WARM_S * 1e3
    )
    return document


def main() -> int:
    """Print the figures; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--peer", type=Path, default=prefect_python(), help="a Python that has Prefect")
    given = parser.parse_args()
    report = measure(given.tasks, given.runs, given.events, given.peer)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
