"""Every reason of a decision, what the edges of states do, and what survives an edit of the rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from trigger_samples import evaluator, event, reasons, rule, run, take, us

from whenthen.engine.bus.records import decode_firing, encode_firing
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Reason
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

METRIC = {"type": "metric", "expect": "a", "aggregate": "sum", "value": "$.payload.n", "operator": ">", "within": 10}

#: reason: trigger, events, and how the last decision explains itself
CASES: dict[str, tuple[dict[str, Any], list[Event], str]] = {
    "fired": ({"expect": "a"}, [event("a", 0)], ""),
    "label_mismatch": (
        {"expect": "a", "match": {"k": "x"}, "when": "true"},
        [event("a", 0, labels={"k": "y"})],
        'match.k: "y" is not "x"',
    ),
    "condition_false": (
        {"expect": "a", "when": "event.payload.n > 3"},
        [event("a", 0, payload={"n": 2})],
        "when: event.payload.n > 3 is false",
    ),
    "condition_error": ({"expect": "a", "when": "event.payload.n > 3"}, [event("a", 0)], "when: "),
    "missing_key": ({"expect": "a", "for_each": "k"}, [event("a", 0)], "for_each: the event has no k"),
    "below_threshold": ({"expect": "a", "threshold": 2, "within": 5}, [event("a", 0)], "1 of 2 within 5 s"),
    "cooldown": ({"expect": "a", "within": 5}, [event("a", 0), event("a", 2)], "quiet for another 3 s after a firing"),
    "spent": (
        {"expect": "a", "threshold": 2, "within": 5, "cooldown": 0},
        [event("a", 0), event("a", 1), event("a", 2)],
        "1 of 2 within 5 s, earlier ones were spent by a firing",
    ),
    "waiting_for_after": ({"expect": "a", "after": "b", "within": 5}, [event("a", 0)], "no `after` event"),
    "waiting_for_sibling": (
        {"type": "compound", "triggers": [{"expect": "a"}, {"expect": "b"}]},
        [event("a", 0)],
        "1 of 2 parts fired; waits for triggers[1]",
    ),
    "collecting": ({"expect": "a", "collect": {"events": 3}}, [event("a", 0)], "1 of 3 gathered"),
    "expected": ({"expect": "a", "posture": "proactive", "within": 5}, [event("a", 0)], "1 of 1 came within 5 s"),
    "opened": ({"expect": "a", "after": "b", "within": 5}, [event("b", 0)], "opened a window"),
    "resolved": ({"expect": "a", "resolve_on": "b"}, [event("a", 0), event("b", 1)], "resolve_on"),
    "late": (
        {"expect": "a", "threshold": 2, "within": 5},
        [event("a", 20), event("a", 15, received=21)],
        "5 s older than the newest event of its key",
    ),
    "paused": (
        {"expect": "a"},
        [event("a", 0)],
        "the automation is paused or disabled",
    ),
    "held_for_predecessor": ({"expect": "a"}, [event("a", 0, follows="first")], "waits for event first"),
    "lapsed": (
        {"expect": "x", "after": "a", "posture": "proactive", "within": 5},
        [event("a", 0)],
        "its end fell into a time without the rule",
    ),
    "loop": ({"expect": "a"}, [event("a", 0, depth=8)], "8 firings led to it; max_depth is 8"),
}


def test_every_reason_has_a_case() -> None:
    assert set(CASES) == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", CASES)
def test_the_last_decision_names_the_reason_and_the_value(reason: str) -> None:
    trigger, events, detail = CASES[reason]
    engine = evaluator(trigger, follows_wait=timedelta(seconds=5))
    if reason == "paused":
        engine.paused.add("rule0")
    outcomes = take(engine, *events)
    if reason == "lapsed":
        rules = engine.rules
        for in_force, at in ((RuleSet.compile([]), 1), (rules, 5)):
            engine.replace_rules(in_force)
            outcomes = [engine.advance(us(at))]
    decision = outcomes[-1].decisions[-1]
    assert decision.reason == reason
    assert detail in decision.detail
    assert decision.automation == "rule0"
    assert decision.event == (None if reason == "lapsed" else events[-1].id)
    assert engine.counts["rule0", Reason(reason)] >= 1


def test_a_name_that_does_not_match_is_no_decision() -> None:
    assert reasons(take(evaluator({"expect": "a"}), event("b", 0))) == []


# -- loops


def test_an_event_that_too_many_firings_led_to_is_stopped_and_told() -> None:
    engine = evaluator({"expect": "a"}, max_depth=3)
    followed, stopped = take(engine, event("a", 0, depth=2), event("a", 1, depth=3))
    assert followed.firings[0].depth == 3
    assert followed.firings[0].automations == ("other", "rule0")
    assert not stopped.firings
    assert [(each.automation, each.depth) for each in stopped.stopped] == [("rule0", 3)]


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": "a", "collect": {"events": 5, "wait": 2}},
        {**METRIC, "threshold": 1, "for": 2},
        {"expect": "b", "after": "a", "posture": "proactive", "within": 2},
    ],
)
def test_a_firing_by_the_clock_carries_the_lineage_of_its_events(trigger: dict[str, Any]) -> None:
    shallow = evaluator(trigger)
    take(shallow, event("a", 0, payload={"n": 5}, depth=3))
    assert [firing.depth for firing in shallow.advance(us(5)).firings] == [4]
    deep = evaluator(trigger)
    take(deep, event("a", 0, payload={"n": 5}, depth=8))
    outcome = deep.advance(us(5))
    assert not outcome.firings
    assert "loop" in reasons([outcome])


def test_a_composite_is_as_deep_as_its_deepest_part() -> None:
    engine = evaluator({"type": "compound", "triggers": [{"expect": "a"}, {"expect": "b"}]})
    outcome = take(engine, event("a", 0, depth=5), event("b", 1))[-1]
    assert [firing.depth for firing in outcome.firings] == [6]


# -- paused


def test_what_comes_while_an_automation_is_paused_does_not_count_and_what_is_due_does_not_fire() -> None:
    engine = evaluator(
        {"expect": "a", "threshold": 2, "within": 60}, {"expect": "a", "posture": "proactive", "within": 5}
    )
    engine.advance(us(0))
    engine.paused |= {"rule0", "rule1"}
    assert set(reasons(take(engine, event("a", 1), event("a", 2)))) == {"paused"}
    assert reasons([engine.advance(us(6))]) == ["paused"]
    engine.paused.clear()
    assert not [f for outcome in take(engine, event("a", 7)) for f in outcome.firings]
    assert len(engine.advance(us(60)).firings) == 1


@pytest.mark.parametrize("at_once", [False, True], ids=["followed", "from-a-backlog"])
def test_a_pause_ends_by_the_time_of_the_events_whenever_they_are_evaluated(at_once: bool) -> None:
    engine = evaluator({"expect": "a"}, {"expect": "a", "posture": "proactive", "within": 5})
    engine.advance(us(0))
    engine.paused |= {"rule0", "rule1"}
    engine.pauses_end = {"rule0": us(8), "rule1": us(8)}
    moments = [7.9, 8, 12]
    if not at_once:
        for moment in range(1, 8):
            engine.advance(us(moment))
    outcomes = [decided for moment in moments for decided in take(engine, event("a", moment))]
    fired = {firing.automation for outcome in outcomes for firing in outcome.firings if firing.automation == "rule0"}
    first, second, third = ([each for each in outcome.decisions if each.automation == "rule0"] for outcome in outcomes)
    assert [each.reason for each in first] == ["paused"]
    assert [each.reason for each in second + third] == ["fired", "fired"]
    assert fired == {"rule0"}


def test_a_disabled_automation_is_paused() -> None:
    engine = evaluator(rule({"expect": "a"}, enabled=False))
    assert reasons(take(engine, event("a", 0))) == ["paused"]


# -- resolving


def test_only_the_first_firing_and_the_resolution_are_edges() -> None:
    engine = evaluator({"expect": "a", "resolve_on": "b", "for_each": "k"})
    labels = {"k": "x"}
    outcomes = take(engine, *(event(name, at, labels=labels) for at, name in enumerate("aabba")))
    states = [[(firing.state.value, firing.edge) for firing in outcome.firings] for outcome in outcomes]
    assert states == [[("Triggered", True)], [("Triggered", False)], [("Resolved", True)], [], [("Triggered", True)]]


def test_an_event_of_another_key_resolves_nothing() -> None:
    engine = evaluator({"expect": "a", "resolve_on": "b", "for_each": "k"})
    take(engine, event("a", 0, labels={"k": "x"}))
    assert not take(engine, event("b", 1, labels={"k": "y"}))[0].firings


def test_a_metric_resolves_once_and_says_so_once() -> None:
    engine = evaluator({**METRIC, "threshold": 3})
    take(engine, event("a", 0, payload={"n": 5}))
    outcome = engine.advance(us(30))
    assert [firing.state.value for firing in outcome.firings] == ["Resolved"]
    assert reasons([outcome]) == ["resolved"]


def test_an_absence_is_resolved_by_what_was_missed() -> None:
    engine = evaluator(
        rule({"expect": "a", "posture": "proactive", "within": 5}, actions_on_resolve=[{"type": "do-nothing"}])
    )
    engine.advance(us(0))
    assert [firing.state.value for firing in engine.advance(us(5)).firings] == ["Triggered"]
    assert [firing.state.value for firing in take(engine, event("a", 6))[0].firings] == ["Resolved"]


# -- times


def test_a_producer_whose_clock_runs_ahead_does_not_push_its_window_into_the_future() -> None:
    engine = evaluator({"expect": "a", "within": 10})
    ahead = event("a", 3600, received=0)
    assert take(engine, ahead)[0].firings[0].at == ahead.data["received"]
    assert take(engine, event("a", 10))[0].firings


def test_a_heartbeat_from_the_past_does_not_end_the_window_in_the_past() -> None:
    engine = evaluator({"expect": "beat", "posture": "proactive", "within": 10})
    engine.advance(us(1000))
    (outcome,) = take(engine, event("beat", 5, received=1001))
    assert reasons([outcome]) == ["late"]
    assert not engine.advance(us(1009)).firings
    assert len(engine.advance(us(1010)).firings) == 1


def test_an_absence_does_not_fire_again_before_its_cooldown_is_over() -> None:
    engine = evaluator({"expect": "beat", "posture": "proactive", "within": 10, "cooldown": 60})
    engine.advance(us(0))
    assert len(engine.advance(us(10)).firings) == 1
    take(engine, event("beat", 12))
    assert not engine.advance(us(69)).firings
    assert len(engine.advance(us(70)).firings) == 1


def test_a_window_that_fired_is_not_opened_again_by_an_event_of_the_same_time() -> None:
    engine = evaluator({"expect": "a", "after": "b", "posture": "proactive", "within": 5})
    take(engine, event("b", 0, id="first"))
    assert len(engine.advance(us(5)).firings) == 1
    assert reasons(take(engine, event("b", 0, id="second", received=6))) == ["cooldown"]
    assert not engine.advance(us(60)).firings


def test_events_of_two_after_windows_do_not_count_together_in_either_order() -> None:
    trigger = {"expect": "a", "after": "b", "threshold": 2, "within": 10}
    opened = [event("b", 0), event("b", 8)]
    in_order = take(evaluator(trigger), *opened, event("a", 9), event("a", 12))
    assert in_order[-1].firings
    for times in ((5, 12), (12, 5)):
        engine = evaluator(trigger)
        take(engine, *opened)
        assert not [f for o in take(engine, *(event("a", at, received=13) for at in times)) for f in o.firings]


def test_a_redelivered_event_does_not_count_twice() -> None:
    for trigger in (
        {"expect": "a", "threshold": 2, "within": 5},
        {"expect": "a", "collect": {"events": 2}},
        {**METRIC, "threshold": 7},
        {"expect": "a", "posture": "proactive", "threshold": 2, "within": 5},
    ):
        engine = evaluator(trigger)
        outcomes = take(engine, *[event("a", 1, payload={"n": 5})] * 2)
        assert not [firing for outcome in outcomes for firing in outcome.firings]
        assert reasons(outcomes)[-1] == "spent"


@pytest.mark.parametrize("value", ["text", True, None, [1], {}, 10**400, -(10**400)])
def test_a_metric_over_what_is_no_number_says_so(value: Any) -> None:
    (outcome,) = take(evaluator({**METRIC, "threshold": 1}), event("a", 0, payload={"n": value}))
    assert [decision.reason for decision in outcome.decisions] == ["condition_error"]
    assert "not a number" in outcome.decisions[0].detail


def test_a_sum_that_no_number_can_hold_is_infinite() -> None:
    for aggregate in ("sum", "avg"):
        engine = evaluator({**METRIC, "aggregate": aggregate, "threshold": 1e308})
        events = [event("a", at, payload={"n": 1.7e308}) for at in (0, 1)]
        assert [firing for outcome in take(engine, *events) for firing in outcome.firings]
        assert engine.drain()


def test_a_metric_over_whole_numbers_past_64_bits_can_be_stored() -> None:
    engine = evaluator({**METRIC, "threshold": 1})
    take(engine, event("a", 0, payload={"n": 2**70}))
    assert engine.drain()


# -- order


def test_a_follower_is_decided_right_after_its_predecessor() -> None:
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    held, led = take(engine, event("b", 2, follows="a@1"), event("a", 1, received=3))
    assert reasons([held]) == ["held_for_predecessor"]
    assert [firing.event["id"] for firing in led.firings if firing.event] == ["a@1", "b@2"]


def test_a_follower_whose_predecessor_does_not_come_is_released_in_time() -> None:
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    take(engine, event("b", 2, follows="never"))
    assert not engine.advance(us(61)).firings
    assert len(engine.advance(us(62)).firings) == 1
    assert not engine.advance(us(500)).firings


def test_a_follower_of_an_event_that_was_seen_is_not_held() -> None:
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    assert len([f for o in take(engine, event("a", 1), event("b", 2, follows="a@1")) for f in o.firings]) == 2


def test_events_that_are_held_are_bounded_in_bytes_and_what_comes_beyond_is_decided_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whenthen.triggers.predecessors.MAX_HELD_BYTES", 10_000)
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    large = [event("b", n, id=f"b{n}", follows=f"a{n}", payload="x" * 3_000) for n in range(5)]
    assert reasons(take(engine, *large)) == ["held_for_predecessor"] * 3 + ["fired"] * 2
    # what is released makes room, whether its predecessor came or not
    take(engine, event("a", 6, id="a0"))
    assert reasons(take(engine, event("b", 7, id="b7", follows="a7", payload="x" * 3_000))) == ["held_for_predecessor"]
    engine.advance(us(100))
    assert reasons(take(engine, event("b", 101, id="b101", follows="a101", payload="x" * 9_000))) == [
        "held_for_predecessor"
    ]


def test_events_that_are_held_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whenthen.triggers.predecessors.MAX_HELD", 2)
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    many = [event("b", n, id=f"b{n}", follows=f"a{n}") for n in range(3)]
    assert reasons(take(engine, *many)) == ["held_for_predecessor"] * 2 + ["fired"]


def test_the_bound_of_held_events_counts_those_that_were_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whenthen.triggers.predecessors.MAX_HELD_BYTES", 10_000)
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(seconds=60))
    take(engine, *(event("b", n, id=f"b{n}", follows=f"a{n}", payload="x" * 3_000) for n in range(3)))
    restarted = Evaluator(engine.rules, follows_wait=timedelta(seconds=60))
    for trigger, key, state in engine.drain():
        assert state is not None
        restarted.restore(trigger, key, state)
    assert reasons(take(restarted, event("b", 4, id="b4", follows="a4", payload="x" * 3_000))) == ["fired"]


def test_a_long_chain_of_followers_in_reverse_order_is_decided_in_order() -> None:
    engine = evaluator({"expect": "*"}, follows_wait=timedelta(hours=1))
    chain = [event("a", number, id=f"e{number}", follows=f"e{number - 1}", received=5000) for number in range(1, 3000)]
    take(engine, *reversed(chain))
    (outcome,) = take(engine, event("a", 0, id="e0", received=5000))
    assert [firing.event["id"] for firing in outcome.firings if firing.event] == [
        f"e{number}" for number in range(3000)
    ]


# -- editing


def test_windows_of_triggers_that_mean_the_same_stay_and_others_are_kept_apart() -> None:
    trigger = {"expect": "a", "threshold": 2, "within": 60}
    kept, changed, removed = (rule(trigger, name) for name in ("kept", "changed", "removed"))
    engine = Evaluator(RuleSet.compile([kept, changed, removed]))
    take(engine, event("a", 0))
    engine.drain()
    described = rule(trigger, "kept", description="new words", actions=[{"type": "do-nothing"}])
    engine.replace_rules(RuleSet.compile([described, rule({**trigger, "within": 61}, "changed"), rule(trigger, "new")]))
    assert engine.drain() == []
    assert sorted(engine.orphans.ids()) == sorted(RuleSet.compile([changed, removed]).nodes)
    (outcome,) = take(engine, event("a", 1))
    assert [firing.automation for firing in outcome.firings] == ["kept"]


def test_a_new_absence_is_watched_from_the_moment_it_is_there() -> None:
    engine = evaluator({"expect": "x"})
    engine.advance(us(100))
    engine.replace_rules(RuleSet.compile([rule({"expect": "a", "posture": "proactive", "within": 5})]))
    assert engine.next_deadline_us() == 0
    assert not engine.advance(us(103)).firings
    assert engine.next_deadline_us() == us(108)
    assert len(engine.advance(us(108)).firings) == 1


def test_a_window_of_a_rule_that_is_gone_is_kept() -> None:
    engine = evaluator({"expect": "a"})
    assert engine.restore("0123456789abcdef", "k", b"[1,0,0,0]")
    assert engine.orphans.ids() == ["0123456789abcdef"]


# -- the store


def test_a_window_that_was_closed_is_forgotten_in_time() -> None:
    engine = evaluator({"expect": "a", "after": "b", "posture": "proactive", "within": 5, "for_each": "k"})
    run(engine, [(event(name, at, labels={"k": "x"}), at) for name, at in (("b", 0), ("a", 1))])
    engine.drain()
    engine.advance(us(10_000))
    engine.advance(us(20_000))
    assert [state for _, _, state in engine.drain()] == [None]


def test_an_event_in_the_quiet_time_writes_nothing() -> None:
    engine = evaluator({"expect": "a", "within": 60})
    take(engine, event("a", 0))
    assert len(engine.drain()) == 1
    take(engine, event("a", 1))
    assert engine.drain() == []


def test_checks_that_rest_without_a_bucket_rest_after_a_restart_too() -> None:
    trigger = {"expect": "a", "for_each": "k", "posture": "proactive", "within": 60, "window": "tumbling"}
    whole = evaluator(trigger)
    run(whole, [(None, 0), (None, 30)])
    again = evaluator(trigger)
    for stored, key, state in whole.drain():
        assert state is not None
        assert again.restore(stored, key, state)
    assert again.next_deadline_us() == whole.next_deadline_us()


def test_a_firing_has_the_trace_of_its_event_and_otherwise_one_of_its_own() -> None:
    trace = {"id": "1" * 32, "parent": "2" * 16, "flags": "01"}
    first, second = event("a", 1), event("a", 2)
    first.data["trace"] = trace
    with_one, without = (
        evaluation.firings[0] for evaluation in take(evaluator({"type": "event", "expect": "a"}), first, second)
    )
    assert with_one.trace == with_one.current_trace == trace
    assert (without.trace, without.current_trace["id"]) == (None, without.id)
    for firing, data in ((with_one, first.encode()), (without, second.encode())):
        again, _ = decode_firing(orjson.loads(orjson.dumps(encode_firing(firing, data))))
        assert again == firing
    assert b"trace" not in orjson.dumps(encode_firing(without, second.encode()))
