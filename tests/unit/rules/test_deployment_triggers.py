"""Triggers that are written at their deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.rules.changes import planned_changes
from whenthen.rules.folder import Rules, check_rules, load_rules

LOAD = """
deployments:
  - name: load
    command: load {{ size }}
    tags: [nightly]
    triggers:
      - trigger: {expect: s3.file.uploaded, match: {bucket: raw}}
        parameters: {size: $.payload.size}
      - name: quiet
        enabled: false
        delay: 1m
        trigger: {type: metric, expect: load.measured, value: $.payload.n, aggregate: avg, operator: ">", threshold: 3, within: 5m}
"""


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "rules.yaml").write_text(text)
    return tmp_path


def loaded(tmp_path: Path, text: str) -> Rules:
    return load_rules(written(tmp_path, text))


def test_each_trigger_is_an_automation_that_starts_its_deployment(tmp_path: Path) -> None:
    rules = loaded(tmp_path, LOAD)
    first, second = rules.automations
    assert (first.name, second.name, second.enabled) == ("load:default", "load:quiet", False)
    assert first.actions[0].model_dump(include={"type", "deployment", "parameters"}) == {
        "type": "run-deployment",
        "deployment": "load",
        "parameters": {"size": "$.payload.size"},
    }
    assert first.tags == ["nightly"]
    assert set(rules.compiled) == {"load:default", "load:quiet"}


def test_it_goes_with_its_deployment(tmp_path: Path) -> None:
    before = loaded(tmp_path, LOAD)
    after = loaded(tmp_path, "deployments: [{name: other, command: 'true'}]")
    changes = {(change.kind, change.name, change.change) for change in planned_changes(before, after)}
    assert ("automation", "load:default", "removed") in changes
    assert ("deployment", "load", "removed") in changes


@pytest.mark.parametrize(
    ("text", "place", "detail"),
    [
        ("trigger: {expect: a, when: 'event.payload.'}", "4:44", "not a condition"),
        ("trigger: {expect: a}, parameters: {n: '{% if %}'}", "4:55", "Expected an expression"),
        ("trigger: {expct: a}", "4:27", "did you mean"),
        ("name: a", "4:16", "missing"),
        ("trigger: {expect: a}}, {trigger: {expect: b}", "2:5", "different names"),
    ],
)
def test_a_problem_is_where_the_trigger_is_written(tmp_path: Path, text: str, place: str, detail: str) -> None:
    (problem,) = check_rules(
        written(tmp_path, f"deployments:\n  - name: load\n    command: 'true'\n    triggers: [{{{text}}}]\n")
    )
    assert detail in problem.detail
    assert f"{problem.line}:{problem.column}" == place


def test_an_automation_of_its_name_is_a_second_one(tmp_path: Path) -> None:
    text = LOAD + "automations: [{name: 'load:quiet', trigger: {expect: x}, actions: do-nothing}]\n"
    (problem,) = check_rules(written(tmp_path, text))
    assert 'automation "load:quiet" is defined twice' in problem.detail


def test_a_name_that_reads_as_a_template_has_no_triggers(tmp_path: Path) -> None:
    (problem,) = check_rules(written(tmp_path, LOAD.replace("name: load", "name: $.load")))
    assert "reads as a template" in problem.detail


def test_the_automation_of_a_deployment_of_a_flow_has_a_point_for_the_slash(tmp_path: Path) -> None:
    rules = loaded(tmp_path, LOAD.replace("name: load\n", "name: etl/load\n"))
    assert [automation.name for automation in rules.automations] == ["etl.load:default", "etl.load:quiet"]
    assert rules.automations[0].actions[0].model_dump(include={"deployment"}) == {"deployment": "etl/load"}
