"""How long 10,000 automations take from YAML text to checked and indexed rules, beside the YAML parser alone.

    python -m benchmarks.loading [--automations 10000] [--rounds 3]

Checks what was loaded and prints JSON. The parser is PyYAML's C loader on the same text in the same run; rounds alternate,
and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from whenthen.rules import Rules, load_rules
from whenthen.schemas.events import read_event
from whenthen.schemas.times import from_us
from whenthen.triggers.rule_set import RuleSet

#: the goal: loading and indexing within this many times of the parser alone
LIMIT = 10.0


def rules_text(count: int) -> str:
    """A rules file with `count` automations, each with its own bucket, labels, condition and deployment."""
    lines = ["automations:"]
    for number in range(count):
        lines.append(
            f"""  - name: load-{number}
    description: Load the files of customer {number}.
    trigger:
      expect: s3.file.uploaded
      match: {{bucket: customer-{number}-*, key: "incoming/*.csv"}}
      when: event.payload.size > {number} && event.payload.region == "r{number}"
      for_each: [bucket]
      threshold: 3
      within: 5m
    actions:
      - run-deployment: loader-{number % 50}
        parameters:
          path: $.resource.id
          note: "new file {{{{ event.resource.key }}}}"
          number: {number}"""
        )
    lines.append("deployments:")
    lines += [f"  - {{name: loader-{number}, command: [echo, hello]}}" for number in range(50)]
    return "\n".join(lines) + "\n"


def load_and_index(folder: Path) -> tuple[Rules, RuleSet]:
    """What a server does: read, check, compile, index."""
    rules = load_rules(folder)
    return rules, RuleSet(rule.trigger for rule in rules.compiled.values())


def verify(rules: Rules, index: RuleSet, parsed: Any, count: int) -> None:
    """Fail unless every automation came through as it was written, and can be found."""
    assert len(rules.automations) == len(index.automations) == count, len(rules.automations)
    assert [compiled.model for compiled in index.automations.values()] == list(rules.automations)
    event = {
        "event": "s3.file.uploaded",
        "resource": {"id": "one", "bucket": f"customer-{count - 1}-x", "key": "incoming/a.csv"},
        "payload": {"size": count, "region": f"r{count - 1}"},
    }
    found = index.index.candidates(read_event(event, now=from_us(0), source="api"))
    assert [index.entries[number].leaf.automation.name for number in found] == [f"load-{count - 1}"], found
    for model, written in zip(rules.automations, parsed["automations"], strict=True):
        assert model.name == written["name"]
        assert model.trigger.type == "event"
        assert model.trigger.when == written["trigger"]["when"]
        assert model.trigger.match["bucket"] == [written["trigger"]["match"]["bucket"]]
        assert model.trigger.within.total_seconds() == 300
        (action,) = model.actions
        assert action.type == "run-deployment"
        assert action.parameters == written["actions"][0]["parameters"]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(count: int, rounds: int) -> dict[str, Any]:
    """The figures, after the answers were checked."""
    text = rules_text(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.yaml").write_text(text, encoding="utf-8")
        parser, check, whole = [], [], []
        for _ in range(rounds):
            seconds, parsed = timed(lambda: yaml.load(text, yaml.CSafeLoader))
            parser.append(seconds)
            seconds, rules = timed(lambda: load_rules(folder, checkers=[]))
            check.append(seconds)
            seconds, (rules, index) = timed(lambda: load_and_index(folder))
            whole.append(seconds)
            verify(rules, index, parsed, count)
    return {
        "benchmark": "loading",
        "automations": count,
        "text_bytes": len(text),
        "rounds": rounds,
        "yaml_parser_s": round(min(parser), 3),
        "read_and_validate_s": round(min(check), 3),
        "load_and_index_s": round(min(whole), 3),
        "times_the_parser": round(min(whole) / min(parser), 2),
        "limit": LIMIT,
        "holds": min(whole) < LIMIT * min(parser),
    }


def main() -> int:
    """Print the figures; 1 when the goal is missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--automations", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    report = measure(given.automations, given.rounds)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
