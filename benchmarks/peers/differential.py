"""Prefect's evaluator and ours on the same random rules and events: do they fire on the same?

    differential.py --peer .peers-venv/bin/python --seed 1 --count 2000 [--class NAME]

Runs in the project's own environment; the peer answers in its own (`prefect_evaluator.py`). Ours goes the way of a user's
rules: `import_prefect` writes YAML, the YAML is loaded and checked, the events are replayed with `--format prefect`. Compared are,
line by line, automation, key, triggering event, contributing events and time. Exit 1 on a difference that is not one of
`DIFFERENCES`. Prints JSON: how many cases agree, by class. Called by `make peers`; the recorded answers in
`tests/conformance` are compared by the same functions in `make test`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from whenthen.rules import Rules, load_rules
from whenthen.rules.prefect_import import import_prefect
from whenthen.rules.replay import replay

__all__ = ["DIFFERENCES", "Difference", "agreement", "load_imported", "our_firings"]

HERE = Path(__file__).parent
Case = dict[str, Any]
#: line, automation, key, triggering event, contributing events, time
Fired = tuple[int, str, tuple[str, ...], str | None, tuple[str, ...], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Cases on which we mean to differ. docs/rules.md, "Differences from Prefect", says the same to users."""

    reason: str
    applies: Callable[[Case], bool]  #: to which cases
    recorded: frozenset[str]  #: names of recorded cases that do differ


def _opens_itself(case: Case) -> bool:
    return any(
        trigger.get("posture") == "Proactive" and trigger.get("after") and not trigger.get("for_each")
        for automation in case["automations"]
        for trigger in _events(automation["trigger"])
    )


def _lags(case: Case) -> bool:
    """Whether an event occurred before the clock that a tick had set, and buckets are there to be held back."""
    ticked = ""
    for line in case["events"]:
        if "tick" in line:
            ticked = max(ticked, line["tick"])
        elif line["occurred"] < ticked:
            return any(
                trigger.get("posture") == "Proactive" or trigger.get("within") or trigger.get("threshold", 1) > 1
                for automation in case["automations"]
                for trigger in _events(automation["trigger"])
            )
    return False


def _events(trigger: Case) -> Iterator[Case]:
    if "triggers" not in trigger:
        yield trigger
    for part in trigger.get("triggers", ()):
        yield from _events(part)


DIFFERENCES = (
    Difference(
        reason="an absence with `after` and without `for_each` opens windows by itself in Prefect",
        applies=_opens_itself,
        recorded=frozenset({"unkeyed-absence-opens-itself"}),
    ),
    Difference(
        reason="one event that is late holds back every absence, and what is forgotten, in Prefect",
        applies=_lags,
        recorded=frozenset({"absence-held-back-by-lag"}),
    ),
)


def _known(case: Case) -> Difference | None:
    return next((difference for difference in DIFFERENCES if difference.applies(case)), None)


def load_imported(case: Case) -> Rules:
    """The case's automations as rules, by way of the text that the import writes."""
    with tempfile.TemporaryDirectory(prefix="whenthen-peer-") as folder:
        path = Path(folder) / "imported.yaml"
        path.write_text(import_prefect(case["automations"], runs="prefect").text, encoding="utf-8")
        return load_rules(path)


def our_firings(rules: Rules, case: Case) -> list[Fired]:
    """What our replay fires, with the number of the line that it fired at."""
    at = [-1]

    def lines() -> Iterator[str]:
        for number, line in enumerate(case["events"]):
            at[0] = number
            yield json.dumps(line)

    fired = []
    for found in replay(rules, lines(), format="prefect"):
        key = tuple(found["key"].values())
        moment = datetime.fromisoformat(found["at"])
        fired.append((at[0], found["automation"], key, found["event"], tuple(sorted(found["events"])), moment))
    return fired


def prefect_firings(answer: Case) -> list[Fired]:
    fired = []
    for found in answer["firings"]:
        moment = datetime.fromisoformat(found["triggered"].replace("Z", "+00:00")).astimezone(UTC)
        key = tuple(found["key"])
        fired.append((found["line"], found["automation"], key, found["event"], tuple(found["events"]), moment))
    return fired


def agreement(case: Case, answer: Case, *, ignore_known: bool = False) -> str | None:
    """None when both fire alike; else what differs, unless that is known or Prefect's answer is not well defined."""
    theirs = Counter(prefect_firings(answer))
    ours = Counter(our_firings(load_imported(case), case))
    excused = _known(case) is not None or case.get("sweep") == "tick" or answer.get("unstable")
    if ours == theirs or (excused and not ignore_known):
        return None
    missing = "".join(f"\n  Prefect alone: {fired}" for fired in sorted((theirs - ours).elements(), key=str))
    extra = "".join(f"\n  ours alone:    {fired}" for fired in sorted((ours - theirs).elements(), key=str))
    return f"{case['name']}:{missing}{extra}"


def answered(peer: str, cases: str) -> Iterable[Case]:
    """Prefect's answers, from its own environment."""
    command = [peer, str(HERE / "prefect_evaluator.py"), "--variants"]
    done = subprocess.run(command, input=cases, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} could not answer:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare Prefect's evaluator with ours on random cases.")
    parser.add_argument("--peer", required=True, help="the Python of an environment that has Prefect")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--class", dest="only")
    options = parser.parse_args()
    generator = [sys.executable, str(HERE / "prefect_cases.py")]
    generator += ["--seed", str(options.seed), "--count", str(options.count)]
    if options.only:
        generator += ["--class", options.only]
    written = subprocess.run(generator, capture_output=True, text=True, check=True).stdout
    cases = [json.loads(line) for line in written.splitlines()]
    answers = list(answered(options.peer, written))
    compared: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    failures = []
    for case, answer in zip(cases, answers, strict=True):
        if "refused" in answer:
            raise SystemExit(f"Prefect refused {case['name']}: {answer['refused']}")
        difference = agreement(case, answer, ignore_known=True)
        if difference is None:
            compared[case["class"]] += 1
        elif (known := _known(case)) is not None:
            set_aside[known.reason] += 1
        elif answer["unstable"]:
            set_aside["not well defined: " + ", ".join(answer["unstable"])] += 1
        else:
            failures.append(difference)
    for failure in failures[:10]:
        print(failure, file=sys.stderr)
    report = {"seed": options.seed, "cases": len(cases), "agree": sum(compared.values()), "differ": len(failures)}
    print(json.dumps({**report, "agree_by_class": compared, "known_to_differ": set_aside}))
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
