"""What a firing by absence names, and what resolves it. Meaning: docs/rules.md, "Absence" and "Resolving"."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from trigger_samples import evaluator, event, us

from whenthen.schemas.automations import Automation
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.windows import absence
from whenthen.triggers.windows.absence import AbsenceRule

ORDERS: dict[str, Any] = {
    "expect": "shipped",
    "after": "paid",
    "posture": "proactive",
    "within": "1m",
    "for_each": "order",
    "threshold": 2,
}


def resolving(trigger: dict[str, Any]) -> Evaluator:
    return evaluator(
        Automation.model_validate({"name": "rule", "trigger": trigger, "actions_on_resolve": [{"type": "do-nothing"}]})
    )


def test_an_absence_names_the_event_that_opened_its_window_and_those_that_came_in_it() -> None:
    engine = evaluator(ORDERS)
    engine.process(event("paid", 0, id="p", labels={"order": "17"}, seq=4), us(0))
    engine.process(event("shipped", 5, id="s", labels={"order": "17"}, seq=5), us(5))
    firing = engine.advance(us(60)).firings[0]
    assert firing.event is None
    assert [(ref.id, ref.seq, ref.time_us) for ref in firing.refs] == [("p", 4, us(0)), ("s", 5, us(5))]
    assert firing.total == 2


def test_a_stored_window_fires_like_one_that_was_not_stored() -> None:
    engine, other = evaluator(ORDERS), evaluator(ORDERS)
    engine.process(event("paid", 0, id="p", labels={"order": "17"}, seq=4), us(0))
    for trigger, key, state in engine.drain():
        assert state is not None
        other.restore(trigger, key, state)
    assert engine.advance(us(60)).firings == other.advance(us(60)).firings != []


def test_a_window_of_an_earlier_version_names_its_event_without_a_position() -> None:
    rule = AbsenceRule(threshold=1, within_us=60_000_000, cooldown_us=0, needs_after=True)
    state = orjson.loads(orjson.dumps([us(0), us(0), us(60), 0, "p"]))
    refs = absence.on_time(rule, state, now_us=us(60)).refs
    assert refs is not None
    assert [(ref.id, ref.seq, ref.time_us) for ref in refs] == [("p", 0, us(0))]


@pytest.mark.parametrize("cooldown", [{}, {"cooldown": "1h"}])
def test_what_came_before_the_window_opened_does_not_resolve_it(cooldown: dict[str, Any]) -> None:
    engine = resolving({**ORDERS, "threshold": 1, **cooldown})
    engine.process(event("paid", 0, labels={"order": "17"}), us(0))
    engine.advance(us(60))
    labels = {"order": "17"}
    assert engine.process(event("shipped", -30, received=61, labels=labels), us(61)).firings == []
    resolved = engine.process(event("shipped", 30, received=62, id="late", labels=labels), us(62)).firings
    assert [(firing.state, firing.refs[0].id) for firing in resolved] == [("Resolved", "late")]


def test_two_awaited_events_resolve_together_and_one_does_not() -> None:
    engine = resolving(ORDERS)
    labels = {"order": "17"}
    engine.process(event("paid", 0, labels=labels), us(0))
    engine.advance(us(60))
    assert engine.process(event("shipped", 70, labels=labels), us(70)).firings == []
    resolved = engine.process(event("shipped", 80, labels=labels), us(80)).firings
    assert [[ref.id for ref in firing.refs] for firing in resolved] == [["shipped@70", "shipped@80"]]
