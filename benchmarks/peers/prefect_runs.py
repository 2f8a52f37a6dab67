"""Prefect's side of `benchmarks/runs.py`: a server, a process worker and deployments of the flows in FOLDER, all on this machine.

    python prefect_runs.py FOLDER TASKS RUNS EVENTS

Prints one JSON document: microseconds of a task whose states a running server is told, runs a minute of an empty deployment, and for each
event the seconds from its request to the first line of the flow's file. Imports nothing but Prefect.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LATE_S = 600.0
SETTINGS = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # looks every second, and not every ten or fifteen as by default
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "NO_PROXY": "127.0.0.1",
}


def wait_for(look: Callable[[], Any], what: str, *, every_s: float = 0.05) -> Any:
    deadline = time.monotonic() + LATE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {LATE_S:g} s")
        time.sleep(every_s)
    return found


@contextlib.contextmanager
def process(*words: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(["prefect", *words], stdout=log, stderr=log)
        try:
            yield
        finally:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def measure(folder: Path, tasks: int, runs: int, events: int, port: int) -> dict[str, Any]:
    import httpx
    import prefect
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import EventTrigger

    url = f"http://127.0.0.1:{port}/api"

    def is_up() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        return False

    wait_for(is_up, "the server is ready")
    subprocess.run(
        ["prefect", "work-pool", "create", "bench", "--type", "process"], check=True, stdout=subprocess.DEVNULL
    )
    ids = {}
    for name in ("empty", "first", "tasks"):
        flow: Any = prefect.flow.from_source(source=str(folder), entrypoint=f"flows.py:{name}")
        ids[name] = flow.deploy(
            name=name, work_pool_name="bench", build=False, push=False, print_next_steps=False, ignore_warnings=True
        )
    client = get_client(sync_client=True)

    def ended(run_ids: list[Any]) -> list[Any]:
        found = [client.read_flow_run(one) for one in run_ids]
        if any(run.state.is_final() and not run.state.is_completed() for run in found):
            raise SystemExit(f"a run ended as {[run.state for run in found]}")
        return found if all(run.state.is_completed() for run in found) else []

    with process("worker", "start", "--pool", "bench", "--limit", "4"):
        # the first run also waits for the worker's start, and is not counted
        first = client.create_flow_run_from_deployment(ids["empty"])
        wait_for(lambda: ended([first.id]), "the first run")

        run = client.create_flow_run_from_deployment(ids["tasks"], parameters={"count": tasks})
        wait_for(lambda: ended([run.id]), "the run with tasks")
        seconds, total = json.loads((folder / "tasks.json").read_text())
        if total != tasks * (tasks - 1) // 2:
            raise SystemExit(f"{tasks} tasks gave {total}")

        def told() -> int:
            body = {
                "flow_runs": {"id": {"any_": [str(run.id)]}},
                "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
            }
            return int(httpx.post(f"{url}/task_runs/count", json=body, timeout=60).json())

        wait_for(lambda: told() == tasks, f"{tasks} task runs are known to the server")

        made = [client.create_flow_run_from_deployment(ids["empty"]).id for _ in range(runs)]
        for one in made:
            wait_for(lambda one=one: ended([one]), "an empty run", every_s=0.5)  # to ask takes time from those that run
        found = ended(made)
        took_s = (max(one.end_time for one in found) - min(one.start_time for one in found)).total_seconds()

        Automation(
            name="begin",
            trigger=EventTrigger(expect={"order.placed"}, posture="Reactive", threshold=1),
            actions=[RunDeployment(deployment_id=ids["first"], parameters={"key": "{{ event.resource.id }}"})],
        ).create()
        time.sleep(5)  # its triggers are loaded from time to time
        first_lines = []
        for number in range(events):
            key, began = f"order.{number}", time.time()
            event = {
                "event": "order.placed",
                "id": str(uuid.uuid4()),
                "occurred": datetime.now(UTC).isoformat(),
                "resource": {"prefect.resource.id": key},
            }
            httpx.post(f"{url}/events", json=[event], timeout=60).raise_for_status()
            mark = folder / f"first-{key}"
            wait_for(lambda mark=mark: mark.exists() and mark.read_text(), f"the run of {key}")
            first_lines.append(float(mark.read_text()) - began)
    return {
        "version": prefect.__version__,
        "task_us": seconds / tasks * 1e6,
        "runs_a_minute": runs / took_s * 60,
        "first_line_s": first_lines,
    }


def main() -> int:
    folder, tasks, runs, events = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as home:
        os.environ |= SETTINGS | {
            "PREFECT_HOME": home,
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        with process("server", "start", "--host", "127.0.0.1", "--port", str(port)):
            print(json.dumps(measure(folder, tasks, runs, events, port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
