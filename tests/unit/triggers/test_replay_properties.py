"""A run that was stored and restored anywhere ends like one that was not; forgetting changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from trigger_samples import Stimulus, evaluator, event, rule, rule_sets, run, streams, us

from tests.examples import up_to
from whenthen.schemas.automations import Automation
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.window_store import WindowStore

thorough = up_to(150)


class Keeping(WindowStore):
    """A store that never forgets."""

    __slots__ = ()

    def collect(self, now_us: int, expiry: Any) -> None:
        return


def stored(engine: Evaluator, kept: dict[tuple[str, str], bytes]) -> None:
    for trigger, key, state in engine.drain():
        if state is None:
            kept.pop((trigger, key), None)
        else:
            kept[(trigger, key)] = state


def restored(rules: RuleSet, kept: dict[tuple[str, str], bytes], clock_us: int, **options: Any) -> Evaluator:
    engine = Evaluator(rules, **options)
    engine.clock_us = clock_us
    for (trigger, key), state in kept.items():
        assert engine.restore(trigger, key, state)
    assert not engine.drop_outlived()
    assert not engine.drain()
    return engine


@thorough
@given(rule_sets, streams(max_size=16))
def test_a_run_that_is_stored_and_restored_at_any_point_ends_like_one_that_is_not(
    rules: list[Automation], stimuli: list[Stimulus]
) -> None:
    compiled, again = RuleSet.compile(rules), RuleSet.compile(rules)
    whole = run(Evaluator(compiled), stimuli)
    for cut in range(1, len(stimuli)):
        before = Evaluator(compiled)
        kept: dict[tuple[str, str], bytes] = {}
        first = run(before, stimuli[:cut])
        stored(before, kept)
        after = restored(again, kept, before.clock_us)
        assert first + run(after, stimuli[cut:]) == whole


@thorough
@given(rule_sets, streams(max_size=24))
def test_a_run_that_is_stored_and_restored_after_every_event_ends_like_one_that_is_not(
    rules: list[Automation], stimuli: list[Stimulus]
) -> None:
    compiled, again = RuleSet.compile(rules), RuleSet.compile(rules)
    whole = run(Evaluator(compiled), stimuli)
    engine = Evaluator(compiled)
    kept: dict[tuple[str, str], bytes] = {}
    pieces = []
    for stimulus in stimuli:
        pieces += run(engine, [stimulus])
        stored(engine, kept)
        engine = restored(again, kept, engine.clock_us)
    assert pieces == whole


@thorough
@given(rule_sets, streams(max_size=12, follows=True))
def test_held_events_survive_a_restart(rules: list[Automation], stimuli: list[Stimulus]) -> None:
    compiled, again = RuleSet.compile(rules), RuleSet.compile(rules)
    wait = timedelta(seconds=4)
    whole = run(Evaluator(compiled, follows_wait=wait), stimuli)
    for cut in range(1, len(stimuli)):
        before = Evaluator(compiled, follows_wait=wait)
        kept: dict[tuple[str, str], bytes] = {}
        first = run(before, stimuli[:cut])
        stored(before, kept)
        after = restored(again, kept, before.clock_us, follows_wait=wait)
        held = {key for trigger, key in kept if trigger == "held"}
        for each, _ in stimuli[:cut]:
            if each is not None and each.id not in held:
                after.remember(each.id)
        assert first + run(after, stimuli[cut:]) == whole


@thorough
@given(rule_sets, streams(max_size=30), st.sampled_from([1, 20]))
def test_forgetting_old_windows_changes_no_decision(
    rules: list[Automation], stimuli: list[Stimulus], pace: int
) -> None:
    compiled = RuleSet.compile(rules)
    stimuli = [
        (each if each is None else event_later(each, clock * (pace - 1)), clock * pace) for each, clock in stimuli
    ]
    keeping = Evaluator(compiled)
    keeping._store = Keeping()
    assert run(Evaluator(compiled), stimuli) == run(keeping, stimuli)


def event_later(each: Any, seconds: float) -> Any:
    at = (each.time_us - us(0)) / 1e6
    return event(
        each.name,
        at + seconds,
        id=each.id,
        labels={label: value for label, value in each.resource.items() if label != "id"},
        payload=each.payload,
        seq=each.seq,
    )


@thorough
@given(rule_sets, streams(max_size=24))
def test_the_same_events_give_the_same_firings_and_no_two_firings_share_an_id(
    rules: list[Automation], stimuli: list[Stimulus]
) -> None:
    compiled, again = RuleSet.compile(rules), RuleSet.compile(rules)
    first = run(Evaluator(compiled), stimuli)
    assert run(Evaluator(again), stimuli) == first
    ids = [firing.id for firings, _ in first for firing in firings]
    assert len(ids) == len(set(ids))


@thorough
@given(rule_sets, streams(max_size=20))
def test_other_rules_change_nothing(rules: list[Automation], stimuli: list[Stimulus]) -> None:
    together = [firing for firings, _ in run(Evaluator(RuleSet.compile(rules)), stimuli) for firing in firings]
    for automation in rules:
        alone = [f for firings, _ in run(Evaluator(RuleSet.compile([automation])), stimuli) for f in firings]
        assert alone == [firing for firing in together if firing.automation == automation.name]


@thorough
@given(rule_sets, streams(max_size=20))
def test_decisions_are_counted_alike_whether_they_are_recorded_or_not(
    rules: list[Automation], stimuli: list[Stimulus]
) -> None:
    compiled = RuleSet.compile(rules)
    recording = Evaluator(compiled)
    silent = Evaluator(compiled, record=False)
    firings = [found for found, _ in run(recording, stimuli)]
    quiet = run(silent, stimuli)
    assert firings == [found for found, _ in quiet]
    assert not any(decisions for _, decisions in quiet)
    assert recording.counts == silent.counts


@thorough
@given(rule_sets, streams(max_size=20))
def test_the_clock_never_goes_back(rules: list[Automation], stimuli: list[Stimulus]) -> None:
    engine = Evaluator(RuleSet.compile(rules))
    clocks = []
    for each, clock in stimuli:
        engine.process(each, us(clock)) if each is not None else engine.advance(us(clock))
        engine.advance(us(clock - 60))
        clocks.append(engine.clock_us)
    assert clocks == [us(clock) for _, clock in stimuli]


def test_deadlines_that_moved_back_fire_in_the_order_of_their_windows() -> None:
    beat = {"posture": "proactive", "after": "begin", "within": 10, "for_each": "k"}
    engine = evaluator(rule({"expect": "beat", **beat, "after": ["begin", "beat"]}))
    run(engine, [(event("begin", 0, labels={"k": "slow"}), 0), (event("begin", 3, labels={"k": "fast"}), 3)])
    run(engine, [(event("beat", 5, labels={"k": "slow"}), 5)])
    firings = engine.advance(us(60)).firings
    assert [firing.key["k"] for firing in firings] == ["fast", "slow"]
