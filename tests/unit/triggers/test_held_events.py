"""Expected events that are held for a bucket which opens over them later. Meaning: docs/rules.md, "Tumbling windows"."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trigger_samples import SECOND, evaluator, event, us

from whenthen.triggers.windows import held_events
from whenthen.triggers.windows.held_events import MAX_HELD
from whenthen.triggers.windows.transitions import State

RUNS: dict[str, Any] = {
    "expect": "end",
    "after": "start",
    "posture": "proactive",
    "window": "tumbling",
    "within": "30s",
    "for_each": "id",
}


def test_an_end_before_its_start_keeps_the_absence_from_firing_also_after_a_restart() -> None:
    engine, other = evaluator(RUNS), evaluator(RUNS)
    engine.process(event("end", 4, received=5), us(5))
    for trigger, key, state in engine.drain():
        assert state is not None
        other.restore(trigger, key, state)
    for each in (engine, other):
        each.process(event("start", 3, received=6), us(6))
        assert each.advance(us(120)).firings == []


def test_an_end_that_is_older_than_its_start_does_not_count() -> None:
    engine = evaluator(RUNS)
    engine.process(event("end", 2, received=5), us(5))
    engine.process(event("start", 3, received=6), us(6))
    assert len(engine.advance(us(120)).firings) == 1


def test_a_further_start_leaves_the_event_of_an_open_bucket() -> None:
    engine = evaluator(RUNS)
    engine.process(event("start", 0, id="first"), us(0))
    engine.process(event("start", 10, id="second"), us(10))
    fired = engine.advance(us(120)).firings[0].event
    assert fired is not None
    assert fired["id"] == "first"


def test_nothing_is_held_half_an_hour_later() -> None:
    engine = evaluator(RUNS)
    engine.process(event("end", 0), us(0))
    engine.drain()
    engine.advance(us(1801))
    assert [(trigger.partition("~")[2], state) for trigger, _, state in engine.drain()] == [("held", None)]


def test_while_a_bucket_is_open_nothing_is_forgotten() -> None:
    held = held_events.hold(None, us(0), threshold=1, within_us=SECOND, now_us=us(0))
    kept = held_events.forget(held, now_us=us(7200), open_until_us=us(9000))
    assert kept == [us(7200), us(9000), us(0), us(0)]
    assert held_events.forget(held, now_us=us(7200), open_until_us=us(7200)) is None


@pytest.mark.parametrize("within_us", [SECOND // 1000, 3600 * SECOND])
def test_a_flood_of_one_key_is_held_up_to_a_limit(within_us: int) -> None:
    held: State | None = None
    for number in range(MAX_HELD + 500):
        held = held_events.hold(
            held, us(number / 1000), threshold=10_000, within_us=within_us, now_us=us(number / 1000)
        )
    assert held_events.count_within(held, us(0), us(3600)) == MAX_HELD
    assert held_events.count_within(held, us(0), us(0.5)) == 0


@given(st.lists(st.integers(0, 100), max_size=60), st.integers(1, 3), st.integers(1, 20), st.integers(-30, 130))
def test_what_is_held_satisfies_the_same_buckets_as_all_events_would(
    times: list[int], threshold: int, within: int, start: int
) -> None:
    held: State | None = None
    for time in times:
        held = held_events.hold(held, us(time), threshold=threshold, within_us=within * SECOND, now_us=us(max(times)))
    exact = sum(start <= time < start + within for time in times)
    found = held_events.count_within(held, us(start), us(start + within))
    assert min(found, threshold) == min(exact, threshold)
