"""Every example of docs/rules.md is run: the rule is loaded, the events are decided upon, each decision is compared."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from trigger_samples import SECOND, START_US, event, us

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing, Reason
from whenthen.schemas.times import parse_duration
from whenthen.triggers.evaluator import Evaluation, Evaluator
from whenthen.triggers.rule_set import RuleSet

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def examples() -> list[Any]:
    """Each yaml block with the events block that follows it, named after its section and line."""
    text = PAGE.read_text(encoding="utf-8")
    found = []
    waiting: tuple[str, str] | None = None
    for block in BLOCK.finditer(text):
        section = re.findall(r"^#+ (.*)$", text[: block.start()], re.M)[-1]
        where = f"{section}, line {text.count(chr(10), 0, block.start()) + 1}"
        if block[1] == "yaml":
            assert waiting is None, f"{where}: the example before it has no events"
            waiting = where, block[2]
        elif block[1] == "events":
            assert waiting is not None, f"{where}: events without a rule"
            found.append(pytest.param(waiting[1], block[2], id=waiting[0]))
            waiting = None
    assert waiting is None
    return found


def seconds(text: str) -> float:
    return parse_duration(text).total_seconds()


def read_event(name: str, clock: float, words: list[str], serial: int) -> Event:
    labels: dict[str, str] = {}
    related: dict[str, dict[str, str]] = {}
    payload: dict[str, Any] = {}
    meta: dict[str, str] = {}
    for word in words:
        place, sign, value = re.fullmatch(r"([^=:]+)([=:])(.*)", word).groups()  # type: ignore[union-attr]
        if sign == ":":
            payload[place] = json.loads(value)
        elif place.startswith("@"):
            meta[place[1:]] = value
        elif "/" in place:
            role, _, label = place.partition("/")
            related.setdefault(role, {"role": role})[label] = value
        else:
            labels[place] = value
    assert set(meta) <= {"id", "occurred", "follows", "depth"}
    return event(
        name,
        seconds(meta["occurred"]) if "occurred" in meta else clock,
        id=meta.get("id", f"event-{serial}"),
        received=clock,
        labels=labels,
        related=[{"id": "?", **each} for each in related.values()],
        payload=payload,
        follows=meta.get("follows"),
        depth=int(meta["depth"]) if "depth" in meta else None,
    )


def told(decision: Decision, outcome: Evaluation, wanted: str) -> str:
    """The decision in the words of the example: its reason, and of its firing what the example asks for."""
    if decision.firing is None or " " not in wanted:
        return decision.reason.value
    firing = next(each for each in outcome.firings if each.id == decision.firing)
    _, what, _ = wanted.split(" ", 2)
    return f"{decision.reason.value} {what} {_shown(firing, what)}"


def _shown(firing: Firing, what: str) -> str:
    if what == "at":
        at = event("t", 0).occurred.fromisoformat(firing.at)
        return f"{(at - event('t', 0).occurred).total_seconds():g}s"
    if what == "with":
        return " ".join(ref.id for ref in firing.refs)
    assert what == "for"
    return " ".join(str(value) for value in firing.key.values())


@pytest.mark.parametrize(("rule", "events"), examples())
def test_the_example_is_decided_as_the_reference_says(rule: str, events: str) -> None:
    automation = Automation.model_validate({"name": "example", **yaml.safe_load(rule)})
    evaluator = Evaluator(RuleSet.compile([automation]), follows_wait=timedelta(seconds=10))
    for serial, line in enumerate(events.splitlines()):
        given, arrow, expected = line.partition(" -> ")
        assert arrow, line
        time, name, *words = given.split()
        clock = seconds(time)
        if name == "tick":
            outcome = evaluator.advance(us(clock))
        else:
            outcome = evaluator.process(read_event(name, clock, words, serial), us(clock))
        decisions = [each for each in outcome.decisions if not each.path or each.reason == "held_for_predecessor"]
        wanted = [each.strip() for each in expected.split(",")] if expected.strip() != "nothing" else []
        padded = [*wanted, *[""] * len(decisions)]
        assert [told(each, outcome, want) for each, want in zip(decisions, padded, strict=False)] == wanted, line
        assert evaluator.clock_us == START_US + clock * SECOND


def test_the_reference_lists_every_reason() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Decisions\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert sorted(listed) == sorted(reason.value for reason in Reason)


def test_every_reason_appears_in_an_example_but_those_of_what_is_done_to_a_rule() -> None:
    shown = " ".join(param.values[1] for param in examples())
    assert [reason.value for reason in Reason if reason.value not in shown] == ["paused", "lapsed"]
