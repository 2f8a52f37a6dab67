"""How many conditions a second: ours, cel-python's interpreter and Google's `cel-expr-python`, in one run.

    python benchmarks/conditions.py [--seconds 1.0]

Prints JSON. Each condition is first checked: every engine must give the expected answer on both events, or the
run stops with the difference. The rate of a mix is the harmonic mean over its conditions, the time that one
pass over all of them takes. `required` holds the ratios that the project promises; the exit code is 1 when one
is missed. A peer that is not installed is named in `absent` (`pip install cel-python cel-expr-python`).
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whenthen.conditions import compile_condition
from whenthen.conditions.shapes import WARM_AFTER

REQUIRED = {"cel-python": 200.0, "cel-expr-python": 3.0}
LOADED = 10_000  #: conditions of the load measurement

EVENT = {
    "event": "s3.file.uploaded",
    "resource": {"id": "s3://raw/incoming/2026/data.csv", "bucket": "raw", "key": "incoming/2026/data.csv"},
    "payload": {
        "size": 4242,
        "ref": "refs/heads/main",
        "repository": {"full_name": "acme/site", "private": False},
        "release": {"major": 7},
        "commits": [{"author": "ann"}, {"author": "bob"}, {"author": "x"}],
        "status": "b",
        "at": "2026-05-01T10:00:00Z",
        "force": False,
        "tags": ["prod", "eu"],
    },
}
OTHER = {
    **EVENT,
    "event": "s3.file.deleted",
    "resource": {"id": "s3://raw/tmp/x", "bucket": "raw", "key": "tmp/x"},
    "payload": {
        **EVENT["payload"],  # type: ignore[dict-item]
        "size": 3,
        "ref": "refs/heads/topic",
        "release": {"major": 2},
        "commits": [],
        "status": "c",
        "at": "2025-05-01T10:00:00Z",
        "tags": ["d"],
    },
}

#: condition, its value for EVENT, its value for OTHER
MIX = [
    ("event.payload.size > 100", True, False),
    (
        'event.payload.ref == "refs/heads/main" && event.payload.repository.full_name.startsWith("acme/")',
        True,
        False,
    ),
    (r'event.resource.key.matches("^incoming/[0-9]{4}/.*[.]csv$")', True, False),
    ("has(event.payload.release) && event.payload.release.major > 3", True, False),
    ('event.payload.commits.exists(c, c.author == "x")', True, False),
    ('event.payload.status in ["a", "b"]', True, False),
    ('timestamp(event.payload.at) + duration("1h") > timestamp("2026-01-01T00:00:00Z")', True, False),
    ("size(event.payload.commits) >= 2 && size(event.payload.ref) < 100", True, False),
    ('event.payload.size > 1000 ? event.payload.status == "b" : event.payload.status == "a"', True, False),
    ("event.payload.size * 2 + 1 > 1000 && event.payload.size % 7 != 3", True, False),
    ('event.event == "s3.file.uploaded" && !(event.payload.size == 0) || event.payload.force', True, False),
    ('event.payload.tags.all(t, t.size() > 1) && "prod" in event.payload.tags', True, False),
]

Evaluate = Callable[[Mapping[str, Any]], Any]


def engine_ours(text: str) -> Evaluate:
    condition = compile_condition(text, variables={"event"})
    for _ in range(WARM_AFTER + 2):  # the function that a condition keeps comes after so many
        condition.holds({"event": EVENT})
    return condition.holds


def engine_cel_python() -> Callable[[str], Evaluate]:
    import celpy

    logging.getLogger("celpy").setLevel(logging.CRITICAL)
    environment = celpy.Environment()

    def build(text: str) -> Evaluate:
        program = environment.program(environment.compile(text))
        # The events are converted once, outside the clock: this is the interpreter alone.
        converted = {id(event): {"event": celpy.json_to_cel(event)} for event in (EVENT, OTHER)}
        return lambda variables: bool(program.evaluate(converted[id(variables["event"])]))

    return build


def engine_cel_expr_python() -> Callable[[str], Evaluate]:
    from cel_expr_python import cel

    environment = cel.NewEnv(variables={"event": cel.Type.DYN})

    def build(text: str) -> Evaluate:
        expression = environment.compile(text)
        return lambda variables: expression.eval(data=variables).value()

    return build


def check(name: str, text: str, evaluate: Evaluate, expected: tuple[bool, bool]) -> None:
    for event, wanted in zip((EVENT, OTHER), expected, strict=True):
        found = evaluate({"event": event})
        if found is not wanted:
            raise SystemExit(f"{name} gives {found!r}, not {wanted}, for {text}")


def seconds_per_call(evaluate: Evaluate, budget_s: float) -> float:
    """The best of five rounds that share the budget, over both events."""
    both = ({"event": EVENT}, {"event": OTHER})
    calls, elapsed = 1, 0.0
    while elapsed < budget_s / 10:
        calls *= 2
        elapsed = _round(evaluate, both, calls)
    return min([_round(evaluate, both, calls) for _ in range(5)]) / (2 * calls)


def _round(evaluate: Evaluate, both: tuple[dict[str, Any], dict[str, Any]], calls: int) -> float:
    first, second = both
    start = time.perf_counter()
    for _ in range(calls):
        evaluate(first)
        evaluate(second)
    return time.perf_counter() - start


def measure(name: str, build: Callable[[str], Evaluate], budget_s: float) -> dict[str, Any]:
    times: dict[str, float] = {}
    for text, *expected in MIX:
        evaluate = build(text)
        check(name, text, evaluate, (expected[0], expected[1]))
        times[text] = seconds_per_call(evaluate, budget_s)
    return {
        "conditions_per_second": round(len(times) / sum(times.values())),
        "microseconds": {text: round(taken * 1e6, 3) for text, taken in times.items()},
    }


def measure_loading() -> dict[str, Any]:
    """Parse, check and bind conditions that differ in their literals, as the rules of one team do."""
    texts = [
        f'event.payload.ref == "refs/heads/{n}" && event.payload.repository.full_name.startsWith("acme-{n}/")'
        for n in range(LOADED)
    ]
    start = time.perf_counter()
    conditions = [compile_condition(text, variables={"event"}) for text in texts]
    taken = time.perf_counter() - start
    if conditions[77].equalities != ((("event", "payload", "ref"), "refs/heads/77"),):
        raise SystemExit(f"wrong equalities: {conditions[77].equalities}")
    return {"conditions": LOADED, "seconds": round(taken, 3), "microseconds_each": round(taken / LOADED * 1e6, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.2, help="time spent on one condition of one engine")
    budget_s = parser.parse_args().seconds

    engines: dict[str, Callable[[str], Evaluate]] = {"whenthen": engine_ours}
    absent: list[str] = []
    for name, make in (("cel-python", engine_cel_python), ("cel-expr-python", engine_cel_expr_python)):
        try:
            engines[name] = make()
        except ImportError:
            absent.append(name)

    results = {name: measure(name, build, budget_s) for name, build in engines.items()}
    ours = results["whenthen"]["conditions_per_second"]
    ratios = {
        name: round(ours / result["conditions_per_second"], 1) for name, result in results.items() if name != "whenthen"
    }
    passed = all(ratio >= REQUIRED[name] for name, ratio in ratios.items())
    report = {
        "benchmark": "conditions",
        "python": platform.python_version(),
        "checked": f"{len(MIX)} conditions on 2 events, every engine",
        "engines": results,
        "ratios": ratios,
        "required": REQUIRED,
        "absent": absent,
        "loading": measure_loading(),
        "passed": passed,
    }
    print(json.dumps(report, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
