"""Bursts whose first event fires at once, and those of a key in cooldown. Meaning: docs/rules.md, "Bursts"."""

from __future__ import annotations

from typing import Any

import pytest
from trigger_samples import evaluator, event, rule, us

from whenthen.schemas.firings import Ref
from whenthen.triggers.trees.trigger_compiler import trigger_id
from whenthen.triggers.windows import collecting
from whenthen.triggers.windows.collecting import CollectRule

RULE = CollectRule(events=3, wait_us=10_000_000, quiet_us=None, first_now=True, cooldown_us=60_000_000)


def test_a_key_that_is_quiet_no_more_leaves_nothing_behind() -> None:
    engine = evaluator({"expect": "a", "cooldown": "1m", "collect": {"wait": "10s", "first": "now"}})
    engine.process(event("a", 0), us(0))
    engine.advance(us(59))
    assert engine.next_deadline_us() == us(60)
    engine.advance(us(60))
    assert engine.next_deadline_us() is None
    assert len(engine.store) == 0


def test_a_full_burst_waits_for_the_end_of_the_cooldown_and_then_fires_with_all() -> None:
    engine = evaluator({"expect": "a", "cooldown": "1m", "collect": {"events": 2, "wait": "1h"}})
    fired = [engine.process(event("a", at, id=f"e{at}"), us(at)).firings for at in (0, 1, 2, 3, 4)]
    assert [len(firings) for firings in fired] == [0, 1, 0, 0, 0]
    (last,) = engine.advance(us(61)).firings
    assert [ref.id for ref in last.refs] == ["e2", "e3", "e4"]


@pytest.mark.parametrize("first_now", [False, True])
def test_a_stored_burst_goes_on_like_one_that_was_not_stored(first_now: bool) -> None:
    trigger: dict[str, Any] = {"expect": "a", "cooldown": "1m", "collect": {"wait": "10s"}}
    if first_now:
        trigger["collect"]["first"] = "now"
    engine, other = evaluator(trigger), evaluator(trigger)
    for at in (0, 1, 2):
        engine.process(event("a", at), us(at))
    for name, key, state in engine.drain():
        assert state is not None
        other.restore(name, key, state)
    assert engine.advance(us(100)).firings == other.advance(us(100)).firings != []


def test_a_burst_of_the_version_without_cooldown_is_carried_forward() -> None:
    old = [us(0), us(0), 0, 0, us(0), 1, "a"]
    assert collecting.deadline_us(RULE, old) == us(10)
    found = collecting.on_event(RULE, old, Ref("b", 2, us(1)), now_us=us(1))
    assert found.detail == "2 of 3 gathered"


def test_the_id_of_a_trigger_does_not_depend_on_what_it_leaves_out() -> None:
    plain = rule({"expect": "a", "collect": {"wait": "10s"}})
    assert trigger_id(plain) == trigger_id(rule({"expect": "a", "collect": {"wait": "10s", "first": "gathered"}}))
    assert "first" not in plain.trigger.model_dump(mode="json")["collect"]
