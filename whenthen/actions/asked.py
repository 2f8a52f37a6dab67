"""Which actions a firing asks for. Pure.

Called by the evaluation loop, which makes a task of each, and by rule tests. Meaning: docs/actions.md.
"""

from __future__ import annotations

from typing import Any

from whenthen.schemas import Automation, Firing, FiringState

__all__ = ["actions_of"]


def actions_of(automation: Automation, firing: Firing) -> list[Any]:
    """The actions that a firing asks for, in the order of their indexes.

    Those of every firing come first, then those of the edge: on the way to Triggered or to Resolved.
    """
    asked: list[Any] = list(automation.actions)
    if firing.edge:
        resolved = firing.state is FiringState.RESOLVED
        asked += automation.actions_on_resolve if resolved else automation.actions_on_trigger
    return asked
