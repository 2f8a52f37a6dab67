"""Static checks of a tree, before any event arrives: size, names, functions and their arguments.

Called by `shapes`, once a shape. With declared variables every name must be known. Without them
(`variables=None`) names belong to the caller, and CEL lets an unknown function fail at run time where an error
can be absorbed, as in `f(1) || true`; where nothing could absorb it, it is refused all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whenthen.conditions import nodes as n
from whenthen.conditions.parser import MAX_DEPTH, MAX_NODES, ParseFault
from whenthen.conditions.runtime.cel_values import KINDS
from whenthen.conditions.runtime.condition_errors import Reason
from whenthen.conditions.runtime.functions import FUNCTIONS
from whenthen.conditions.runtime.messages import MESSAGES, fields_of
from whenthen.schemas import near_names

__all__ = ["check", "dotted_name", "is_known_type"]


@dataclass(frozen=True, slots=True)
class _Place:
    node: n.Node
    depth: int
    scope: frozenset[str]
    absorbed: bool  #: an error here need not be the error of the whole


def dotted_name(node: n.Node, scope: Iterable[str]) -> str | None:
    """`a.b.c` of a chain of selections that starts at a global name, else None."""
    fields: list[str] = []
    while isinstance(node, n.Select):
        if node.quoted:
            return None
        fields.append(node.field)
        node = node.operand
    if not isinstance(node, n.Name) or (node.name in scope and not node.absolute):
        return None
    return ".".join([node.name, *reversed(fields)])


def is_known_type(name: str) -> bool:
    """Whether `name` denotes a type, as `int` or `google.protobuf.Timestamp` do."""
    return name in KINDS


def check(tree: n.Node, variables: frozenset[str] | None) -> None:
    """Refuse a tree that is too large, or that uses an unknown name.

    Raises:
        ParseFault: what is wrong, and the token it is wrong at.
    """
    count = 0
    stack = [_Place(tree, 1, frozenset(), False)]
    while stack:
        place = stack.pop()
        node = place.node
        count += 1
        if place.depth > MAX_DEPTH:
            raise ParseFault(
                f"nested more than {MAX_DEPTH} deep",
                node.at,
                Reason.TOO_LARGE,
                "split the expression or use a list with in",
            )
        if count > MAX_NODES:
            raise ParseFault(f"more than {MAX_NODES:,} operations and values", node.at, Reason.TOO_LARGE)
        _check_node(node, place, variables)
        if isinstance(node, n.Select) and _whole_name(node, place.scope, variables):
            continue
        stack.extend(_below(node, place))


def _below(node: n.Node, place: _Place) -> list[_Place]:
    depth = place.depth + 1
    if isinstance(node, n.Macro):
        inner = place.scope | set(node.variables)
        parts = [_Place(node.over, depth, place.scope, place.absorbed)]
        parts += [_Place(p, depth, inner, True) for p in (node.test, node.result) if p is not None]
        return parts
    if isinstance(node, n.Choose):
        return [
            _Place(node.test, depth, place.scope, place.absorbed),
            _Place(node.yes, depth, place.scope, True),
            _Place(node.no, depth, place.scope, True),
        ]
    absorbed = place.absorbed or isinstance(node, n.Logic)
    return [_Place(child, depth, place.scope, absorbed) for child in n.children(node)]


def _whole_name(node: n.Select, scope: frozenset[str], variables: frozenset[str] | None) -> bool:
    """Whether a chain of selections is one declared name or type, so that its parts are not names of their own."""
    name = dotted_name(node, scope)
    return name is not None and (is_known_type(name) or (variables is not None and name in variables))


def _check_node(node: n.Node, place: _Place, variables: frozenset[str] | None) -> None:
    if isinstance(node, n.Name):
        _check_name(node, place.scope, variables)
    elif isinstance(node, n.Call):
        _check_call(node, may_fail_later=variables is None and place.absorbed)
    elif isinstance(node, n.Message):
        _check_message(node)


def _check_name(node: n.Name, scope: frozenset[str], variables: frozenset[str] | None) -> None:
    if variables is None or node.name in variables or is_known_type(node.name):
        return
    if node.name in scope and not node.absolute:
        return
    known = sorted(variables | scope)
    raise ParseFault(
        f"unknown variable {node.name!r}",
        node.at,
        Reason.UNKNOWN_VARIABLE,
        _nearest(node.name, known) or "known are " + (", ".join(known) or "none"),
    )


def _check_call(node: n.Call, *, may_fail_later: bool) -> None:
    found = FUNCTIONS.get(node.function)
    if found is None:
        if may_fail_later:
            return
        raise ParseFault(
            f"unknown function {node.function!r}",
            node.at,
            Reason.UNKNOWN_FUNCTION,
            _nearest(node.function, [*FUNCTIONS, "has", "all", "exists", "exists_one", "map", "filter"]),
        )
    _, plain, method = found
    if len(node.args) in (plain if node.target is None else method):
        return
    forms = [f"{node.function}({', '.join('abc'[:count])})" for count in sorted(plain)]
    forms += [f"x.{node.function}({', '.join('abc'[:count])})" for count in sorted(method)]
    given = f"{len(node.args)} argument{'s' * (len(node.args) != 1)}"
    how = "called on a value " if node.target is not None else ""
    raise ParseFault(
        f"{node.function}() is not {how or 'called '}with {given}",
        node.at,
        Reason.UNKNOWN_FUNCTION,
        "write " + " or ".join(forms),
    )


def _check_message(node: n.Message) -> None:
    fields = fields_of(node.type_name)
    if fields is None:
        raise ParseFault(
            f"unknown message type {node.type_name!r}",
            node.at,
            Reason.UNKNOWN_TYPE,
            _nearest(node.type_name, list(MESSAGES)) or "write a map, such as {'key': 'value'}",
        )
    seen: set[str] = set()
    for name, value in node.fields:
        if name not in fields:
            raise ParseFault(
                f"{node.type_name} has no field {name!r}",
                value.start,
                Reason.UNKNOWN_TYPE,
                "it has " + ", ".join(sorted(fields)),
            )
        if name in seen:
            raise ParseFault(f"the field {name!r} is given twice", value.start, Reason.DUPLICATE_KEY)
        seen.add(name)


def _nearest(name: str, known: list[str]) -> str | None:
    found = near_names(name, known)
    return f'did you mean "{found[0]}"?' if found else None
