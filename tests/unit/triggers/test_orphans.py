"""Windows whose trigger is not in the rules at hand: kept, given back, forgotten in time; and what the gap means for each kind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trigger_samples import Stimulus, evaluator, event, reasons, rule_sets, run, streams, take, us

from tests.examples import up_to
from whenthen.schemas.automations import Automation
from whenthen.schemas.firings import Reason
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.orphans.orphan_store import OrphanStore
from whenthen.triggers.rule_set import RuleSet

thorough = up_to(150)

NOTHING = RuleSet.compile([])
PAIR = {"expect": "a", "threshold": 2, "within": 60, "for_each": "k"}
ABSENCE = {"expect": "done", "after": "begin", "posture": "proactive", "within": 10, "for_each": "k"}


def without_rules(engine: Evaluator, start: float, end: float) -> list[Any]:
    """Take all rules away at `start` and give them back at `end`; what the return led to."""
    rules = engine.rules
    engine.replace_rules(NOTHING)
    engine.advance(us(start))
    engine.replace_rules(rules)
    return [engine.advance(us(end))]


def stored(engine: Evaluator, kept: dict[tuple[str, str], bytes]) -> dict[tuple[str, str], bytes]:
    for trigger, key, state in engine.drain():
        if state is None:
            kept.pop((trigger, key), None)
        else:
            kept[(trigger, key)] = state
    return kept


def loaded(rules: RuleSet, kept: dict[tuple[str, str], bytes], clock_us: int, **options: Any) -> Evaluator:
    engine = Evaluator(rules, **options)
    engine.clock_us = clock_us
    for (trigger, key), state in kept.items():
        assert engine.restore(trigger, key, state)
    return engine


# -- nothing is lost


def test_a_rule_that_is_away_and_back_goes_on_with_its_windows() -> None:
    engine = evaluator(PAIR)
    take(engine, event("a", 0, labels={"k": "x"}))
    without_rules(engine, 1, 2)
    (outcome,) = take(engine, event("a", 3, labels={"k": "x"}))
    assert [[ref.id for ref in firing.refs] for firing in outcome.firings] == [["a@0", "a@3"]]


def test_the_order_that_is_not_shipped_fires_after_the_rule_was_away_for_a_moment() -> None:
    engine = evaluator(ABSENCE)
    take(engine, event("begin", 0, labels={"k": "o1"}))
    without_rules(engine, 1, 1.5)
    assert [firing.key for firing in engine.advance(us(10)).firings] == [{"k": "o1"}]


def test_a_window_that_was_not_stored_yet_when_its_rule_left_is_stored() -> None:
    engine = evaluator(PAIR)
    take(engine, event("a", 0, labels={"k": "x"}))
    engine.replace_rules(NOTHING)
    assert [state is not None for _, _, state in engine.drain()] == [True]


def test_a_process_with_older_rules_deletes_nothing_and_the_next_one_goes_on() -> None:
    newer = evaluator(PAIR)
    take(newer, event("a", 0, labels={"k": "x"}))
    kept = stored(newer, {})
    windows = dict(kept)
    older = loaded(NOTHING, kept, newer.clock_us)
    older.advance(us(1))
    kept = stored(older, kept)
    assert windows.items() <= kept.items()
    again = loaded(newer.rules, kept, older.clock_us)
    (outcome,) = take(again, event("a", 3, labels={"k": "x"}))
    assert len(outcome.firings) == 1
    assert set(stored(again, kept)) == set(windows)


def test_an_orphan_survives_restarts_with_the_time_since_when_it_is_one() -> None:
    engine = evaluator(PAIR, orphans_kept=timedelta(seconds=100))
    take(engine, event("a", 0, labels={"k": "x"}))
    engine.replace_rules(NOTHING)
    engine.advance(us(5))
    kept = stored(engine, {})
    (record,) = [orjson.loads(state) for (trigger, _), state in kept.items() if trigger == OrphanStore.ID]
    assert record[:3] == [us(5), "rule0", 1]
    engine = loaded(NOTHING, kept, us(5), orphans_kept=timedelta(seconds=100))
    assert engine.advance(us(104)).orphan_notes == []
    (sentence,) = engine.advance(us(105)).orphan_notes
    assert "1 windows of automation 'rule0'" in sentence
    assert stored(engine, kept) == {}


def test_an_orphan_asks_for_the_time_when_it_becomes_one_and_when_it_is_to_be_forgotten() -> None:
    engine = evaluator(PAIR, orphans_kept=timedelta(seconds=100))
    take(engine, event("a", 0, labels={"k": "x"}))
    engine.replace_rules(NOTHING)
    assert engine.next_deadline_us() == 0
    engine.advance(us(5))
    assert engine.next_deadline_us() == us(105)


def test_a_window_that_no_part_of_its_rule_has_is_of_no_use() -> None:
    engine = evaluator(PAIR)
    (trigger,) = engine.rules.nodes
    assert not engine.restore(f"{trigger}.triggers[0]", "k", b"[1,0,0,0]")


def test_an_orphan_is_forgotten_on_request_and_a_later_one_of_the_trigger_is_not() -> None:
    engine = evaluator(PAIR, {**PAIR, "threshold": 3})
    take(engine, event("a", 0, labels={"k": "x"}))
    ids = list(engine.rules.ids)
    engine.replace_rules(NOTHING)
    engine.advance(us(1))
    kept = stored(engine, {})
    engine.orphans.request_forget({ids[0]: us(1), ids[1]: us(0), "other": us(1)})
    assert engine.next_deadline_us() == 0
    (sentence,) = engine.advance(us(2)).orphan_notes
    assert sentence.endswith("on request")
    assert engine.orphans.ids() == [ids[1]]
    assert {trigger for trigger, _ in stored(engine, kept)} == {ids[1], OrphanStore.ID}


@pytest.mark.parametrize("bound", [{"max_windows": 2}, {"max_bytes": 150}])
def test_beyond_the_bound_the_trigger_that_is_away_the_longest_is_forgotten(bound: dict[str, int]) -> None:
    store = OrphanStore(kept_us=10**12, **bound)
    for number, name in enumerate(["first", "second", "third"]):
        store.add(name, name, "k", b"x" * 69, changed=False)
        notes = store.settle(1000 + number)[1]
    assert store.ids() == ["second", "third"]
    assert [note.split(",")[0] for note in notes] == [
        "1 windows of trigger third are kept: it is not in the rules",
        "1 windows of trigger first",
    ]


# -- what the gap means


GAP = {
    "absence": (ABSENCE, event("begin", 0, labels={"k": "x"})),
    "absence without `after`": ({"expect": "a", "posture": "proactive", "within": 10}, event("a", 0)),
    "buckets": (
        {"expect": "a", "posture": "proactive", "threshold": 2, "within": 10, "window": "tumbling"},
        event("a", 0),
    ),
    "schedule": ({"type": "schedule", "interval": 20}, event("a", 0)),
    "count": (
        {"type": "metric", "expect": "a", "aggregate": "count", "operator": "<", "threshold": 2, "within": 10},
        event("a", 0),
    ),
}


@pytest.mark.parametrize("kind", GAP)
def test_what_was_due_in_the_gap_lapses(kind: str) -> None:
    trigger, first = GAP[kind]
    engine = evaluator(trigger)
    take(engine, first)
    (outcome,) = without_rules(engine, 1, 25)
    assert not outcome.firings
    assert reasons([outcome])[0] == "lapsed"
    assert engine.counts["rule0", Reason.LAPSED] == 1


@pytest.mark.parametrize("kind", ["absence without `after`", "buckets", "count"])
def test_what_watches_without_an_event_watches_again_from_the_return_on(kind: str) -> None:
    trigger, first = GAP[kind]
    engine = evaluator(trigger)
    take(engine, first)
    without_rules(engine, 1, 25)
    assert not engine.advance(us(34.9)).firings
    assert len(engine.advance(us(35)).firings) == 1


def test_an_absence_that_lapsed_opens_again_for_the_next_event_and_not_for_the_same() -> None:
    engine = evaluator(ABSENCE)
    begin = event("begin", 0, labels={"k": "x"})
    take(engine, begin)
    without_rules(engine, 1, 25)
    engine.process(begin, us(26))
    assert not engine.advance(us(37)).firings
    take(engine, event("begin", 40, labels={"k": "x"}))
    assert len(engine.advance(us(50)).firings) == 1


def test_events_of_the_gap_do_not_count() -> None:
    engine = evaluator(PAIR)
    take(engine, event("a", 0, labels={"k": "x"}))
    rules = engine.rules
    engine.replace_rules(NOTHING)
    take(engine, event("a", 1, labels={"k": "x"}))
    engine.replace_rules(rules)
    assert not engine.advance(us(2)).firings
    assert len(take(engine, event("a", 3, labels={"k": "x"}))[0].firings) == 1


def test_a_burst_whose_end_fell_into_the_gap_fires_with_what_it_had() -> None:
    engine = evaluator({"expect": "a", "collect": {"events": 9, "wait": 10}})
    take(engine, event("a", 0), event("a", 1))
    (outcome,) = without_rules(engine, 2, 25)
    assert [[ref.id for ref in firing.refs] for firing in outcome.firings] == [["a@0", "a@1"]]


def test_the_triggered_state_stays_over_a_gap() -> None:
    engine = evaluator({"expect": "a", "resolve_on": "b"})
    take(engine, event("a", 0))
    without_rules(engine, 1, 2)
    (outcome,) = take(engine, event("b", 3))
    assert [firing.state for firing in outcome.firings] == ["Resolved"]


@thorough
@given(rule_sets, streams(max_size=16), st.data())
def test_a_gap_in_which_no_event_came_and_nothing_was_due_changes_no_decision(
    rules: list[Automation], stimuli: list[Stimulus], data: st.DataObject
) -> None:
    assume(
        not any('"tumbling"' in each.model_dump_json() and '"proactive"' in each.model_dump_json() for each in rules)
    )
    cut = data.draw(st.integers(1, len(stimuli)))
    until = (stimuli[cut][1] if cut < len(stimuli) else stimuli[-1][1] + 25) * data.draw(st.sampled_from([0, 0.5, 1]))
    end = max(stimuli[cut - 1][1], until)
    whole = run(Evaluator(RuleSet.compile(rules)), [*stimuli[:cut], (None, end), *stimuli[cut:]])
    engine = Evaluator(RuleSet.compile(rules))
    before = run(engine, stimuli[:cut])
    (outcome,) = without_rules(engine, stimuli[cut - 1][1], end)
    assume("lapsed" not in reasons([outcome]))
    assert [*before, (outcome.firings, outcome.decisions), *run(engine, stimuli[cut:])] == whole


@thorough
@given(rule_sets, streams(max_size=16), st.integers(0, 15), st.integers(1, 8))
def test_rules_that_were_away_for_some_events_decide_the_same_after_a_restart_anywhere_in_between(
    rules: list[Automation], stimuli: list[Stimulus], start: int, length: int
) -> None:
    compiled = RuleSet.compile(rules)
    kept: dict[tuple[str, str], bytes] = {}
    here = Evaluator(compiled)
    there = Evaluator(compiled)
    for number, stimulus in enumerate(stimuli):
        now = compiled if not start <= number < start + length else NOTHING
        if now is not here.rules:
            here.replace_rules(now)
        clock_us = there.clock_us
        kept = stored(there, kept)
        there = loaded(now, kept, clock_us)
        assert run(here, [stimulus]) == run(there, [stimulus])
