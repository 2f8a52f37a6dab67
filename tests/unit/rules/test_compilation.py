"""Conditions, paths, templates and webhooks are compiled when rules are checked, and told by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.rules import load_rules
from whenthen.rules.folder import check_rules
from whenthen.schemas.errors import InvalidRules


def problems(folder: Path, text: str) -> list[str]:
    (folder / "a.yaml").write_text(text)
    return [str(problem) for problem in check_rules(folder)]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ('{expect: x, for_each: ["$.a["]}', "1:56: automations[0].trigger.for_each: "),
        (
            "{type: sequence, triggers: [{expect: x, when: evnt.x}, {expect: y, when: 1 +}]}",
            "triggers[0].when: not a condition",
        ),
        (
            "{type: sequence, triggers: [{expect: x, when: evnt.x}, {expect: y, when: 1 +}]}",
            "triggers[1].when: not a condition",
        ),
        (
            "{expect: x, resolve_on: {expect: y, when: evnt.x}}",
            "trigger.resolve_on.when: not a condition, at its character 1",
        ),
        ("{type: metric, aggregate: sum, value: '$$', operator: '>', threshold: 1, within: 1m}", "trigger.value: "),
    ],
)
def test_what_a_trigger_holds_as_text_is_compiled(tmp_path: Path, trigger: str, expected: str) -> None:
    told = problems(tmp_path, f"automations: [{{name: a, trigger: {trigger}}}]")
    assert any(expected in line for line in told), told
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("{emit-event: a, payload: {b.c: ['{{ x']}}", "2:66: automations[0].actions[0].payload.b.c[0]: "),
        ("{emit-event: '{{ foo }}'}", "2:34: automations[0].actions[0].emit-event: "),
        ("{emit-event: a, resource: {id: '{% for'}}", "automations[0].actions[0].resource.id: "),
        (
            "{call-webhook: 'http://{{ event.id }}/'}",
            "automations[0].actions[0].call-webhook: a template decides the host",
        ),
    ],
)
def test_the_templates_of_an_action_are_compiled(tmp_path: Path, action: str, expected: str) -> None:
    told = problems(tmp_path, f"automations:\n- {{name: a, trigger: {{expect: other}}, actions: [{action}]}}")
    assert len(told) == 1
    assert expected.partition(": ")[2] in told[0]


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ("map: {event: '{{', resource: {id: x}}", "webhooks[0].map.event: "),
        ("map: {event: x, resource: {id: '{{ nothing'}}", "webhooks[0].map.resource.id: "),
        ("map: {event: x, resource: {id: x}, when: 'x >'}", "webhooks[0].map.when: "),
        ("map: {event: x, resource: {id: x}, when: '{{ body.n > 1 }}'}", "write the expression alone, without {{ }}"),
        ("map: {event: x, resource: {id: x}, payload: {a: {b: '{{'}}}", "webhooks[0].map.payload.a.b: "),
        (
            "preset: s3, when: evn",
            "webhooks[0].when: not a condition, at its character 1: unknown variable 'evn'; did you mean \"event\"?",
        ),
    ],
)
def test_a_webhook_is_compiled(tmp_path: Path, webhook: str, expected: str) -> None:
    (line,) = problems(tmp_path, f"webhooks: [{{name: w, verify: none, {webhook}}}]")
    assert expected in line


def test_a_schedule_is_checked(tmp_path: Path) -> None:
    told = problems(tmp_path, "automations: [{name: a, trigger: {type: schedule, cron: '0 0 30 2 *'}}]")
    assert any("never comes" in line for line in told)
    told = problems(
        tmp_path, "deployments: [{name: d, command: x, schedules: [{cron: '* * * * *', timezone: Europe/Berln}]}]"
    )
    assert any("Europe/Berlin" in line for line in told)


TWO = """
automations:
- {name: a, trigger: {expect: x}, actions: [{emit-event: seen, payload: {number: 1}}]}
- {name: b, trigger: {expect: y}}
"""


def test_what_the_checks_compiled_is_what_was_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    rules = load_rules(tmp_path)
    assert list(rules.compiled) == ["a", "b"]
    assert all(rules.compiled[automation.name].trigger.model is automation for automation in rules.automations)


def test_the_rulebook_takes_what_the_checks_compiled(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    rules = load_rules(tmp_path)
    book = RuleRegistry(rules, shards=3, resolve_secret=str)
    assert all(book.now.automations[name] is made.trigger for name, made in rules.compiled.items())
    assert all(book.now.actions[name] is made.actions for name, made in rules.compiled.items())
    assert sorted(name for shard in book.now.shards for name in shard.automations) == ["a", "b"]


def test_rules_that_other_checks_let_pass_are_compiled_by_the_rulebook(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    rules = load_rules(tmp_path, checkers=[])
    assert not rules.compiled
    now = RuleRegistry(rules, shards=3, resolve_secret=str).now
    assert sorted(now.automations) == sorted(now.actions) == ["a", "b"]


def test_an_automation_that_stayed_the_same_is_not_compiled_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    before = load_rules(tmp_path)
    (tmp_path / "a.yaml").write_text(TWO.replace("expect: y", "expect: z"))
    after = load_rules(tmp_path, kept=before)
    assert after.compiled["a"] is before.compiled["a"]
    assert after.compiled["b"].trigger.model.trigger == after.automations[1].trigger != before.automations[1].trigger


@pytest.mark.parametrize("other", ["true", "1.0"])
def test_a_value_of_another_type_is_a_change(tmp_path: Path, other: str) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    before = load_rules(tmp_path)
    (tmp_path / "a.yaml").write_text(TWO.replace("number: 1", f"number: {other}"))
    after = load_rules(tmp_path, kept=before)
    assert after.compiled["a"].trigger.model is after.automations[0]
    assert after.compiled["b"] is before.compiled["b"]


def test_a_changed_automation_is_checked_also_beside_kept_ones(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TWO)
    before = load_rules(tmp_path)
    (tmp_path / "a.yaml").write_text(TWO.replace("number: 1", "number: '{{ nothing'"))
    with pytest.raises(InvalidRules) as refused:
        load_rules(tmp_path, kept=before)
    assert [problem.field for problem in refused.value.problems] == ["automations[0].actions[0].payload.number"]
