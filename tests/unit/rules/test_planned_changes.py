"""What a plan says: each part of a set that another set has otherwise, by what becomes of it."""

from __future__ import annotations

from pathlib import Path

from whenthen.rules import Rules, load_rules, planned_changes

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
