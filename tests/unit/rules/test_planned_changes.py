"""What a plan says: each part of a set that another set has otherwise, by what becomes of it."""

from __future__ import annotations

from pathlib import Path

from whenthen.rules import Rules, load_rules
from whenthen.rules.changes import planned_changes

BEFORE = """
automations:
  - {name: kept, trigger: {expect: x}}
  - {name: edited, trigger: {expect: x}, description: before}
  - {name: moved, trigger: {expect: x}}
  - {name: gone, trigger: {expect: x}}
deployments:
  - {name: load, command: [echo, a]}
  - {name: old, command: [echo, a]}
"""
AFTER = """
automations:
  - {name: kept, trigger: {expect: x}}
  - {name: edited, trigger: {expect: x}, description: after}
  - {name: moved, trigger: {expect: y}}
  - {name: added, trigger: {expect: x}}
deployments:
  - {name: load, command: [echo, b]}
notifiers:
  - {name: chat, urls: ["json://localhost"]}
"""


def loaded(folder: Path, text: str) -> Rules:
    (folder / "rules.yaml").write_text(text)
    return load_rules(folder)


def test_a_plan_names_what_is_new_changed_restarted_and_removed_of_each_kind(tmp_path: Path) -> None:
    before = loaded(tmp_path, BEFORE)
    found = planned_changes(before, loaded(tmp_path, AFTER))
    assert {(each.kind, each.name): each.change for each in found} == {
        ("automation", "edited"): "changed",
        ("automation", "moved"): "restarted",
        ("automation", "added"): "new",
        ("automation", "gone"): "removed",
        ("deployment", "load"): "changed",
        ("deployment", "old"): "removed",
        ("notifier", "chat"): "new",
    }
    assert planned_changes(before, before) == []


def test_a_plan_tells_true_from_one_and_does_not_tell_the_order_of_keys(tmp_path: Path) -> None:
    text = """
automations:
  - {{name: sends, trigger: {{expect: x}}, actions: [{{emit-event: y, payload: {}}}]}}
deployments:
  - {{name: load, command: [echo], parameters: {}}}
"""
    before = loaded(tmp_path, text.format("{n: 1, m: 2}", "{n: 1, m: 2}"))
    found = planned_changes(before, loaded(tmp_path, text.format("{n: true, m: 2}", "{n: 1.0, m: 2}")))
    assert {(each.name, each.change, each.fields) for each in found} == {
        ("sends", "changed", ("actions",)),
        ("load", "changed", ()),
    }
    assert planned_changes(before, loaded(tmp_path, text.format("{m: 2, n: 1}", "{m: 2, n: 1}"))) == []


def fields_of(folder: Path, before: str, after: str) -> dict[str, tuple[str, ...]]:
    changes = planned_changes(loaded(folder, f"automations: [{before}]"), loaded(folder, f"automations: [{after}]"))
    return {each.name: each.fields for each in changes}


def test_a_plan_says_which_fields_of_an_automation_changed_and_the_values_of_its_trigger(tmp_path: Path) -> None:
    assert fields_of(
        tmp_path,
        "{name: a, trigger: {expect: x, threshold: 2, within: 1h}, actions: do-nothing}",
        "{name: a, trigger: {expect: x, threshold: 3, within: 1h, for_each: id}, enabled: false}",
    ) == {"a": ("trigger.threshold: 2 -> 3", 'trigger.for_each: not set -> ["id"]', "actions", "enabled")}
    assert fields_of(
        tmp_path,
        "{name: a, trigger: {type: sequence, within: 1h, triggers: [{expect: x}, {expect: y}]}}",
        "{name: a, trigger: {type: sequence, within: 2h, triggers: [{expect: x}, {expect: z}]}}",
    ) == {"a": ('trigger.triggers[1].expect[0]: "y" -> "z"', 'trigger.within: "1h" -> "2h"')}


def test_the_fields_that_a_plan_names_are_bounded(tmp_path: Path) -> None:
    def rule(value: str) -> str:
        match = ", ".join(f"l{number}: {value}" for number in range(30))
        return f"{{name: a, trigger: {{expect: x, match: {{{match}}}}}}}"

    (fields,) = fields_of(tmp_path, rule("a"), rule("b" * 300)).values()
    assert len(fields) == 13
    assert fields[-1] == "18 more"
    assert max(map(len, fields)) < 200
