"""What conditions of one shape share: the tree, its evaluator, and its compiled function. Called by `condition`.

Ten thousand rules are mostly a few shapes with other literals. A shape is parsed and checked once, and compiled
to Python only when conditions of that shape have been evaluated a few times: until then the closures of `exact`
cost less.
"""

from __future__ import annotations

from functools import lru_cache

from whenthen.conditions import nodes as n
from whenthen.conditions.check import check
from whenthen.conditions.codegen import CompiledShape, Recipe, compile_shape
from whenthen.conditions.exact import Evaluator, build
from whenthen.conditions.parser import LiteralUse, parse

__all__ = ["Template", "template"]

SHAPES_KEPT = 4_096  #: shapes remembered; conditions keep their own alive
WARM_AFTER = 3  #: evaluations by closures before a shape is compiled


class Template:
    """One shape, ready for literals."""

    __slots__ = ("_compiled", "_evaluator", "_runs", "constants_checked", "declared", "literals", "tree")

    def __init__(self, shape: tuple[str, ...], declared: frozenset[str] | None) -> None:
        parsed = parse(shape)
        check(parsed.tree, declared)
        self.tree: n.Node = parsed.tree
        self.literals: tuple[LiteralUse, ...] = parsed.literals
        self.declared = declared
        self.constants_checked: tuple[tuple[Recipe, n.Node], ...] = _checked(parsed.tree)
        self._evaluator: Evaluator | None = None
        self._compiled: CompiledShape | None = None
        self._runs = 0

    @property
    def evaluator(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = build(self.tree, frozenset(), self.declared)
        return self._evaluator

    def compiled(self, *, at_once: bool = False) -> CompiledShape | None:
        """The compiled function, once the shape is worth it; None before that, and for what only `exact`
        evaluates."""
        if self._compiled is None and self._runs >= 0:
            self._runs += 1
            if at_once or self._runs > WARM_AFTER:
                self._runs = -1
                self._compiled = compile_shape(self.tree, self.literals, self.declared)
        return self._compiled

    @property
    def settled(self) -> bool:
        """Whether `compiled` has given its last word."""
        return self._runs < 0


def _checked(tree: n.Node) -> tuple[tuple[Recipe, n.Node], ...]:
    """The constants that must be valid for the condition to be worth loading, and where they stand."""
    found: list[tuple[Recipe, n.Node]] = []
    for node in n.walk(tree):
        if isinstance(node, n.Call) and node.function in ("matches", "timestamp", "duration") and node.operands:
            last = node.operands[-1]
            if isinstance(last, n.Literal) and last.kind == "string":
                what = "pattern" if node.function == "matches" else node.function
                found.append(((what, (last.slot,)), last))
    return tuple(found)


@lru_cache(maxsize=SHAPES_KEPT)
def template(shape: tuple[str, ...], declared: frozenset[str] | None) -> Template:
    """The template of a shape.

    Raises:
        ParseFault: the shape is no condition.
    """
    return Template(shape, declared)
