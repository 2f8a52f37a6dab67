"""What ten thousand rules cost an event: decoding and matching beside `orjson.loads` alone, and beside ten rules.

    python -m benchmarks.matching [--rounds 9] [--peer PYTHON]

Prints JSON. Three workloads, each with rules that all expect the same event name: every rule has its own bucket glob, its
own label value, or its own `when` equality. Events are as S3 and GitHub make them, 700 to 1,500 bytes, and each matches
exactly one rule, which is checked for every event of every size before anything is timed. All sides of a ratio
take turns in one process; figures are medians over the rounds. `required` holds what the project promises; the exit
code is 1 when it is missed.

`--peer` names a Python that has Prefect (default: .peers-venv, when it is there); its `find_interested_triggers` is then
timed in the same run, beside our look-up alone, by `peers/prefect_evaluator.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import decode_event
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

FOLDER = Path(__file__).resolve().parent
SIZES = (10, 1_000, 10_000)
EVENTS = 500  #: of one round
#: 10,000 rules beside 10; beside `orjson.loads` alone; and at 1,000 rules beside Prefect
REQUIRED = {"of_10": 0.7, "of_loads": 1 / 8, "of_prefect": 1_000.0}
NOW_US = 1_769_846_400_000_000


def bucket_glob(number: int) -> dict[str, Any]:
    return {"expect": "s3.file.uploaded", "match": {"bucket": f"team-{number}-*"}}


def label_value(number: int) -> dict[str, Any]:
    return {"expect": "s3.file.uploaded", "match": {"bucket": f"team-{number}-raw"}}


def when_equality(number: int) -> dict[str, Any]:
    text = f'event.payload.repository.full_name == "acme/service-{number}" && event.payload.deleted == false'
    return {"expect": "github.push", "when": text}


def s3_event(number: int, serial: int) -> dict[str, Any]:
    bucket, key = f"team-{number}-raw", f"incoming/2026/01/31/part-{serial:06}.parquet"
    return {
        "id": f"s3-0055AED6DCD90281E5{serial:08X}",
        "event": "s3.file.uploaded",
        "occurred": "2026-01-31T08:00:00.000000Z",
        "received": "2026-01-31T08:00:00.150000Z",
        "source": "webhook:object-store",
        "resource": {"id": f"s3://{bucket}/{key}", "name": key, "bucket": bucket, "key": key, "region": "eu-west-1"},
        "related": [{"id": f"s3://{bucket}", "role": "bucket"}, {"id": "AWS:AROAEXAMPLE:loader", "role": "owner"}],
        "payload": {
            "size": 1048576 + serial,
            "etag": "d41d8cd98f00b204e9800998ecf8427e",
            "version": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
            "name": "ObjectCreated:Put",
            "time": "2026-01-31T07:59:59.871Z",
            "request": {
                "id": "C3D13FE58DE4C810",
                "host": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
            },
            "source_ip": "203.0.113.77",
            "principal": "AWS:AROAEXAMPLE:loader",
        },
        "follows": None,
    }


def push_event(number: int, serial: int) -> dict[str, Any]:
    name = f"acme/service-{number}"
    return {
        "id": f"github-72d3162e-cc78-11e3-81ab-{serial:012x}",
        "event": "github.push",
        "occurred": "2026-01-31T08:00:00.000000Z",
        "received": "2026-01-31T08:00:00.150000Z",
        "source": "webhook:github",
        "resource": {"id": f"github.repository.{name}", "name": name, "ref": "refs/heads/main"},
        "related": [{"id": "github.user.ada", "role": "sender"}],
        "payload": {
            "ref": "refs/heads/main",
            "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
            "after": f"59b20b8d5c6ff8d09518216e87bb{serial:012x}",
            "created": False,
            "deleted": False,
            "forced": False,
            "compare": f"https://github.com/{name}/compare/6113728f27ae...59b20b8d5c6f",
            "repository": {"id": 526, "full_name": name, "private": False, "default_branch": "main", "stars": 3},
            "pusher": {"name": "ada", "email": "ada@example.com"},
            "commits": [
                {
                    "id": f"59b20b8d5c6ff8d09518216e87bb{serial:012x}",
                    "message": "Read the size from the header",
                    "timestamp": "2026-01-31T07:59:41Z",
                    "author": {"name": "Ada", "email": "ada@example.com", "username": "ada"},
                    "added": [],
                    "removed": [],
                    "modified": ["loader/read.py", "tests/test_read.py"],
                }
            ],
        },
        "follows": None,
    }


Make = Callable[[int], dict[str, Any]]
MakeEvent = Callable[[int, int], dict[str, Any]]
WORKLOADS: dict[str, tuple[Make, MakeEvent]] = {
    "bucket_globs": (bucket_glob, s3_event),
    "label_values": (label_value, s3_event),
    "when_equalities": (when_equality, push_event),
}


def compiled(make: Make, size: int) -> Evaluator:
    rules = [Automation.model_validate({"name": f"a{number}", "trigger": make(number)}) for number in range(size)]
    return Evaluator(RuleSet.compile(rules))


def check(evaluator: Evaluator, events: Sequence[bytes], owners: Sequence[int]) -> None:
    """Every event must fire the one rule that it was made for."""
    for data, owner in zip(events, owners, strict=True):
        outcome = evaluator.process(decode_event(data), NOW_US)
        fired = [firing.automation for firing in outcome.firings]
        if fired != [f"a{owner}"] or [decision.reason for decision in outcome.decisions] != ["fired"]:
            raise SystemExit(f"expected a{owner} alone, found {fired} and {outcome.decisions}")


def timed(evaluator: Evaluator, events: Sequence[bytes]) -> float:
    process = evaluator.process
    begun = time.process_time()
    for data in events:
        process(decode_event(data), NOW_US)
    return len(events) / (time.process_time() - begun)


def timed_loads(events: Sequence[bytes]) -> float:
    loads = orjson.loads
    begun = time.process_time()
    for data in events:
        loads(data)
    return len(events) / (time.process_time() - begun)


def timed_lookup(evaluator: Evaluator, events: Sequence[bytes]) -> float:
    """Only what Prefect's `find_interested_triggers` does: which rules admit an event that is decoded already."""
    entries, candidates = evaluator.rules.entries, evaluator.rules.index.candidates
    decoded = [decode_event(data) for data in events]
    begun = time.process_time()
    for event in decoded:
        found = [number for number in candidates(event) if entries[number].filter.admits(event, NOW_US)]
        if len(found) != 1:
            raise SystemExit(f"expected one rule, found {found}")
    return len(events) / (time.process_time() - begun)


