"""The data that conditions of one shape share: tree, evaluator and compiled function. Called by `condition`.

Ten thousand rules usually have few shapes, which differ in their literals. A shape is parsed and checked once, and compiled
to Python only after conditions of that shape were evaluated a few times: until then the closures of `exact`
cost less.
"""

from __future__ import annotations

from functools import lru_cache

from whenthen.conditions import nodes as n
from whenthen.conditions.check import check
from whenthen.conditions.codegen import CompiledShape, Recipe, compile_shape
from whenthen.conditions.exact import Evaluator, build
from whenthen.conditions.parser import LiteralUse, parse

__all__ = ["Shape", "shape_of"]

SHAPES_KEPT = 4_096  #: size of the cache of shapes; a condition references its own
WARM_AFTER = 3  #: evaluations by closures before a shape is compiled


class Shape:
    """One shape, which conditions evaluate with their literals."""

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
        """The compiled function after `WARM_AFTER` evaluations; None before, and for trees that only `exact` evaluates."""
        if self._compiled is None and self._runs >= 0:
            self._runs += 1
            if at_once or self._runs > WARM_AFTER:
                self._runs = -1
                self._compiled = compile_shape(self.tree, self.literals, self.declared)
        return self._compiled

    @property
    def is_final(self) -> bool:
        """Whether the result of `compiled` will not change any more."""
        return self._runs < 0


def _checked(tree: n.Node) -> tuple[tuple[Recipe, n.Node], ...]:
    """The constants that are checked when a condition is loaded, and their nodes."""
    found: list[tuple[Recipe, n.Node]] = []
    for node in n.walk(tree):
        if isinstance(node, n.Call) and node.function in ("matches", "timestamp", "duration") and node.operands:
            last = node.operands[-1]
            if isinstance(last, n.Literal) and last.kind == "string":
                what = "pattern" if node.function == "matches" else node.function
                found.append(((what, (last.slot,)), last))
    return tuple(found)


@lru_cache(maxsize=SHAPES_KEPT)
def shape_of(shape: tuple[str, ...], declared: frozenset[str] | None) -> Shape:
    """The shared data of a shape.

    Raises:
        ParseFault: the shape is not CEL.
    """
    return Shape(shape, declared)
