"""A set of automations compiled for evaluation: their trees of trigger nodes, and the index over the filters of all of them.

Immutable once built; a changed set is compiled whole and swapped. Called by `triggers.evaluator`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whenthen.schemas.automations import Automation
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.matching.index import RuleIndex
from whenthen.triggers.trees.trigger_compiler import compile_named
from whenthen.triggers.trees.trigger_nodes import CompiledAutomation, Composite, Leaf

__all__ = ["FilterKind", "RuleSet"]


class FilterKind:
    """Which filter of a leaf an event passed; a set of bits."""

    EXPECTED = 1
    AFTER = 2
    RESOLVES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the index: a filter, its leaf, and which of the leaf's filters it is."""

    leaf: Leaf
    kind: int
    filter: Filter


class RuleSet:
    """All automations of a shard, compiled."""

    __slots__ = ("automations", "entries", "ids", "index", "nodes")

    def __init__(self, automations: Iterable[CompiledAutomation]) -> None:
        self.automations = {automation.name: automation for automation in automations}
        self.ids = {automation.id: automation for automation in self.automations.values()}
        self.nodes: dict[str, Leaf | Composite] = {}
        self.entries: list[Entry] = []
        for automation in self.automations.values():
            for composite in automation.composites:
                self.nodes[composite.id] = composite
            for leaf in automation.leaves:
                self.nodes[leaf.id] = leaf
                for kind, rule in (
                    (FilterKind.EXPECTED, leaf.expected),
                    (FilterKind.AFTER, leaf.after),
                    (FilterKind.RESOLVES, leaf.resolving),
                ):
                    if rule is not None:
                        self.entries.append(Entry(leaf, kind, rule))
        self.index = RuleIndex([entry.filter for entry in self.entries])

    @classmethod
    def compile(cls, automations: Iterable[Automation]) -> RuleSet:
        """Compile checked automations.

        Raises:
            InvalidInput: a condition, path or key does not compile; `path` is `("automations", <name>, "trigger", ...)`.
        """
        return cls([compile_named(automation) for automation in automations])

    def patterns(self) -> list[str]:
        """Globs of the event names that any trigger uses, without duplicates."""
        return list(dict.fromkeys(glob.text for entry in self.entries for glob in entry.filter.names))

    def looks_at(self, name: str) -> bool:
        """Whether any trigger looks at events of a name; of others it decides nothing."""
        return any(glob.matches(name) for entry in self.entries for glob in entry.filter.names)

    def actions(self, automation: str) -> Automation:
        """The automation with the actions of a firing."""
        return self.automations[automation].model
