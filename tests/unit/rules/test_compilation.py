"""Conditions, paths, templates and webhooks are compiled when rules are checked, and told by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.engine.rules import check_rules


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
        ("map: {event: x, resource: {id: x}, payload: {a: {b: '{{'}}}", "webhooks[0].map.payload.a.b: "),
        ("preset: s3, when: evn", "webhooks[0].when: 1:1: unknown variable 'evn'; did you mean \"event\"?"),
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
