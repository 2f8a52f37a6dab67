"""Rules tried on events that somebody made up: what fires, what is decided, and which clause stood in the way, with a virtual clock.

Nothing is started, sent or kept. The rules may be anybody's, and what they take is not known before: `whenthen.engine` runs this module as a
process of its own (`python -m whenthen.rules.following.trial`), which has so much memory and time and no more. The question and the answer are JSON.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from whenthen.rules.folder import Rules, compile_files
from whenthen.rules.following.playing import Story, play
from whenthen.rules.reading.documents import read_document
from whenthen.rules.reading.source_files import SourceFile
from whenthen.rules.test_runner import render_actions
from whenthen.rules.validation_messages import explain
from whenthen.schemas.errors import InvalidInput, InvalidRules, RenderError, path_text
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing
from whenthen.schemas.ruletests import RuleTest, RuleTestFile
from whenthen.schemas.times import format_duration, parse_us
from whenthen.triggers import RuleSet
from whenthen.triggers.explaining import explain_automation

__all__ = ["MOST_STEPS", "Trial", "main", "try_rules"]

MOST_STEPS = 200
MOST_AUTOMATIONS = 50
MOST_SHOWN = 200  #: firings and decisions; the others are counted
MEMORY_BYTES = 1 << 30
CPU_S = 10
_STUBS = "in force"  #: the file of what the rules in force have and the tried rules may name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it. With problems there is nothing else."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    firings: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    clauses: list[dict[str, Any]] = field(default_factory=list)  #: of each step with an event, of each automation
    fired: int = 0  #: how many firings there are, also those that are not shown
    more: int = 0  #: firings and decisions that are not shown


def try_rules(rules: str, events: str, *, known: Mapping[str, Sequence[str]], follow: bool = False) -> Trial:
    """Play `events`, steps of a test of rules as YAML, through `rules`: a file of automations, a list of them, or one. They may name what is
    `known`: names by kind, `deployments` or `notifiers`."""
    problems: list[str] = []
    compiled = _rules(rules, known, problems)
    test = _test(events, follow, problems)
    if compiled is None or test is None or problems:
        return Trial(problems=problems or ["nothing can be tried"])
    rule_set = RuleSet.compile(compiled.automations)
    try:
        story = play(rule_set, test)
    except InvalidInput as error:
        return Trial(problems=[f"events: {error}"])
    return Trial(
        warnings=[str(problem).partition(": warning: ")[2] for problem in compiled.warnings],
        firings=[_firing(rule_set, story, firing) for firing in story.firings[:MOST_SHOWN]],
        decisions=[_decision(rule_set, story, each) for each in story.decisions[:MOST_SHOWN]],
        clauses=list(_clauses(rule_set, story)),
        fired=len(story.firings),
        more=max(0, len(story.firings) - MOST_SHOWN) + max(0, len(story.decisions) - MOST_SHOWN),
    )


def _rules(text: str, known: Mapping[str, Sequence[str]], problems: list[str]) -> Rules | None:
    document = read_document(text.encode("utf-8", "replace"))
    data, shift = document.data, 0
    if not document.faults and isinstance(data, list):
        text, shift = "automations:\n" + text, 1
    elif not document.faults and isinstance(data, dict) and "trigger" in data:
        text, shift = yaml.safe_dump({"automations": [data]}, sort_keys=False, allow_unicode=True), -1
    elif isinstance(data, dict) and (others := sorted(data.keys() - {"automations"})):
        problems.append(f"rule: only automations can be tried; take {', '.join(map(str, others))[:100]} out")
        return None
    elif not document.faults and not data:
        problems.append("rule: there is none yet; give an automation with a name and a trigger")
        return None
    stubs = {kind: [{"name": name, **_STUB[kind]} for name in known.get(kind, ())] for kind in _STUB}
    files = [
        SourceFile(name="rule", raw=text.encode("utf-8", "replace")),
        SourceFile(name=_STUBS, raw=yaml.safe_dump(stubs).encode()),
    ]
    try:
        found = compile_files(Path("/nonexistent"), files)
    except InvalidRules as error:
        for problem in error.problems[:20]:
            line = "" if shift < 0 or not problem.line else f" line {max(1, problem.line - shift)}"
            where = f" {problem.field}:" if problem.field else ""
            problems.append(f"rule{line}:{where} {problem.detail}")
        return None
    if len(found.automations) > MOST_AUTOMATIONS:
        problems.append(
            f"rule: {len(found.automations)} automations are more than {MOST_AUTOMATIONS}; try fewer at once"
        )
        return None
    if not found.automations:
        problems.append("rule: there is no automation in it; give one with a name and a trigger")
    return found


_STUB: Mapping[str, Mapping[str, Any]] = {
    "deployments": {"command": ["true"]},
    "notifiers": {"urls": ["json://127.0.0.1"]},
}


def _test(text: str, follow: bool, problems: list[str]) -> RuleTest | None:
    """The steps as a test that expects nothing in particular."""
    document = read_document(text.encode("utf-8", "replace"))
    if document.faults:
        problems += [f"events line {fault.line}: {fault.detail}" for fault in document.faults[:5]]
        return None
    steps = document.data
    if isinstance(steps, dict):
        steps = [steps]
    if not isinstance(steps, list) or not steps:
        problems.append(
            "events: a list of steps is expected, such as - {at: 0s, event: order.paid, resource: {id: order.1}}"
        )
        return None
    if len(steps) > MOST_STEPS:
        problems.append(f"events: {len(steps)} steps are more than {MOST_STEPS}; try fewer at once")
        return None
    given = [{"at": "0s", **step} if isinstance(step, dict) else step for step in steps]
    whole = {"name": "trial", "steps": given, "follow": follow, "not_fired": [{"automation": "nobody"}]}
    try:
        return RuleTestFile.model_validate({"tests": [whole]}).tests[0]
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        for fault in islice(explain(errors, {"tests": [whole]}, RuleTestFile), 10):
            problems.append(f"events: {path_text(fault.path[2:])}: {fault.detail}")
        return None


def _firing(rules: RuleSet, story: Story, firing: Firing) -> dict[str, Any]:
    try:
        actions: list[dict[str, Any]] = render_actions(rules, firing, story.events)
        trouble = ""
    except RenderError as error:
        actions, trouble = [], str(error)
    at_us = parse_us(firing.at) - story.start_us
    return {
        "automation": firing.automation,
        "state": firing.state.value,
        "at": _shown(at_us),
        "at_s": at_us / 1e6,
        "origin": story.origin(firing.event["id"] if firing.event else None),
        "key": dict(firing.key),
        "events": [story.origin(ref.id) for ref in firing.refs][-20:],
        "actions": actions,
        "trouble": trouble,
    }


def _decision(rules: RuleSet, story: Story, decision: Decision) -> dict[str, Any]:
    key = rules.automations[decision.automation].key_of(decision.path, decision.key) if decision.key else {}
    return {
        "automation": decision.automation,
        "reason": decision.reason.value,
        "origin": story.origin(decision.event) or "the clock",
        "path": decision.path,
        "key": dict(key),
        "detail": decision.detail,
    }


def _clauses(rules: RuleSet, story: Story) -> Iterator[dict[str, Any]]:
    """The tree of clauses of each automation for each step's event."""
    shown = 0
    for number, (event_id, now_us) in enumerate(zip(story.ids, story.times_us, strict=True)):
        if event_id is None:
            continue
        for automation in rules.automations.values():
            if (shown := shown + 1) > MOST_SHOWN:
                return
            tree = explain_automation(automation, Event(story.events[event_id]), now_us=now_us)
            yield {
                "automation": automation.name,
                "step": number,
                "event": story.events[event_id]["event"],
                "at": _shown(now_us - story.start_us),
                "tree": tree.as_json(),
            }


def _shown(us: int) -> str:
    return format_duration(timedelta(microseconds=us)) if us > 0 else "0s"


def main() -> None:
    """Answer the question on standard input, within bounds that the system enforces."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    question = orjson.loads(sys.stdin.buffer.read())
    found = try_rules(question["rules"], question["events"], known=question["known"], follow=question["follow"])
    sys.stdout.buffer.write(orjson.dumps(found, default=str, option=orjson.OPT_NON_STR_KEYS))


if __name__ == "__main__":
    main()
