"""Runs `*.test.yaml`: the rules' own tests, with the server's evaluator and a virtual clock.

Called by `whenthen test`. Nothing is started and nothing is sent: actions are rendered, not performed. The format is
`schemas.ruletests`; meaning: docs/testing.md.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, ValidationError

from whenthen.actions import actions_of
from whenthen.rules.folder import Rules
from whenthen.rules.following.followed_actions import render_action
from whenthen.rules.following.playing import LIMITS, Story, contributing, play
from whenthen.rules.following.webhook_steps import TriedWebhooks
from whenthen.rules.reading.documents import Places, read_document
from whenthen.rules.reading.source_files import find_tests
from whenthen.rules.validation_messages import explain
from whenthen.schemas.errors import (
    InvalidInput,
    InvalidRules,
    Problem,
    RenderError,
    did_you_mean,
)
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing, Reason
from whenthen.schemas.ruletests import (
    ExpectedFiring,
    NonFiring,
    RuleTest,
    RuleTestFile,
)
from whenthen.schemas.times import format_duration, parse_us
from whenthen.triggers import RuleSet
from whenthen.triggers.explaining import why_not

__all__ = ["TestReport", "TestResult", "check_test", "junit", "load_tests", "render_actions", "run_tests"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test and what was wrong; `failures` is empty when it passed."""

    __test__ = False

    file: str
    name: str
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """All results, and the automations that no test says anything about."""

    __test__ = False

    results: tuple[TestResult, ...]
    uncovered: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)


def load_tests(path: str | os.PathLike[str]) -> list[tuple[str, RuleTestFile]]:
    """Read every `*.test.yaml` below a folder but hidden ones, or the one file.

    Raises:
        InvalidRules: with every problem, as for rules.
        InvalidInput: there is no such file or folder, or it can not be read.
    """
    root = Path(path)
    files = sorted(find_tests(root))
    base = root if root.is_dir() else root.parent
    found: list[tuple[str, RuleTestFile]] = []
    problems: list[Problem] = []
    for file in files:
        name = str(file.relative_to(base))
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{file}: {error.strerror}; name a file of tests, *.test.yaml") from None
        parsed = _read(name, raw, problems)
        if parsed is not None:
            found.append((name, parsed))
    if problems:
        raise InvalidRules(problems)
    return found


def run_tests(rules: Rules, tests: Sequence[tuple[str, RuleTestFile]], *, name: str | None = None) -> TestReport:
    """Run all tests against one set of rules, or those whose name matches the glob `name`."""
    compiled = RuleSet.compile(rules.automations)
    webhooks = TriedWebhooks(rules, limits=LIMITS)
    results = []
    covered: set[str] = set()
    for file, content in tests:
        for test in content.tests:
            if name is not None and not fnmatch.fnmatchcase(test.name, name):
                continue
            named = _named(test) | set(test.only)
            told = {outcome.automation for outcome in test.outcomes}
            unknown = sorted((named | told) - compiled.automations.keys())
            covered |= named
            if unknown:
                failures: tuple[str, ...] = tuple(
                    f"there is no automation {name!r} in the rules{did_you_mean(name, compiled.automations)}"
                    for name in unknown
                )
            else:
                failures = tuple(check_test(compiled, test, webhooks))
            results.append(TestResult(file=file, name=test.name, failures=failures))
    uncovered = tuple(automation.name for automation in rules.automations if automation.name not in covered)
    return TestReport(results=tuple(results), uncovered=uncovered)


