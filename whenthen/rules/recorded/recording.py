"""A test of rules made of what happened: the events of one key as steps, the firings among them, and the one that did not come. Pure.

Called by `rules.recorded.why_replay`, which has evaluated the events. The test is run before it is given, so it passes with the rules of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from whenthen.rules.test_runner import check_test
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Reason
from whenthen.schemas.ruletests import RuleTest
from whenthen.schemas.times import format_duration, format_us
from whenthen.triggers import CompiledAutomation, RuleSet

__all__ = ["RecordedTest", "StoryItem", "recorded_test"]

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class StoryItem:
    """An event, or a moment, and what was decided then."""

    time_us: int  #: by the clock of the log
    event: Event | None
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTest:
    """One test as it stands in `*.test.yaml`, and what is wrong when it is run."""

    test: dict[str, Any]
    failures: tuple[str, ...]


def recorded_test(
    automation: CompiledAutomation,
    story: Sequence[StoryItem],
    *,
    target: int,
    reason: Reason | None,
    end_us: int,
) -> RecordedTest:
    """The test that tells the story. `target` is the position of the event in question, 0 for a moment; `reason` is why it did not
    fire, None when it did or nothing is known."""
    start_us = _start(story, end_us)
    steps: list[dict[str, Any]] = []
    fires: list[dict[str, Any]] = []
    asked: int | None = None
    for item in story:
        if item.event is not None:
            if item.event.seq == target:
                asked = len(steps)
            steps.append(_step(item, start_us))
        for decision in item.decisions:
            if decision.firing is not None and decision.reason in (Reason.FIRED, Reason.RESOLVED):
                fires.append(_fires(automation, decision, len(steps) - 1 if item.event is not None else None))
    if not steps or end_us > story[-1].time_us or any(item.event is None for item in story):
        steps.append({"at": _span(max(end_us, story[-1].time_us if story else end_us) - start_us)})
    refused: list[dict[str, Any]] = []
    if asked is not None and not any(each.get("step") == asked for each in fires):
        refused.append({"automation": automation.name, "step": asked, **({"reason": reason.value} if reason else {})})
    elif not fires:
        refused.append({"automation": automation.name})
    test = {
        "name": _name(automation.name, story, target),
        "start": format_us(start_us),
        "steps": steps,
        **({"fires": fires} if fires else {}),
        **({"not_fired": refused} if refused else {}),
    }
    try:
        failures = tuple(check_test(RuleSet([automation]), RuleTest.model_validate(test)))
    except ValidationError as error:
        failures = tuple(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return RecordedTest(test=test, failures=failures)


def _start(story: Sequence[StoryItem], end_us: int) -> int:
    times = [end_us]
    for item in story:
        times.append(item.time_us)
        if item.event is not None:
            times.append(item.event.time_us)
    return min(times) // _SECOND_US * _SECOND_US


def _step(item: StoryItem, start_us: int) -> dict[str, Any]:
    assert item.event is not None
    data = item.event.data
    step: dict[str, Any] = {"at": _span(item.time_us - start_us), "event": data["event"], "id": data["id"]}
    step["resource"] = data["resource"]
    if data.get("related"):
        step["related"] = data["related"]
    if data.get("payload") is not None:
        step["payload"] = data["payload"]
    if item.event.time_us != item.time_us:
        step["occurred"] = _span(item.event.time_us - start_us)
    return step


def _fires(automation: CompiledAutomation, decision: Decision, step: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"automation": automation.name}
    if decision.reason is Reason.RESOLVED:
        found["state"] = "Resolved"
    if step is not None and decision.event is not None:
        found["step"] = step
    if key := automation.key_of(decision.path, decision.key):
        found["key"] = key
    return found


def _name(automation: str, story: Sequence[StoryItem], target: int) -> str:
    event = next((item.event for item in story if item.event is not None and item.event.seq == target), None)
    if event is None:
        return f"{automation}, as it was"
    return f"{automation}, as it was for {event.id.replace('/', '-')}"[:200].strip()  # names have no slash, ids may


def _span(us: int) -> str:
    return format_duration(timedelta(microseconds=us))
