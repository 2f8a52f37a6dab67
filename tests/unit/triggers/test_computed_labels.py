"""Computed labels: what `let` gives an event, where it is seen, when it has no value, and that the index never selects by it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from trigger_samples import START_US, Stimulus, event, rule, run, us

from whenthen.engine.bus.records import decode_firing, encode_firing
from whenthen.rules import load_rules
from whenthen.rules.replay import replay
from whenthen.rules.test_runner import load_tests, run_tests
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.firings import Decision, Firing
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.matching.clause_tree import Mark, explain_automation, why_not
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.trees.trigger_compiler import compile_automation, trigger_id

FOLDER = {"folder": 'event.resource.key.split("/")[0]'}


def decided(trigger: dict[str, Any], *stimuli: Stimulus) -> tuple[list[Firing], list[Decision]]:
    steps = run(Evaluator(RuleSet.compile([rule(trigger)])), stimuli)
    return [found for firings, _ in steps for found in firings], [each for _, made in steps for each in made]


def test_a_computed_label_hides_the_events_own_for_this_trigger_alone() -> None:
    hiding = {"expect": "a", "let": {"k": '"computed"'}, "match": {"k": "computed"}, "for_each": "k"}
    rules = RuleSet.compile([rule(hiding, "hiding"), rule({"expect": "a", "for_each": "k"}, "plain")])
    one = event(labels={"k": "own"})
    firings = Evaluator(rules).process(one, us(0)).firings
    assert {firing.automation: firing.key for firing in firings} == {"hiding": {"k": "computed"}, "plain": {"k": "own"}}
    assert one.resource == {"id": "r", "k": "own"}
    assert [firing.event for firing in firings] == [one.data, one.data]
    assert {firing.automation: firing.seen_event["resource"]["k"] for firing in firings if firing.seen_event} == {
        "hiding": "computed",
        "plain": "own",
    }


def test_what_labels_mean_does_not_depend_on_the_order_in_which_they_are_written() -> None:
    lets = {
        "a": "event.resource.b + event.resource.c",
        "b": 'event.resource["c"] + "b"',
        "c": "event.resource.c + event.resource.k",
    }
    found = set()
    ids = set()
    for order in itertools.permutations(lets.items()):
        trigger = {"expect": "a", "let": dict(order), "for_each": ["a", "b", "c"]}
        (firing,), _ = decided(trigger, (event(labels={"c": "<", "k": ">"}), 0))
        found.add(json.dumps(firing.key))
        ids.add(trigger_id(rule(trigger)))
    assert found == {json.dumps({"a": "<>b<>", "b": "<>b", "c": "<>"})}
    assert len(ids) == 1


def test_an_expression_sees_no_computed_label_that_it_does_not_name() -> None:
    trigger = {
        "expect": "a",
        "let": {"k": '"computed"', "own": 'event.resource.map(l, l).join(",")'},
        "for_each": "own",
    }
    (firing,), _ = decided(trigger, (event(), 0))
    assert firing.key == {"own": "id"}


@pytest.mark.parametrize(
    ("expression", "payload", "label"),
    [
        ("event.payload.n", {"n": 3}, "3"),
        ("event.payload.n", {"n": 1.5}, "1.5"),
        ("event.payload.n", {"n": False}, "false"),
        ("uint(event.payload.n)", {"n": 7}, "7"),
        ("event.payload.n", {"n": ""}, ""),
        ("string(event.occurred)", {}, "2026-01-31T08:00:00Z"),
        ("now.getHours()", {}, "8"),
    ],
)
def test_a_value_becomes_the_text_that_json_has_for_it(expression: str, payload: Any, label: str) -> None:
    (firing,), _ = decided({"expect": "a", "let": {"x": expression}, "for_each": "x"}, (event(payload=payload), 0))
    assert firing.key == {"x": label}
    assert firing.computed == {"x": label}


@pytest.mark.parametrize(
    ("expression", "payload", "detail"),
    [
        ("event.payload.n", {}, "no such field: 'n'"),
        ("event.payload.n", {"n": None}, "null is no text, number or boolean; name one value of it"),
        ("event.payload.n", {"n": [1]}, "[1] is no text, number or boolean; name one value of it"),
        ("event.payload.?n", {"n": 1}, "write .orValue(...)"),
        ("event.occurred", {}, "write string(...)"),
        ("event.payload.n", {"n": "a\nb"}, "control characters"),
        ("event.payload.n", {"n": "x" * 4097}, "4097 characters; a label has at most 4096"),
        (
            "event.payload.n.all(a, event.payload.n.all(b, event.payload.n.all(c, true)))",
            {"n": [1] * 300},
            "cost limit",
        ),
    ],
)
def test_a_label_without_a_value_is_a_decision_that_names_it(expression: str, payload: Any, detail: str) -> None:
    trigger = {"expect": "a", "let": {"x": expression}}
    firings, (decision,) = decided(trigger, (event(payload=payload), 0))
    assert not firings
    assert decision.reason == "condition_error"
    assert decision.detail.startswith("let.x: ")
    assert detail in decision.detail


def test_a_label_is_not_computed_for_an_event_that_does_not_match_by_its_own() -> None:
    trigger = {"expect": "a", "match": {"k": "x"}, "let": {"n": "event.payload.n"}}
    _, decisions = decided(trigger, (event(labels={"k": "y"}), 0), (event(labels={"k": "x"}, id="2"), 1))
    assert [each.reason.value for each in decisions] == ["label_mismatch", "condition_error"]


@pytest.mark.parametrize("kind", ["after", "resolve_on"])
def test_an_event_of_after_or_resolve_on_without_the_label_leaves_a_decision(kind: str) -> None:
    trigger: dict[str, Any] = {"expect": "a", "let": {"n": "event.payload.n"}, "for_each": "n", kind: "b"}
    trigger |= {"within": 10} if kind == "after" else {}
    _, decisions = decided(trigger, (event("b"), 0), (event("b", payload={"n": 1}, id="2"), 1))
    assert (decisions[0].reason, decisions[0].detail[: len(kind) + 7]) == ("condition_error", f"{kind}: let.n")
    assert [each.reason.value for each in decisions[1:]] == (["opened"] if kind == "after" else [])


def test_resolve_on_may_compute_the_key_in_another_way() -> None:
    trigger = {
        "expect": "failed",
        "let": {"job": "event.payload.job"},
        "for_each": "job",
        "resolve_on": {"expect": "ok", "let": {"job": 'event.resource.id.replace("job-", "")'}},
    }
    failed = event("failed", payload={"job": "7"})
    other, same = event("ok", 1), event("ok", 2)
    other.data["resource"] = {"id": "job-8"}
    same.data["resource"] = {"id": "job-7"}
    firings, _ = decided(trigger, (failed, 0), (other, 1), (same, 2))
    assert [(firing.state.value, firing.key) for firing in firings] == [
        ("Triggered", {"job": "7"}),
        ("Resolved", {"job": "7"}),
    ]


def test_a_composite_computes_for_its_parts_and_a_part_for_itself() -> None:
    trigger = {
        "type": "compound",
        "correlate": "order",
        "let": {"order": "event.payload.order"},
        "triggers": [{"expect": "a"}, {"expect": "b", "let": {"order": "event.resource.k"}}],
    }
    first, second = event("a", payload={"order": 17}), event("b", 1, labels={"k": "17"})
    (firing,), _ = decided(trigger, (first, 0), (second, 1))
    assert firing.key == {"order": "17"}
    assert firing.computed == {"order": "17"}


def test_the_index_never_selects_by_a_label_that_is_hidden() -> None:
    for trigger in (
        {"expect": "*", "let": {"k": '"x"'}, "match": {"k": "x"}},
        {"expect": "*", "let": {"k": '"x"'}, "when": 'event.resource.k == "x"'},
        {"expect": "*", "let": {"k": '"x"'}, "when": 'event.resource["k"] in ["x", "y"]'},
    ):
        rules = RuleSet.compile([rule(trigger)])
        assert rules.index.candidates(event(labels={"k": "other"})) == [0]
        assert len(Evaluator(rules).process(event(labels={"k": "other"}), us(0)).firings) == 1


def test_other_tests_still_select_beside_a_computed_label() -> None:
    triggers = [{"expect": "*", "let": FOLDER, "match": {"k": f"own-{n}", "folder": "in"}} for n in range(50)]
    rules = RuleSet.compile([rule(each, f"r{number}") for number, each in enumerate(triggers)])
    assert rules.index.candidates(event(labels={"k": "own-7", "key": "in/a"})) == [7]


def test_a_trigger_without_computed_labels_keeps_its_windows() -> None:
    assert "let" not in json.dumps(rule({"expect": "a"}).trigger.model_dump(mode="json", by_alias=True))
    composite = {"type": "compound", "triggers": [{"expect": "a"}]}
    assert "let" not in json.dumps(rule(composite).trigger.model_dump(mode="json", by_alias=True))
    assert trigger_id(rule({"expect": "a", "let": FOLDER})) != trigger_id(rule({"expect": "a"}))


@pytest.mark.parametrize(
    ("lets", "path", "detail"),
    [
        ({"a": "event.resource.b", "b": "event.resource.a"}, ("let", "a"), "a -> b -> a"),
        ({"a": "event.resource.b", "b": 'event.resource["a"]'}, ("let", "a"), "a -> b -> a"),
        ({"a": "foo +"}, ("let", "a"), "expected a value"),
        ({"a": "evnt.id"}, ("let", "a"), "unknown variable"),
        ({"a": "range(event.payload.n)"}, ("let", "a"), "unknown function"),
    ],
)
def test_what_can_not_be_computed_is_refused_where_it_is_written(
    lets: dict[str, str], path: tuple[str, ...], detail: str
) -> None:
    with pytest.raises(InvalidInput, match=detail) as refused:
        compile_automation(rule({"expect": "a", "let": lets}))
    assert refused.value.path == ("trigger", *path)


def test_labels_of_composites_count_towards_the_most() -> None:
    inner = {"expect": "a", "let": {f"i{n}": "1" for n in range(9)}}
    outer = {"type": "compound", "triggers": [inner], "let": {f"o{n}": "1" for n in range(8)}}
    with pytest.raises(InvalidInput, match=r"17 computed labels.*at most 16"):
        compile_automation(rule(outer))


def test_a_bucket_remembers_what_was_computed() -> None:
    trigger = {
        "expect": "done",
        "after": "began",
        "posture": "proactive",
        "window": "tumbling",
        "within": 10,
        "let": {"at": "now.getSeconds()", "k": "event.resource.k"},
        "for_each": "k",
    }
    rules = RuleSet.compile([rule(trigger)])
    one = event("began", labels={"k": "x"})
    evaluator = Evaluator(rules)
    evaluator.process(one, us(0))
    again = Evaluator(rules)
    again.clock_us = evaluator.clock_us
    for window, key, state in evaluator.drain():
        assert state is not None
        assert again.restore(window, key, state)
    (firing,) = again.advance(us(30)).firings
    assert firing.event == one.data
    assert firing.computed == {"at": "0", "k": "x"}


def test_a_stored_firing_has_the_event_as_it_came_and_the_labels_beside_it() -> None:
    (firing,), _ = decided({"expect": "a", "let": {"k": '"computed"'}}, (event(labels={"k": "own"}), 0))
    data = orjson.loads(orjson.dumps(encode_firing(firing, orjson.dumps(firing.event))))
    assert data["event"]["resource"]["k"] == "own"
    assert data["computed"] == {"k": "computed"}
    again, _ = decode_firing(data)
    assert again.seen_event == firing.seen_event
    plain, _ = decided({"expect": "a"}, (event(), 0))
    assert "computed" not in orjson.loads(orjson.dumps(encode_firing(plain[0], b"{}")))


def test_an_explanation_shows_each_label_and_what_it_was_computed_of() -> None:
    automation = compile_automation(
        rule({"expect": "a", "let": FOLDER, "match": {"folder": "in"}, "when": 'event.resource.folder != "out"'})
    )
    tree = explain_automation(automation, event(labels={"key": "out/a"}), now_us=START_US)
    found = {clause.text: (clause.mark, clause.found) for _, clause in tree.lines()}
    assert found['let.folder: event.resource.key.split("/")[0]'] == (Mark.HOLDS, "out")
    assert found["match.folder: in"] == (Mark.FAILS, "out")
    assert found['when: event.resource.folder != "out"'][0] is Mark.FAILS
    assert why_not(automation, event(), now_us=START_US) == [
        "let.folder: event.resource.key.split(\"/\")[0], found no such field: 'key'"
    ]


RULES = """
automations:
  - name: folders
    trigger:
      expect: up
      let: {folder: "event.resource.key.split('/')[0]"}
      for_each: folder
    actions:
      - emit-event: "seen.{{ event.resource.folder }}"
        resource: {id: $.resource.folder}
        payload: {key: "{{ key.folder }}", last: "{{ events[0].resource.folder }}"}
"""


def test_actions_templates_see_the_label_as_conditions_do(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "a.test.yaml").write_text("""
tests:
  - name: folders
    steps: [{at: 0s, event: up, resource: {id: r, key: in/a, folder: own}}, {at: 1s, event: up}]
    fires:
      - automation: folders
        key: {folder: in}
        actions: [{event: seen.in, resource: {id: in}, payload: {key: in, last: in}}]
    not_fired: [{automation: folders, step: 1, reason: condition_error}]
""")
    report = run_tests(load_rules(tmp_path), load_tests(tmp_path))
    assert report.passed, report.results[0].failures


def test_a_replay_computes_the_same(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    line = {"event": "up", "occurred": "2026-01-31T08:00:00Z", "resource": {"id": "r", "key": "in/a"}, "id": "e1"}
    (found,) = replay(load_rules(tmp_path), [json.dumps(line)])
    assert found["key"] == {"folder": "in"}
