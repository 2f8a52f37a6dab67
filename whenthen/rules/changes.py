"""Which automations keep their windows when rules change, and which start afresh.

Called by the load report, `check --against` and the API. A window is kept for as long as the automation's name and the
meaning of its whole trigger are the same. Meaning: docs/rules.md, "Editing a rule keeps its memory".
"""

from __future__ import annotations

from whenthen.rules.folder import Rules
from whenthen.triggers import trigger_id

__all__ = ["window_changes"]

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
