"""Which automations keep their windows when rules change, and which start afresh.

Called by the load report, `check --against`, `plan` and the API. A window is kept for as long as the automation's name and the
meaning of its whole trigger are the same. Meaning: docs/rules.md, "Editing a rule keeps its memory".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from whenthen.rules.folder import Rules
from whenthen.triggers import trigger_id

__all__ = ["RuleChange", "planned_changes", "window_changes"]

_KEPT = "the windows so far are kept for a while (orphans_kept) and go on when its trigger is as before"


def window_changes(before: Rules, after: Rules) -> dict[str, str]:
    """What becomes of each automation's windows; automations with no change at all are left out."""
    old = {automation.name: automation for automation in before.automations}
    new = {automation.name: automation for automation in after.automations}
    changes: dict[str, str] = {}
    for name, automation in new.items():
        earlier = old.get(name)
        if earlier is None:
            changes[name] = "new"
        elif earlier == automation:
            continue
        elif trigger_id(earlier) == trigger_id(automation):
            changes[name] = "changed; keeps its windows"
        else:
            changes[name] = f"trigger changed; starts afresh; {_KEPT}"
    for name in old.keys() - new.keys():
        changes[name] = f"removed; {_KEPT}"
    return changes


class RuleChange(NamedTuple):
    """One part of a set of rules that another set has otherwise."""

    kind: str  #: automation, webhook, deployment, notifier
    name: str
    change: Literal["new", "changed", "restarted", "removed"]
    detail: str


def planned_changes(before: Rules, after: Rules) -> list[RuleChange]:
    """What would change, by kind and in the order of the files; what is removed comes last."""
    found = [
        RuleChange("automation", name, _change(what), what) for name, what in window_changes(before, after).items()
    ]
    for kind in ("webhooks", "deployments", "notifiers"):
        old = {each.name: each for each in getattr(before, kind)}
        new = {each.name: each for each in getattr(after, kind)}
        singular = kind.removesuffix("s")
        found += [RuleChange(singular, name, "new", "new") for name in new if name not in old]
        found += [
            RuleChange(singular, name, "changed", "changed") for name in new if name in old and old[name] != new[name]
        ]
        found += [RuleChange(singular, name, "removed", "removed") for name in old if name not in new]
    return found


def _change(what: str) -> Literal["new", "changed", "restarted", "removed"]:
    if what == "new":
        return "new"
    if what.startswith("removed"):
        return "removed"
    return "restarted" if what.startswith("trigger changed") else "changed"
