"""A compiled automation: the tree of its trigger's nodes, each with its filters, its key and the rule of its windows.

Made by `triggers.trees.trigger_compiler`; nothing in it changes afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from whenthen.schemas.automations import Automation
from whenthen.schemas.triggers import ScheduleTrigger
from whenthen.templates import Path
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.window_keys import KeyExtractor, parse_key_text
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.composite import CompositeRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["CompiledAutomation", "Composite", "EveryRule", "Leaf", "ScheduleRule", "WindowRule"]


@dataclass(frozen=True, slots=True)
class EveryRule:
    """Fires for every event; has no state."""


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """Fires at the times of a calendar."""

    calendar: ScheduleTrigger


WindowRule = EveryRule | SlidingRule | TumblingRule | AbsenceRule | CollectRule | MetricRule | ScheduleRule


@dataclass(slots=True, eq=False)
class Composite:
    """A compound or sequence trigger."""

    id: str
    path: str
    rule: CompositeRule
    correlated: int  #: how many leading values of a part's key are this node's key
    parent: Composite | None
    part: int
    automation: CompiledAutomation
    parts: list[Leaf | Composite] = field(default_factory=list)
    by_clock: bool = False  #: whether parts fire by the clock, as in Prefect, and not in event time: some have buckets


@dataclass(slots=True, eq=False)
class Leaf:
    """An event, metric or schedule trigger."""

    id: str
    path: str
    rule: WindowRule
    keys: KeyExtractor
    parent: Composite | None
    part: int
    automation: CompiledAutomation
    expected: Filter | None
    after: Filter | None
    resolving: Filter | None
    value: Path | None = None  #: of a metric

    @property
    def starts_without_event(self) -> bool:
        """Whether its window opens without an event: schedules, periodic checks, and windows without key that a deadline can fire."""
        rule = self.rule
        if isinstance(rule, ScheduleRule):
            return True
        if isinstance(rule, TumblingRule):
            return rule.proactive
        if self.keys.expressions:
            return False
        if isinstance(rule, AbsenceRule):
            return not rule.needs_after
        return isinstance(rule, MetricRule) and rule.warms_up


@dataclass(slots=True, eq=False)
class CompiledAutomation:
    """One automation, ready to be evaluated."""

    name: str
    id: str  #: of the trigger's meaning
    model: Automation
    root: Leaf | Composite = field(init=False)
    leaves: list[Leaf] = field(default_factory=list)
    composites: list[Composite] = field(default_factory=list)
    enabled: bool = True
    keeps_state: bool = False  #: whether the Triggered state of each key is stored, until it is resolved

    def key_of(self, path: str, text: str) -> dict[str, Any]:
        """The key of the trigger at `path` as an object, from its text form: expression and value. Empty where the trigger has none, or
        `text` is no key of it, as in decisions that were made before a key was looked at."""
        values = parse_key_text(text)
        for leaf in self.leaves:
            if leaf.path == path:
                return _named(leaf.keys.expressions, values)
        for composite in self.composites:
            if composite.path == path:
                below = next(leaf for leaf in self.leaves if leaf.path.startswith(path))
                return _named(below.keys.expressions[: composite.correlated], values)
        return {}


def _named(expressions: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(expressions, values, strict=True)) if len(values) == len(expressions) else {}
