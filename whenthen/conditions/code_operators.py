"""Operators as Python expressions: arithmetic, comparison, membership. Called by `codegen`, whose writer builds on this one.

An operator is inlined for operands of the usual types that cost no step; every other case is left to a helper of `operators`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from whenthen.conditions import nodes as n
from whenthen.conditions.runtime import operators as o
from whenthen.conditions.runtime.cel_values import INT_MAX, INT_MIN
from whenthen.conditions.runtime.comparing import COMPARED, SCANNED
from whenthen.conditions.runtime.cost import FREE

__all__ = ["Code", "OperatorWriter", "Recipe"]

#: how a parameter is made of literals: what to make, and the slots of the literals
Recipe = tuple[str, tuple[int, ...]]

_HELPERS = {
    "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod",
}  # fmt: skip
_PYTHON_CLASS = {"int": "int", "string": "str", "double": "float"}
_COMPARABLE = frozenset({"int", "string", "double", "uint", "bytes", "bool"})
_SIZED = frozenset({"string", "bytes"})  #: the comparable kinds whose comparison costs steps
_ARITHMETIC = frozenset({"int", "uint", "double", "string", "bytes", "list"})


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    kind: str | None = None  #: the CEL type, when it is certain
    literal: str | None = None  #: the kind of literal this is, when it is one
    negative: bool = False


class OperatorWriter(ABC):
    """Writes operators; counts the temporaries and collects the parameters of the function that is written."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []
        self.temporaries = 0

    @abstractmethod
    def write(self, node: n.Node, scope: dict[str, str]) -> Code:
        """An expression. `scope` has the Python names of the macros' variables around it."""

    # -- names

    def fresh(self) -> str:
        self.temporaries += 1
        return f"x{self.temporaries}"

    def parameter(self, what: str, *slots: int) -> str:
        recipe = (what, slots)
        if recipe not in self.recipes:
            self.recipes.append(recipe)
        return f"k{self.recipes.index(recipe)}"

    # -- operators

    def comparison(self, node: n.Binary, scope: dict[str, str]) -> Code:
        operator, helper = node.operator, _HELPERS[node.operator]
        left, right = self.write(node.left, scope), self.write(node.right, scope)
        text_limit, budget = self.text_limit(scope), self.budget(scope)
        if (
            left.kind == right.kind
            and left.kind in _COMPARABLE
            and (left.kind not in _SIZED or left.literal or right.literal)
        ):
            return Code(f"({left.text} {operator} {right.text})", "bool")
        for literal, other in ((right, left), (left, right)):
            if literal.literal is None or other.literal is not None:
                continue
            if operator in ("==", "!="):
                if literal.literal in ("True", "False", "None"):
                    word = "is" if operator == "==" else "is not"
                    return Code(f"({other.text} {word} {literal.text})", "bool")
                if literal.literal == "string":  # no value of another type equals a str in Python either
                    return Code(f"({other.text} {operator} {literal.text})", "bool")
            if literal.literal in _PYTHON_CLASS:
                x = self.fresh()
                sides = f"{x} {operator} {literal.text}" if literal is right else f"{literal.text} {operator} {x}"
                call = f"{x}, {literal.text}" if literal is right else f"{literal.text}, {x}"
                test = f"type({x} := {other.text}) is {_PYTHON_CLASS[literal.literal]}"
                return Code(f"({sides} if {test} else {helper}({call}, {budget}))", "bool")
        x, y = self.fresh(), self.fresh()
        same = f"type({x} := {left.text}) is type({y} := {right.text})"
        if operator in ("==", "!="):
            ready = f"{same} is str and len({x}) < {text_limit}"
        else:
            kind = self.fresh()
            ready = (
                f"({kind} := type({x} := {left.text})) is type({y} := {right.text})"
                f" and ({kind} is int or {kind} is float or ({kind} is str and len({x}) < {text_limit}))"
            )
        return Code(f"({x} {operator} {y} if {ready} else {helper}({x}, {y}, {budget}))", "bool")

    def budget(self, scope: dict[str, str]) -> str:
        """What a helper charges: None outside of macros."""
        return "budget" if scope else "None"

    def text_limit(self, scope: dict[str, str]) -> int:
        """Shorter texts are compared without a charge."""
        return (1 if scope else FREE) << COMPARED

    def arithmetic(self, node: n.Binary, scope: dict[str, str]) -> Code:
        operator, helper = node.operator, _HELPERS[node.operator]
        left, right = self.write(node.left, scope), self.write(node.right, scope)
        kind = next((code.kind for code in (left, right) if code.kind in _ARITHMETIC), None)
        x, y = self.fresh(), self.fresh()
        if operator in ("+", "-", "*") and kind in (None, "int"):
            r = self.fresh()
            both = f"type({x} := {left.text}) is type({y} := {right.text}) is int"
            inline = f"({r} if ({both}) and {INT_MIN} <= ({r} := {x} {operator} {y}) <= {INT_MAX} else "
            return Code(f"{inline}{self.operation(node, x, y, scope)})", kind)
        if operator in ("/", "%") and right.literal == "int" and not right.negative:
            python = "//" if operator == "/" else "%"
            test = f"type({x} := {left.text}) is int and {x} >= 0"
            return Code(f"({x} {python} {right.text} if {test} else {helper}({x}, {right.text}))", "int")
        return Code(self.operation(node, left.text, right.text, scope), kind)

    def operation(self, node: n.Binary, left: str, right: str, scope: dict[str, str]) -> str:
        charged = f", {self.budget(scope)}" if node.operator in o.CHARGED else ""
        return f"{_HELPERS[node.operator]}({left}, {right}{charged})"

    def membership(self, node: n.Binary, scope: dict[str, str]) -> Code:
        left, budget = self.write(node.left, scope), self.budget(scope)
        if isinstance(node.right, n.ListOf) and node.right.items:
            items = node.right.items
            literals = [item for item in items if isinstance(item, n.Literal)]
            kinds = {item.kind for item in literals}
            if len(literals) == len(items) and len(kinds) == 1:
                slots = tuple(item.slot for item in literals)
                if kinds == {"string"}:
                    return Code(f"({left.text} in {self.parameter('set', *slots)})", "bool")
                if kinds == {"int"}:
                    x = self.fresh()
                    members, whole = self.parameter("set", *slots), self.parameter("list", *slots)
                    return Code(
                        f"({x} in {members} if type({x} := {left.text}) is int else member({x}, {whole}, {budget}))",
                        "bool",
                    )
        right = self.write(node.right, scope)
        if left.literal == "string":
            x = self.fresh()
            few = (1 if scope else FREE) << SCANNED
            test = f"type({x} := {right.text}) is list and len({x}) < {few} or type({x}) is dict"
            return Code(f"({left.text} in {x} if {test} else lmember({left.text}, {x}, {budget}))", "bool")
        return Code(f"member({left.text}, {right.text}, {budget})", "bool")
