"""What flows and tasks cost in one process, with Prefect or with whenthen: the same program, of which the package's name alone differs.

    python flow_costs.py PACKAGE TASKS ROUNDS

Prints one JSON document: seconds of the first call of an empty flow and of a later one, microseconds of an empty task that is called
directly and by `.map`, and the answers, so that whoever asked can check them. Imports nothing but the package.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from typing import Any


def measure(package: str, tasks: int, rounds: int) -> dict[str, Any]:
    began = time.process_time()
    sdk = importlib.import_module(package)
    flow, task = sdk.flow, sdk.task
    import_s = time.process_time() - began

    @flow
    def empty() -> int:
        return 1

    @task
    def same(n: int) -> int:
        return n

    @flow
    def direct() -> tuple[float, int]:
        began = time.perf_counter()
        total = sum(same(n) for n in range(tasks))
        return time.perf_counter() - began, total

    @flow
    def mapped() -> tuple[float, int]:
        began = time.perf_counter()
        total = sum(same.map(range(tasks)).result())
        return time.perf_counter() - began, total

    began = time.perf_counter()
    answers = [empty()]
    first_s = time.perf_counter() - began
    later = []
    for _ in range(5):
        began = time.perf_counter()
        answers.append(empty())
        later.append(time.perf_counter() - began)
    found = {kind: [run() for _ in range(rounds)] for kind, run in (("direct", direct), ("mapped", mapped))}
    return {
        "version": sdk.__version__,
        "import_s": round(import_s, 3),
        "first_flow_s": first_s,
        "flow_s": statistics.median(later),
        "direct_us": statistics.median(taken for taken, _ in found["direct"]) / tasks * 1e6,
        "mapped_us": statistics.median(taken for taken, _ in found["mapped"]) / tasks * 1e6,
        "answers": [sum(answers), *sorted({total for runs in found.values() for _, total in runs})],
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