def render_actions(rules: RuleSet, firing: Firing, events: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The actions that a firing asks for, in long form with every template rendered.

    Raises:
        RenderError: a value is missing; the message names the action and the field.
    """
    contributed = contributing(firing, events)
    rendered = []
    for index, action in enumerate(actions_of(rules.actions(firing.automation), firing)):
        try:
            rendered.append(render_action(action, firing, contributed))
        except RenderError as error:
            raise error.below("actions", index) from None
    return rendered


def junit(report: TestReport) -> str:
    """The report as JUnit XML. What XML can not hold, such as a control character in a key, is `?`."""
    suite = ElementTree.Element(
        "testsuite",
        name="whenthen",
        tests=str(len(report.results)),
        failures=str(sum(not result.passed for result in report.results)),
    )
    for result in report.results:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml_text(result.file), name=_xml_text(result.name))
        if result.failures:
            failure = ElementTree.SubElement(case, "failure", message=_xml_text(result.failures[0]))
            failure.text = _xml_text("\n".join(result.failures))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml_text(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _read(name: str, raw: bytes, problems: list[Problem]) -> RuleTestFile | None:
    places = Places()
    document = read_document(raw, places)
    for fault in document.faults:
        problems.append(Problem(file=name, line=fault.line, column=fault.column, path=fault.path, detail=fault.detail))
    if document.faults:
        return None
    try:
        return RuleTestFile.model_validate(document.data if document.data is not None else {})
    except ValidationError as error:
        model: type[BaseModel] = RuleTestFile
        errors = error.errors(include_url=False, include_input=False)
        for item in explain(errors, document.data, model, spelling=places.spelling):
            line, column = places.key(item.path) if item.at_key else places.value(item.path)
            problems.append(Problem(file=name, line=line, column=column, path=item.path, detail=item.detail))
        return None


def check_test(rules: RuleSet, test: RuleTest, webhooks: TriedWebhooks | None = None) -> Iterator[str]:
    """What is wrong when one test is run; nothing when it passes. `webhooks` are those that steps send requests to."""
    try:
        story = play(rules, test, webhooks)
    except InvalidInput as error:
        yield str(error)
        return
    expected_loops = {item.automation for item in test.not_fired if item.reason is Reason.LOOP}
    if loops := [why for name, why in story.loops.items() if name not in expected_loops]:
        yield from loops
        return
    watched = _named(test) | set(test.only)
    left = [firing for firing in story.firings if firing.automation in watched]
    for number, expected in enumerate(test.fires):
        match = next((firing for firing in left if not _differences(rules, story, expected, firing)), None)
        if match is not None:
            left.remove(match)
            continue
        yield f"fires[{number}]: {_missing(rules, story, expected, left)}"
    for firing in left:
        yield f"{firing.automation} fired unexpectedly at {_at(story, firing)}{_what_for(story, firing)}"
    for number, refused in enumerate(test.not_fired):
        yield from (f"not_fired[{number}]: {failure}" for failure in _check_not_fired(rules, story, refused))


def _named(test: RuleTest) -> set[str]:
    return {item.automation for item in test.fires} | {item.automation for item in test.not_fired}


def _differences(rules: RuleSet, story: Story, expected: ExpectedFiring, firing: Firing) -> list[str]:
    """How a firing differs from an expected one; empty when it is that one."""
    if firing.automation != expected.automation:
        return [f"automation is {firing.automation}"]
    found: list[str] = []
    if firing.state.value != expected.state:
        found.append(f"state is {firing.state.value}, not {expected.state}")
    if expected.at is not None and parse_us(firing.at) != story.start_us + expected.at // timedelta(microseconds=1):
        found.append(f"at is {_at(story, firing)}, not {format_duration(expected.at)}")
    step = story.step_of(firing.event["id"] if firing.event else None)
    if expected.step is not None and step != expected.step:
        found.append(f"it fired for step {step}, not {expected.step}")
    if expected.key is not None and firing.key != expected.key:
        found.append(f"key is {firing.key}, not {expected.key}")
    if expected.events is not None:
        steps = [story.step_of(ref.id) for ref in firing.refs]
        if steps != expected.events:
            found.append(f"events are those of steps {steps}, not {expected.events}")
    if expected.actions is not None:
        found += _action_differences(rules, story, expected.actions, firing, partial=expected.partial)
    return found


def _action_differences(
    rules: RuleSet, story: Story, expected: Sequence[Mapping[str, Any]], firing: Firing, *, partial: bool
) -> Iterator[str]:
    try:
        rendered = render_actions(rules, firing, story.events)
    except RenderError as error:
        yield str(error)
        return
    if partial:
        left = iter(rendered)
        for index, wanted in enumerate(expected):
            if not any(_contains(got, wanted) for got in left):
                yield f"no action like actions[{index}], {dict(wanted)!r}, in {rendered!r:.2000}"
                return
        return
    if len(rendered) != len(expected):
        yield f"{len(rendered)} actions, not {len(expected)}; `partial: true` lets others be there"
        return
    for index, (wanted, got) in enumerate(zip(expected, rendered, strict=True)):
        for name, value in wanted.items():
            if got.get(name) != value:
                yield f"actions[{index}].{name} is {got.get(name)!r}, not {value!r}"


def _contains(got: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one, where a wanted mapping is met by one with further items."""
    if isinstance(wanted, Mapping):
        return isinstance(got, Mapping) and all(name in got and _contains(got[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(_contains, got, wanted))
    return bool(got == wanted)


def _missing(rules: RuleSet, story: Story, expected: ExpectedFiring, left: Sequence[Firing]) -> str:
    same = [firing for firing in left if firing.automation == expected.automation]
    if same:
        found = [(_differences(rules, story, expected, firing), firing) for firing in same]
        differences, closest = min(found, key=lambda each: len(each[0]))
        return f"{expected.automation} fired{_for_key(closest)}, but {'; '.join(differences)}"
    reasons = _reasons(rules, story, expected.automation, expected.step)
    return f"{expected.automation} did not fire{reasons}"


def _check_not_fired(rules: RuleSet, story: Story, refused: NonFiring) -> Iterator[str]:
    # a chain that is stopped has fired before
    firings = [] if refused.reason is Reason.LOOP and refused.step is None else story.firings
    for firing in firings:
        step = story.step_of(firing.event["id"] if firing.event else None)
        if firing.automation == refused.automation and (refused.step is None or refused.step == step):
            yield f"{refused.automation} fired at {_at(story, firing)}{_what_for(story, firing)}"
            return
    if refused.reason is None:
        return
    reasons = [
        decision.reason
        for decision in story.decisions
        if decision.automation == refused.automation
        and (refused.step is None or story.step_of(decision.event) == refused.step)
    ]
    if refused.reason not in reasons:
        yield f"no decision {refused.reason.value}{_reasons(rules, story, refused.automation, refused.step)}"


def _reasons(rules: RuleSet, story: Story, automation: str, step: int | None) -> str:
    """What the evaluator decided instead, for people."""
    reasons = []
    opened = False
    for decision in story.decisions:
        if decision.automation != automation or decision.reason is Reason.FIRED:
            continue
        at = story.step_of(decision.event)
        if step is None or at == step:
            opened = decision.reason is Reason.OPENED
            key = rules.automations[automation].key_of(decision.path, decision.key) if decision.key else {}
            origin = story.origin(decision.event)
            reasons.append(
                (f"{origin}: " if origin else "")
                + decision.reason.value
                + (f" for {_shown_key(key)}" if key else "")
                + (f" ({decision.detail})" if decision.detail else "")
            )
    reasons += story.not_made
    if not reasons:
        reasons = list(_why_not(rules, story, automation, step))
    if not reasons:
        return "; nothing happened that it could fire for"
    shown = "; ".join(reasons[-5:])
    if opened:
        last = format_duration(timedelta(microseconds=story.times_us[-1] - story.start_us))
        shown += f"; the clock stops at the last step, {last}: for a later deadline add a step such as {{at: 1h}}"
    return f": {shown}"


def _why_not(rules: RuleSet, story: Story, automation: str, step: int | None) -> Iterator[str]:
    """What stands in the way of events that the index did not offer to the automation."""
    times = {event_id: story.times_us[at] for event_id, at in story.steps.items()}
    times |= {event_id: us for event_id, (_, us) in story.followed.items() if event_id in story.events}
    for event_id, now_us in times.items():
        if step is None or story.step_of(event_id) == step:
            why = why_not(rules.automations[automation], Event(story.events[event_id]), now_us=now_us)
            if why:
                yield f"{story.origin(event_id)}: {'; '.join(why)}"


def _at(story: Story, firing: Firing) -> str:
    us = parse_us(firing.at) - story.start_us
    return format_duration(timedelta(microseconds=us)) if us >= 0 else firing.at


def _what_for(story: Story, firing: Firing) -> str:
    """The event that a firing is for, and its key."""
    origin = story.origin(firing.event["id"] if firing.event else None)
    return (f" for {origin}" if origin else "") + _for_key(firing)


def _for_key(firing: Firing) -> str:
    return f" ({_shown_key(firing.key)})" if firing.key else ""


def _shown_key(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())
