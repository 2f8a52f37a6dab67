"""Necessary conditions: the operands of the top-level `&&`, and the indexable tests among them.

The rule index uses such a test: a condition can not be true unless each of these operands is. Called by
`condition`. Meaning: docs/rules.md, "What an event costs".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.runtime.cel_values import KINDS

__all__ = ["Path", "Tests", "conjuncts", "tests_of"]

#: a variable and the fields below it, as `("event", "payload", "ref")`
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """Necessary conditions that an index can look up."""

    equalities: tuple[tuple[Path, str | int | bool], ...]  #: the value at the path equals the constant
    memberships: tuple[tuple[Path, tuple[str | int | bool, ...]], ...]  #: the value at the path is one of these


def conjuncts(tree: n.Node) -> tuple[n.Node, ...]:
    """The operands of the top-level `&&`, brackets opened; the tree itself when there is none."""
    found: list[n.Node] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, n.Logic) and node.operator == "&&":
            stack.extend(reversed(node.operands))
        else:
            found.append(node)
    return tuple(found)


def tests_of(tree: n.Node, constants: Sequence[Any]) -> Tests:
    """The indexable tests among the conjuncts of a tree with these literals."""
    equalities: list[tuple[Path, str | int | bool]] = []
    memberships: list[tuple[Path, tuple[str | int | bool, ...]]] = []
    for node in conjuncts(tree):
        match node:
            case n.Binary(operator="==", left=left, right=right):
                for side, other in ((left, right), (right, left)):
                    path, value = _path(side, constants), _constant(other, constants)
                    if path is not None and value is not None:
                        equalities.append((path, value))
                        break
            case n.Binary(operator="in", left=left, right=n.ListOf(items=items)):
                path = _path(left, constants)
                values = [_constant(item, constants) for item in items]
                known = tuple(value for value in values if value is not None)
                if path is not None and len(known) == len(values):
                    memberships.append((path, known))
            case n.Unary(operator="!", operand=operand):
                path = _path(operand, constants)
                if path is not None:
                    equalities.append((path, False))
            case n.Select() | n.Index():
                path = _path(node, constants)
                if path is not None:
                    equalities.append((path, True))
    return Tests(equalities=tuple(equalities), memberships=tuple(memberships))


def _path(node: n.Node, constants: Sequence[Any]) -> Path | None:
    """The path that a chain of `.name` and `["name"]` selects below a variable; None for anything else."""
    names: list[str] = []
    while True:
        match node:
            case n.Select(operand=operand, field=field):
                names.append(field)
                node = operand
            case n.Index(operand=operand, index=n.Literal(slot=slot, kind="string")):
                names.append(constants[slot])
                node = operand
            case n.Name(name=name) if names and name not in KINDS:
                return (name, *reversed(names))
            case _:
                return None


def _constant(node: n.Node, constants: Sequence[Any]) -> str | int | bool | None:
    match node:
        case n.Literal(slot=slot, kind="string"):
            text: str = constants[slot]
            return text
        case n.Literal(slot=slot, kind="int"):
            number: int = constants[slot]
            # an integer that no double holds exactly equals the double next to it, which a look-up by value does not find
            return number if float(number) == number else None
        case n.Constant(value=bool() as truth):
            return truth
    return None
