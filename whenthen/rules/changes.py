"""Which automations keep their windows when rules change, and which start afresh.

Called by the load report, `check --against`, `plan` and the API. A window is kept for as long as the automation's name and the
meaning of its whole trigger are the same. Meaning: docs/rules.md, "Editing a rule keeps its memory".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import orjson

from whenthen.rules.folder import Rules
from whenthen.rules.references import SINGULAR
from whenthen.schemas.automations import Automation
from whenthen.schemas.base import same_json
from whenthen.triggers import trigger_id

__all__ = ["RuleChange", "planned_changes", "window_changes"]

MOST_FIELDS = 12  #: of one automation that a plan names
_VALUE_CHARS = 60
_ABSENT = object()
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
        elif same_json(earlier, automation):
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

    kind: str  #: automation, webhook, deployment, notifier, provider, work pool
    name: str
    change: Literal["new", "changed", "restarted", "removed"]
    detail: str
    fields: tuple[
        str, ...
    ] = ()  #: of a changed automation: which are other ones; those of its trigger with both values


def planned_changes(before: Rules, after: Rules) -> list[RuleChange]:
    """What would change, by kind and in the order of the files; what is removed comes last."""
    old_ones = {automation.name: automation for automation in before.automations}
    new_ones = {automation.name: automation for automation in after.automations}
    found = []
    for name, what in window_changes(before, after).items():
        both = name in old_ones and name in new_ones
        fields = _fields(old_ones[name], new_ones[name]) if both else ()
        found.append(RuleChange("automation", name, _change(what), what, fields))
    for kind in ("webhooks", "deployments", "notifiers", "providers", "work_pools", "sources", "limits", "secrets"):
        old = {each.name: each for each in getattr(before, kind)}
        new = {each.name: each for each in getattr(after, kind)}
        singular = SINGULAR[kind]
        found += [RuleChange(singular, name, "new", "new") for name in new if name not in old]
        found += [
            RuleChange(singular, name, "changed", "changed")
            for name in new
            if name in old and not same_json(old[name], new[name])
        ]
        found += [RuleChange(singular, name, "removed", "removed") for name in old if name not in new]
    return found


def _fields(before: Automation, after: Automation) -> tuple[str, ...]:
    """Which fields of an automation changed: `actions`, `trigger.threshold: 2 -> 3`."""
    old, new = (each.model_dump(mode="json", by_alias=True, exclude_defaults=True) for each in (before, after))
    found = [
        line
        for name in [*old, *(name for name in new if name not in old)]
        if name not in old or name not in new or not same_json(old[name], new[name])
        for line in (_differences(name, old.get(name), new.get(name)) if name == "trigger" else (name,))
    ]
    more = len(found) - MOST_FIELDS
    return (*found[:MOST_FIELDS], f"{more} more") if more > 0 else tuple(found)


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """Where two JSON values differ, as deep as their shapes are the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            if name not in old or name not in new or not same_json(old[name], new[name]):
                yield from _differences(f"{path}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            if not same_json(one, other):
                yield from _differences(f"{path}[{index}]", one, other)
    else:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    text = orjson.dumps(value).decode()
    return text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}..."


def _change(what: str) -> Literal["new", "changed", "restarted", "removed"]:
    if what == "new":
        return "new"
    if what.startswith("removed"):
        return "removed"
    return "restarted" if what.startswith("trigger changed") else "changed"
