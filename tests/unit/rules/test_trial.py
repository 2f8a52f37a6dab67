"""Rules that are tried: what fires, why not, and what is told of what can not be tried."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest

from whenthen.rules.following.trial import MOST_STEPS, try_rules
from whenthen.ui import rule_texts

RULES = """
- name: big
  trigger: {expect: order.paid, when: event.payload.total > 100, for_each: customer, threshold: 2, within: 1h}
  actions: [{run-deployment: load}]
"""
STEPS = """
- {event: order.paid, resource: {id: a, customer: ada}, payload: {total: 5}}
- {at: 1m, event: order.paid, resource: {id: b, customer: ada}, payload: {total: 500}}
- {at: 2m, event: order.paid, resource: {id: c, customer: ada}, payload: {total: 600}}
"""
KNOWN = {"deployments": ["load"]}


def test_it_says_what_fires_and_why_the_others_did_not() -> None:
    found = try_rules(RULES, STEPS, known=KNOWN)
    assert found.problems == []
    assert [(each["automation"], each["at"], each["key"]) for each in found.firings] == [
        ("big", "2m", {"customer": "ada"})
    ]
    assert found.firings[0]["actions"][0]["deployment"] == "load"
    assert [each["reason"] for each in found.decisions] == ["condition_false", "below_threshold", "fired"]
    assert [each["tree"]["verdict"] for each in found.clauses] == ["fails", "needs", "needs"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (RULES.replace("expect", "expct"), 'rule line 3: automations[0].trigger.expct: unknown field; did you mean "expect"?'),
        (RULES.replace("load", "lod"), 'no deployment is named "lod"'),
        ("a: [", "not YAML"),
        ("", "there is none yet"),
        ("# nothing", "there is none yet"),
        ("automations: []", "there is no automation in it"),
        ("webhooks: []", "take webhooks out"),
        ("5", ""),
        ("&a [*a]", ""),
        ("\x00", ""),
        ("\ud800", ""),
    ],
)  # fmt: skip
def test_rules_that_can_not_be_tried_are_told(rules: str, said: str) -> None:
    found = try_rules(rules, STEPS, known=KNOWN)
    assert any(said in each for each in found.problems), found.problems
    assert found.firings == []


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("", "a list of steps is expected"),
        ("- {at: x, event: a}", "steps[0].at"),
        ("- {at: 1h}\n- {at: 1m}", "go forward in time"),
        ("- {event: a, resurce: {id: x}}", "unknown field"),
        ("- {event: ''}", "steps[0]"),
        ("- 5", "steps[0]"),
        ("- {at: 0s}\n" * (MOST_STEPS + 1), "more than 200"),
        ("{", "not YAML"),
    ],
)
def test_steps_that_can_not_be_tried_are_told(steps: str, said: str) -> None:
    found = try_rules(RULES, steps, known=KNOWN)
    assert any(each.startswith("events") and said in each for each in found.problems), found.problems


def test_a_whole_file_a_list_and_one_automation_are_taken() -> None:
    one = "name: one\ntrigger: {expect: order.paid}\nactions: [do-nothing]\n"
    listed = "- {name: one, trigger: {expect: order.paid}, actions: [do-nothing]}"
    for text in (one, listed, f"automations:\n  {listed}"):
        assert len(try_rules(text, STEPS, known={}).firings) == 3


def test_the_example_fires_and_a_rule_made_of_an_event_fires_for_it() -> None:
    assert len(try_rules(rule_texts.EXAMPLE_RULE, rule_texts.EXAMPLE_STEPS, known={}).firings) == 1
    event = {
        "event": "order[1].paid?",
        "resource": {"id": "a*b[c]", "role: x": "<img>", "title": "!urgent*"},
        "payload": {"text": "x" * 9000},
    }
    rule, steps = rule_texts.rule_of_event(event), rule_texts.steps_of_event(event)
    assert len(steps) < 1000
    found = try_rules(rule, steps, known={})
    assert (found.problems, len(found.firings)) == ([], 1)


@pytest.mark.takes(0.8)
def test_the_module_answers_as_a_process() -> None:
    question = orjson.dumps({"rules": RULES, "events": STEPS, "known": KNOWN, "follow": False})
    done = subprocess.run(
        [sys.executable, "-m", "whenthen.rules.following.trial"], input=question, capture_output=True, check=True
    )
    assert len(orjson.loads(done.stdout)["firings"]) == 1