def measure(name: str, rounds: int) -> dict[str, Any]:
    make, make_event = WORKLOADS[name]
    sides: dict[int, tuple[Evaluator, list[bytes]]] = {}
    for size in SIZES:
        owners = [(serial * 7919) % size for serial in range(EVENTS)]
        events = [orjson.dumps(make_event(owner, serial)) for serial, owner in enumerate(owners)]
        lengths = [len(event) for event in events]
        if not 700 <= min(lengths) <= max(lengths) <= 1_500:
            raise SystemExit(f"{name}: events of {min(lengths)} to {max(lengths)} bytes")
        sides[size] = compiled(make, size), events
        check(*sides[size], owners)
    gc.collect()
    gc.freeze()
    rates: dict[str, list[float]] = {"loads": [], **{str(size): [] for size in SIZES}}
    lookups: dict[str, list[float]] = {str(size): [] for size in SIZES}
    for _ in range(rounds):
        rates["loads"].append(timed_loads(sides[SIZES[-1]][1]))
        for size in SIZES:
            rates[str(size)].append(timed(*sides[size]))
            lookups[str(size)].append(timed_lookup(*sides[size]))
    gc.unfreeze()

    def ratio(over: str, under: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[over], rates[under], strict=True)), 3)

    return {
        "event_bytes": round(statistics.mean(map(len, sides[SIZES[-1]][1]))),
        "events_per_s": {side: round(statistics.median(found)) for side, found in rates.items()},
        "lookups_per_s": {side: round(statistics.median(found)) for side, found in lookups.items()},
        "of_10": ratio("10000", "10"),
        "of_loads": ratio("10000", "loads"),
    }


def measure_prefect(python: Path, ours: dict[str, Any]) -> dict[str, Any]:
    """Prefect's rate at 1,000 automations, and ours of the same kind of workload over it."""
    script = FOLDER / "peers" / "prefect_evaluator.py"
    command = [str(python), str(script), "--bench", "find_interested", "--sizes", "1000"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    pairs = {"bucket_globs": "label_globs", "label_values": "label_values"}
    rates = {name: report["results"][theirs]["1000"]["events_per_s"] for name, theirs in pairs.items()}
    return {
        "prefect": report.get("version"),
        "events_per_s_at_1000": rates,
        "of_prefect": {name: round(ours[name]["lookups_per_s"]["1000"] / rate) for name, rate in rates.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peer", type=Path, default=FOLDER.parent / ".peers-venv" / "bin" / "python")
    options = parser.parse_args()
    results = {name: measure(name, options.rounds) for name in WORKLOADS}
    missed = [
        f"{name}: {what} is {result[what]}, at least {REQUIRED[what]:g} is promised"
        for name, result in results.items()
        for what in ("of_10", "of_loads")
        if result[what] < REQUIRED[what]
    ]
    document: dict[str, Any] = {"python": platform.python_version(), "required": REQUIRED, "workloads": results}
    if options.peer.exists():
        peer = document["peer"] = measure_prefect(options.peer, results)
        for name, found in peer["of_prefect"].items():
            if found < REQUIRED["of_prefect"]:
                missed.append(f"{name}: {found} times Prefect, at least {REQUIRED['of_prefect']:g} is promised")
    print(json.dumps({**document, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
