"""`now` in the conditions of triggers: the stream's time, whoever evaluates, and nothing that the index could look up."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from trigger_samples import START_US, event, rule, run, us

from whenthen.rules import load_rules
from whenthen.rules.explain_event import explain_event
from whenthen.rules.replay import replay
from whenthen.rules.test_runner import load_tests, run_tests
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import from_us
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.matching.clause_tree import Clause, Mark, why_not
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.trees.trigger_compiler import compile_automation

LATE = 'now - event.occurred > duration("1h")'
RULES = f"""
automations:
  - name: late
    trigger: {{expect: a, when: '{LATE}'}}
"""


def fired(trigger: dict[str, object], *stimuli: tuple[object, float]) -> list[float]:
    """The seconds at which a rule fires."""
    rules = RuleSet.compile([rule(trigger)])
    steps = run(Evaluator(rules), list(stimuli))  # type: ignore[arg-type]
    return [second for (_, second), (firings, _) in zip(stimuli, steps, strict=True) if firings]


def test_now_is_the_time_of_the_stream_and_not_that_of_the_event() -> None:
    assert fired(
        {"expect": "a", "when": LATE}, (event("a", 0, received=0), 0), (event("a", 1, received=7200), 7200)
    ) == [7200]


def test_now_is_a_timestamp_to_the_microsecond() -> None:
    when = 'now == timestamp("2026-01-31T08:00:00.000001Z") && now.getHours("Europe/Berlin") == 9'
    assert fired({"expect": "a", "when": when}, (event(), 0.000001), (event(id="other"), 0.000002)) == [0.000001]


def test_now_moves_with_the_clock_while_an_event_is_evaluated_again() -> None:
    rules = RuleSet.compile([rule({"expect": "a", "when": 'now < timestamp("2026-01-31T08:00:10Z")'})])
    evaluator, one = Evaluator(rules), event()
    assert evaluator.process(one, us(9)).firings
    assert not evaluator.process(one, us(10)).firings


def test_an_event_that_waited_in_vain_is_decided_at_the_end_of_its_wait_whenever_the_clock_is_seen_to_move() -> None:
    trigger = {"expect": "a", "when": 'now == timestamp("2026-01-31T08:01:00Z")'}
    for ticks in ([60.0], [60.5], [45.0, 300.0]):
        evaluator = Evaluator(RuleSet.compile([rule(trigger)]), follows_wait=from_us(us(60)) - from_us(us(0)))
        evaluations = [evaluator.process(event(follows="never"), us(0))]
        evaluations += [evaluator.advance(us(tick)) for tick in ticks]
        assert sum(len(found.firings) for found in evaluations) == 1


@pytest.mark.parametrize(
    "when",
    [
        "event.payload.at == now",
        "now == event.payload.at",
        "event.payload.at in [now]",
        'now > timestamp("2026-01-01T00:00:00Z")',
    ],
)
def test_a_clause_with_now_selects_nothing(when: str) -> None:
    condition = compile_automation(rule({"expect": "a", "when": when})).leaves[0].expected
    assert condition is not None
    assert condition.condition is not None
    assert condition.condition.equalities == condition.condition.memberships == ()


def test_the_other_clauses_beside_now_still_select() -> None:
    rules = RuleSet.compile(
        [rule({"expect": "*", "when": f"event.payload.n == {n} && now > event.occurred"}, f"r{n}") for n in range(50)]
    )
    one = event("a", payload={"n": 7})
    assert [rules.entries[found].leaf.automation.name for found in rules.index.candidates(one)] == ["r7"]
    assert rules.entries[7].filter.admits(one, us(1))
    assert not rules.entries[7].filter.admits(one, us(0))


def test_a_replay_has_the_same_times_as_the_stream(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    lines = [
        json.dumps({"tick": "2026-01-31T08:00:00Z"}),
        json.dumps({"event": "a", "occurred": "2026-01-31T08:00:00Z", "resource": {"id": "r"}, "id": "e1"}),
        json.dumps({"tick": "2026-01-31T10:00:00Z"}),
        json.dumps({"event": "a", "occurred": "2026-01-31T08:00:00Z", "resource": {"id": "r"}, "id": "e2"}),
    ]
    for _ in range(2):
        assert [found["event"] for found in replay(load_rules(tmp_path), lines)] == ["e2"]


def test_a_rule_test_has_its_own_clock_and_says_what_now_was(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "story.test.yaml").write_text(
        """
tests:
  - name: late ones only
    start: 2026-01-31T08:00:00Z
    steps:
      - {at: 1h, event: a, occurred: 30m}
      - {at: 3h, event: a, occurred: 30m}
    fires: [{automation: late, step: 1}]
    not_fired: [{automation: late, step: 0, reason: condition_false}]
"""
    )
    report = run_tests(load_rules(tmp_path), load_tests(tmp_path))
    assert report.passed, report.results[0].failures


def clause(tree: Clause, text: str) -> Clause:
    return next(found for _, found in tree.lines() if found.text == text)


def test_an_explanation_shows_the_time_at_which_the_event_was_received(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    stored = {"event": "a", "resource": {"id": "r"}, "occurred": "2026-01-31T08:00:00Z"}
    at = from_us(START_US)
    rules = load_rules(tmp_path)
    tree = explain_event(rules, "late", orjson.dumps({**stored, "received": "2026-01-31T09:30:00Z"}), now=at)
    assert clause(tree, "now").found == 'timestamp("2026-01-31T09:30:00+00:00")'
    assert clause(tree, f"when: {LATE}").mark is Mark.HOLDS
    tree = explain_event(rules, "late", orjson.dumps(stored), now=from_us(us(99_999)))
    assert clause(tree, f"when: {LATE}").mark is Mark.FAILS
    for wrong in ("yesterday", 7):
        with pytest.raises(InvalidInput, match=r"received.*RFC 3339"):
            explain_event(rules, "late", orjson.dumps({**stored, "received": wrong}), now=at)


def test_why_not_is_asked_for_the_time_of_the_decision() -> None:
    automation = compile_automation(rule({"expect": "a", "when": LATE}))
    assert why_not(automation, event("a", 0), now_us=us(7200)) == []
    assert why_not(automation, event("a", 0), now_us=us(60)) == [
        f'when: {LATE} (now - event.occurred is duration("60s"), duration("1h") is duration("3600s"))'
    ]
