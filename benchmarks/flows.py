"""What a flow and a task cost, beside Prefect in the same run: an empty flow, an empty task called directly and by `.map`, the import.

    python -m benchmarks.flows [--tasks 1000] [--mapped 10000] [--rounds 3] [--peer PYTHON]

Each is measured in a fresh process by one program (`peers/flow_costs.py`), ours and Prefect's in turns. Prefect runs on the temporary
server that it starts for itself, with its log off. Checked: the answers of every flow, and that both give the same.

Without a peer the goals are those in absolute figures that a hundredth of Prefect's on this kind of machine gives.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._shared import ROOT, machine, prefect_python

__all__ = ["main"]

#: how many times less than Prefect's each must be
TIMES = 100
#: what Prefect 3.9 takes on two cores of a virtual machine, for a run without it
WITHOUT_PEER = {"first_flow_s": 1.2, "direct_us": 17_000.0, "mapped_us": 17_000.0}
#: of the import, of what `import asyncio, logging, pydantic` takes
IMPORT_TIMES = 3.0
#: of a mapped task, result and future together, in a flow that keeps all of them
TASK_BYTES = 8_000

MEMORY = """
import json, sys
from whenthen import flow, task
count = int(sys.argv[1])

@task
def same(n):
    return n

@flow
def run(count):
    return sum(same.map(range(count)).result())

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

run(10)
before = peak()
total = run(count)
print(json.dumps({"total": total, "bytes": peak() - before}))
"""


def costs(python: Path | str, package: str, tasks: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as home:
        quiet = {
            "PREFECT_HOME": home,
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        }
        done = subprocess.run(
            [python, ROOT / "benchmarks" / "peers" / "flow_costs.py", package, str(tasks), str(rounds)],
            cwd=home,
            env={**os.environ, **quiet, **({"PYTHONPATH": str(ROOT)} if package == "whenthen" else {})},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{package} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    expected = [6, tasks * (tasks - 1) // 2]
    if found["answers"] != expected:
        raise SystemExit(f"{package} answered {found['answers']}, expected {expected}")
    return found


def memory(count: int) -> float:
    """Bytes a mapped task, by the peak of the process."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout)
    if found["total"] != count * (count - 1) // 2:
        raise SystemExit(f"{count} mapped tasks gave {found['total']}")
    return float(found["bytes"]) / count


def import_s(statement: str) -> float:
    program = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    taken = [
        float(
            subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
        )
        for _ in range(9)
    ]
    return statistics.median(taken)


def median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def measure(tasks: int, mapped: int, rounds: int, peer: Path | None) -> dict[str, Any]:
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(costs(sys.executable, "whenthen", tasks, 3))
        if peer is not None:
            theirs.append(costs(peer, "prefect", tasks, 1))
    names = ("first_flow_s", "flow_s", "direct_us", "mapped_us")
    own = {name: median(ours, name) for name in names}
    base = {name: median(theirs, name) for name in names} if theirs else WITHOUT_PEER
    times = {name: round(base[name] / own[name], 1) for name in base}
    task_bytes = memory(mapped)
    imports = {
        "whenthen": import_s("import whenthen"),
        "flow_and_task": import_s("from whenthen import flow, task"),
        "its_parts": import_s("import asyncio, logging, pydantic"),
    }
    import_times = round(imports["flow_and_task"] / imports["its_parts"], 2)
    document: dict[str, Any] = {
        "benchmark": "flows",
        **machine(),
        "tasks": tasks,
        "own": {name: float(f"{value:.4g}") for name, value in own.items()},
        "times_less": times,
        "bytes_a_mapped_task": round(task_bytes),
        "import_s": {name: round(value, 4) for name, value in imports.items()},
        "import_times": import_times,
        "limits": {"times_less": TIMES, "bytes_a_mapped_task": TASK_BYTES, "import_times": IMPORT_TIMES},
    }
    if theirs:
        document["prefect"] = {
            "version": theirs[0]["version"],
            **{name: float(f"{value:.4g}") for name, value in base.items()},
        }
        document["prefect"]["import_s"] = median(theirs, "import_s")
    document["holds"] = (
        min(times[name] for name in ("first_flow_s", "direct_us", "mapped_us")) >= TIMES
        and task_bytes < TASK_BYTES
        and import_times < IMPORT_TIMES
    )
    return document


def main() -> int:
    """Print the figures; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--mapped", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, default=prefect_python(), help="a Python that has Prefect")
    given = parser.parse_args()
    report = measure(given.tasks, given.mapped, given.rounds, given.peer)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
