"""What a million windows weigh: the resident memory of one process that keeps a million keys of a `threshold: 3` window.

    python -m benchmarks.memory [--keys 1000000]

Prints JSON. A fresh process takes two events for each key, in batches whose changes are drained as the server does, and
tells its VmRSS. Then some keys get their third event and must fire with the three events, and one key out of sight must
not. `required_mib` is what the project promises; the exit code is 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import orjson

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import decode_event
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

REQUIRED_MIB = 1024.0
START_US = 1_769_846_400_000_000
BATCH = 500
TRIGGER = {"expect": "order.failed", "for_each": "customer", "threshold": 3, "within": "1h"}


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmRSS; this benchmark needs Linux")


def message(key: int, serial: int) -> bytes:
    second = 100 + serial % 3
    return orjson.dumps(
        {
            "id": f"{serial:08x}-cc78-41e3-81ab-{key:012x}",
            "event": "order.failed",
            "occurred": f"2026-01-31T08:{second // 60:02}:{second % 60:02}.{key % 1_000_000:06}Z",
            "received": f"2026-01-31T08:30:00.{key % 1_000_000:06}Z",
            "source": "api",
            "resource": {"id": f"order-{serial}", "customer": f"customer-{key:09}"},
            "related": [],
            "payload": {"reason": "card declined", "attempt": serial % 7},
            "follows": None,
        }
    )


def fill(keys: int) -> dict[str, object]:
    rules = RuleSet.compile([Automation.model_validate({"name": "failures", "trigger": TRIGGER})])
    evaluator = Evaluator(rules)
    before = resident_mib()
    clock = START_US
    begun = time.perf_counter()
    serial = 0
    for _ in range(2):
        for key in range(keys):
            serial += 1
            clock += 100
            outcome = evaluator.process(decode_event(message(key, serial), serial), clock)
            if outcome.firings:
                raise SystemExit(f"key {key} fired with its first two events")
            if serial % BATCH == 0:
                changed = evaluator.drain()
                if len(changed) != BATCH:
                    raise SystemExit(f"{len(changed)} windows changed by {BATCH} events")
    evaluator.drain()
    seconds = time.perf_counter() - begun
    after = resident_mib()
    for key in range(0, keys, max(1, keys // 1000)):
        serial += 1
        outcome = evaluator.process(decode_event(message(key, serial), serial), clock)
        fired = [len(firing.refs) for firing in outcome.firings]
        if fired != [3]:
            raise SystemExit(f"key {key} was to fire with its third event, found {fired}")
    if evaluator.process(decode_event(message(keys + 1, serial + 1), serial + 1), clock).firings:
        raise SystemExit("a key fired with its first event")
    return {
        "keys": keys,
        "resident_mib": round(after, 1),
        "before_mib": round(before, 1),
        "bytes_per_key": round((after - before) * 1024 * 1024 / keys),
        "events_per_s": round(2 * keys / seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(fill(options.keys)))
        return 0
    command = [sys.executable, "-m", "benchmarks.memory", "--inside", "--keys", str(options.keys)]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return done.returncode
    found = json.loads(done.stdout)
    kept = found["resident_mib"] < REQUIRED_MIB
    missed = [] if kept else [f"{found['resident_mib']} MiB, less than {REQUIRED_MIB:g} is promised"]
    print(json.dumps({"required_mib": REQUIRED_MIB, **found, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
