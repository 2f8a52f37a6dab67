"""Which actions a firing asks for. Pure.

Called by the evaluation loop, which makes a task of each, by the execution loop, which performs them, and by rule tests.
Meaning: docs/actions.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from whenthen.actions.perform import CompiledAction, compile_action
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath
from whenthen.schemas.firings import Firing, FiringState

__all__ = ["CompiledActions", "actions_of"]

T = TypeVar("T")


def actions_of(automation: Automation, firing: Firing) -> list[Any]:
    """The actions that a firing asks for, in the order of their indexes.

    Those of every firing come first, then those of the edge: on the way to Triggered or to Resolved.
    """
    return [*automation.actions, *_of_edge(firing, automation.actions_on_trigger, automation.actions_on_resolve)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledActions:
    """All actions of one automation, compiled. Immutable; made once for a rule set."""

    every_time: tuple[CompiledAction, ...]  #: on every firing
    on_trigger: tuple[CompiledAction, ...]
    on_resolve: tuple[CompiledAction, ...]

    @classmethod
    def compile(cls, automation: Automation) -> CompiledActions:
        """Compile the actions of an automation.

        Raises:
            InvalidTemplate: as `compile_action`, for the first action that does not compile.
        """
        return cls(
            every_time=tuple(map(compile_action, automation.actions)),
            on_trigger=tuple(map(compile_action, automation.actions_on_trigger)),
            on_resolve=tuple(map(compile_action, automation.actions_on_resolve)),
        )

    def link_fields(self) -> Iterator[FieldPath]:
        """Where in the automation an action makes links to pages (`url_of`), for which it has to be known where the pages are."""
        for name, actions in (
            ("actions", self.every_time),
            ("actions_on_trigger", self.on_trigger),
            ("actions_on_resolve", self.on_resolve),
        ):
            for index, action in enumerate(actions):
                for path in action.link_fields:
                    yield name, index, *path

    def find(self, firing: Firing, index: int) -> CompiledAction | None:
        """The action that has `index` among those that `firing` asks for; None when it asks for fewer."""
        if index < len(self.every_time):
            return self.every_time[index]
        index -= len(self.every_time)
        edge = _of_edge(firing, self.on_trigger, self.on_resolve)
        return edge[index] if index < len(edge) else None


def _of_edge(firing: Firing, on_trigger: Sequence[T], on_resolve: Sequence[T]) -> Sequence[T]:
    if not firing.edge:
        return ()
    return on_resolve if firing.state is FiringState.RESOLVED else on_trigger
