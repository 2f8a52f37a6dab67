"""The data that conditions of one shape share: tree, evaluator and compiled function. Called by `condition`.

Ten thousand rules usually have few shapes, which differ in their literals. A shape is parsed and checked once, and compiled
to Python only after conditions of that shape were evaluated a few times: until then the closures of `exact`
cost less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.check import check
from whenthen.conditions.codegen import CompiledShape, compile_shape
from whenthen.conditions.exact import build
from whenthen.conditions.frame import Evaluator
from whenthen.conditions.functions.function_table import CONSTANT_FUNCTIONS, constant_value
from whenthen.conditions.functions.text_format import check_format
from whenthen.conditions.parser import LiteralUse, parse
from whenthen.conditions.runtime.regex import compile_pattern

__all__ = ["ConstantCheck", "Shape", "shape_of"]

SHAPES_KEPT = 4_096  #: size of the cache of shapes; a condition references its own
WARM_AFTER = 3  #: evaluations by closures before a shape is compiled


@dataclass(frozen=True, slots=True)
class ConstantCheck:
    """A literal to be checked when a condition is loaded."""

    check: Callable[[Any], object]  #: raises `EvaluationFault`
    slot: int
    node: n.Node


class Shape:
    """One shape, which conditions evaluate with their literals."""

    __slots__ = ("_compiled", "_evaluator", "_runs", "constants_checked", "declared", "literals", "names", "tree")

    def __init__(self, shape: tuple[str, ...], declared: frozenset[str] | None) -> None:
        parsed = parse(shape)
        check(parsed.tree, declared)
        self.tree: n.Node = parsed.tree
        self.literals: tuple[LiteralUse, ...] = parsed.literals
        self.declared = declared
        self.constants_checked = _checked(parsed.tree)
        self.names = frozenset(node.name for node in n.walk(parsed.tree) if isinstance(node, n.Name))
        self._evaluator: Evaluator | None = None
        self._compiled: CompiledShape | None = None
        self._runs = 0

    @property
    def evaluator(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = build(self.tree, frozenset(), self.declared)
        return self._evaluator

    def compiled(self) -> CompiledShape | None:
        """The compiled function after `WARM_AFTER` evaluations; None before, and for trees that only `exact` evaluates."""
        if self._compiled is None and self._runs >= 0:
            self._runs += 1
            if self._runs > WARM_AFTER:
                self._runs = -1
                self._compiled = compile_shape(self.tree, self.literals, self.declared)
        return self._compiled

    @property
    def is_final(self) -> bool:
        """Whether the result of `compiled` will not change any more."""
        return self._runs < 0


def _checked(tree: n.Node) -> tuple[ConstantCheck, ...]:
    found: list[ConstantCheck] = []
    for node in n.walk(tree):
        if not isinstance(node, n.Call):
            continue
        name, target = node.function, node.target
        last = node.args[-1] if node.args else None
        if name == "format":
            if isinstance(target, n.Literal) and target.kind == "string":
                values = len(last.items) if isinstance(last, n.ListOf) and not last.maybe else None
                found.append(ConstantCheck(partial(check_format, values=values), target.slot, target))
        elif isinstance(last, n.Literal) and last.kind == "string":
            if name == "matches":
                found.append(ConstantCheck(compile_pattern, last.slot, last))
            elif name in CONSTANT_FUNCTIONS:
                found.append(ConstantCheck(partial(constant_value, name), last.slot, last))
    return tuple(found)


@lru_cache(maxsize=SHAPES_KEPT)
def shape_of(shape: tuple[str, ...], declared: frozenset[str] | None) -> Shape:
    """The shared data of a shape.

    Raises:
        ParseFault: the shape is not CEL.
    """
    return Shape(shape, declared)
