"""A deleted window that a store has again, after a crash or from a backup, decides nothing a second time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from trigger_samples import evaluator, event, us

from whenthen.triggers.evaluator import Evaluator

JOBS: dict[str, Any] = {"after": "started", "expect": "done", "for_each": "id", "posture": "proactive", "within": 60}
BURST: dict[str, Any] = {"expect": "started", "for_each": "id", "collect": {"wait": "60s"}}


def stored(engine: Evaluator) -> list[tuple[str, str, bytes]]:
    return [(trigger, key, state) for trigger, key, state in engine.drain() if state is not None]


def started(at: float) -> Any:
    return event("started", at, labels={"id": "a"})


@pytest.mark.parametrize("trigger", [JOBS, BURST], ids=["absence", "burst"])
def test_a_window_that_fired_and_is_there_again_does_not_fire_again(trigger: dict[str, Any]) -> None:
    engine = evaluator(trigger)
    engine.process(started(0), us(0))
    open_windows = stored(engine)
    assert len(engine.advance(us(61)).firings) == 1
    after = evaluator(trigger)
    after.clock_us = engine.clock_us
    for window in open_windows:
        assert after.restore(*window)
    assert after.drop_outlived() == 1
    assert [state for _, _, state in after.drain()] == [None], "and is deleted"
    assert not after.advance(us(200)).firings


@pytest.mark.parametrize("trigger", [JOBS, BURST], ids=["absence", "burst"])
def test_a_window_that_became_due_while_nobody_evaluated_fires(trigger: dict[str, Any]) -> None:
    engine = evaluator(trigger)
    engine.process(started(0), us(0))
    after = evaluator(trigger)
    after.clock_us = engine.clock_us
    for window in stored(engine):
        after.restore(*window)
    assert not after.drop_outlived()
    assert len(after.advance(us(7200)).firings) == 1


def test_a_window_that_a_late_event_opened_when_it_was_due_already_fires() -> None:
    engine = evaluator(JOBS)
    engine.process(started(0), us(500))
    after = evaluator(JOBS)
    after.clock_us = engine.clock_us
    for window in stored(engine):
        after.restore(*window)
    assert not after.drop_outlived()
    assert len(after.advance(us(501)).firings) == len(engine.advance(us(501)).firings) == 1


def test_a_held_event_that_was_decided_and_is_there_again_is_not_decided_again() -> None:
    wait = timedelta(seconds=10)
    trigger = {"expect": "done"}
    engine = evaluator(trigger, follows_wait=wait)
    engine.process(event("done", 0, follows="never"), us(0))
    held = stored(engine)
    assert [name for name, _, _ in held] == ["held"]
    assert len(engine.advance(us(11)).firings) == 1
    after = evaluator(trigger, follows_wait=wait)
    after.clock_us = engine.clock_us
    for window in held:
        after.restore(*window)
    assert after.drop_outlived() == 1
    assert not after.advance(us(200)).firings


def test_a_record_remains_as_long_as_it_could_change_a_decision() -> None:
    sliding = {"expect": "started", "threshold": 2, "within": 60}
    tumbling = {"expect": "started", "threshold": 2, "within": 60, "window": "tumbling"}
    engine = evaluator(sliding, JOBS, BURST, tumbling, follows_wait=timedelta(seconds=10))
    found = [engine.remains_us(leaf.id) for each in engine.rules.automations.values() for leaf in each.leaves]
    assert found == [0, 0, None, 60_000_000]
    assert engine.remains_us("held") == 10_000_000
    assert engine.remains_us("~aside") is None
    assert engine.remains_us("of no rule") is None
