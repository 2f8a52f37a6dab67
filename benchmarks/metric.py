"""What an event costs a metric whose window covers a million events, beside one whose window covers ten.

    python -m benchmarks.metric [--events 1000000] [--rounds 9] [AGGREGATE ...]

For each aggregate two evaluators get the same events at different paces, so that a day holds ten events of the one and
a million of the other; each event drives another one out. Both take blocks of events in turn, whose changes are drained
after every 100 as the server does at a commit. The medians of the blocks are compared. Every decision's text is compared with what
the definition gives, and the stored window is measured. Prints JSON; the exit code is 1 when a ratio or a size is above what
is promised.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.schemas.times import format_time
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

__all__ = ["main"]

MOST_TIMES = 2.0  #: an event among a million costs at most so many times one among ten
MOST_BYTES = 128 * 1024

START = datetime(2026, 1, 31, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
DAY_US = 86_400_000_000
FEW = 10
BLOCK, DRAINED = 2000, 100
#: each aggregate with a threshold, and what its decision says of a window whose values are 0 to 9 in turn
AGGREGATES: dict[str, tuple[float, str]] = {
    "count": (5, "count is {count}"),
    "avg": (5, "avg is 4.5"),
    "max": (5, "max is {max}"),
    "p99": (5, "p99 is {max}"),
    "distinct": (50, "distinct is 10"),
}


class Feed:
    """One evaluator and its events, of which `in_window` lie within a day."""

    def __init__(self, aggregate: str, in_window: int) -> None:
        threshold, self.said = AGGREGATES[aggregate]
        trigger = {
            "type": "metric",
            "expect": "load",
            "aggregate": aggregate,
            "value": "$.payload.n",
            "operator": ">",
            "threshold": threshold,
            "within": "24h",
        }
        rules = RuleSet.compile([Automation.model_validate({"name": "metric", "trigger": trigger})])
        self.evaluator = Evaluator(rules)
        self.in_window = in_window
        self.number = 0
        self.bytes = 0

    def events(self, count: int) -> list[tuple[Event, int]]:
        made = []
        for number in range(self.number, self.number + count):
            at_us = number * DAY_US // self.in_window
            text = format_time(START + timedelta(microseconds=at_us))
            data: dict[str, Any] = {
                "id": f"{number:08x}-cc78-41e3-81ab-{number:012x}",
                "event": "load",
                "occurred": text,
                "received": text,
                "source": "api",
                "resource": {"id": "machine"},
                "related": [],
                "payload": {"n": number % 10},
                "follows": None,
            }
            made.append((Event(data, number + 1), START_US + at_us))
        self.number += count
        return made

    def take(self, count: int) -> float:
        """Seconds for each of the next events."""
        events = self.events(count)
        last = ""
        begun = time.perf_counter()
        for number, (event, at_us) in enumerate(events, 1):
            decisions = self.evaluator.process(event, at_us).decisions
            if number % DRAINED == 0:
                changes = self.evaluator.drain()
                last = decisions[-1].detail
        seconds = (time.perf_counter() - begun) / count
        self.bytes = len(changes[0][2] or b"")
        self._verify(last)
        return seconds

    def _verify(self, said: str) -> None:
        if self.number < self.in_window:
            return
        kind, _, shown = said.partition(",")[0].partition(" is ")
        if self.in_window > FEW and kind in ("count", "avg"):
            exact = self.in_window if kind == "count" else 4.5
            right = exact * 0.999 <= float(shown) <= exact * 1.005  # the older edge moves in steps of 1/256
        else:
            newest = "above 5, as" if self.in_window > FEW else "9"
            right = said.startswith(self.said.format(count=self.in_window, max=newest))
        if not right:
            raise SystemExit(f"of {self.in_window} events the decision says: {said}")


def measure(aggregate: str, events: int, rounds: int) -> dict[str, Any]:
    few, many = Feed(aggregate, FEW), Feed(aggregate, events)
    few.take(BLOCK)
    while many.number <= events:
        many.take(10_000)
    found: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(rounds):
        found["few"].append(few.take(BLOCK))
        found["many"].append(many.take(BLOCK))
    few_us, many_us = (statistics.median(seconds) * 1e6 for seconds in found.values())
    return {
        "few_us": round(few_us, 2),
        "many_us": round(many_us, 2),
        "times": round(many_us / few_us, 2),
        "few_bytes": few.bytes,
        "many_bytes": many.bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("aggregates", nargs="*", metavar="AGGREGATE", help=f"of {', '.join(AGGREGATES)}; default: all")
    options = parser.parse_args()
    found = {
        aggregate: measure(aggregate, options.events, options.rounds) for aggregate in options.aggregates or AGGREGATES
    }
    missed = [
        f"{aggregate}: {figure['times']} times the cost of an event among {FEW}, at most {MOST_TIMES:g} is promised"
        for aggregate, figure in found.items()
        if figure["times"] > MOST_TIMES
    ]
    missed += [
        f"{aggregate}: a window of {figure['many_bytes']} bytes, at most {MOST_BYTES} is promised"
        for aggregate, figure in found.items()
        if figure["many_bytes"] > MOST_BYTES
    ]
    document = {"events": options.events, "beside": FEW, "promised_times": MOST_TIMES, "aggregates": found}
    print(json.dumps({**document, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
