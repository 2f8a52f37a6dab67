"""Static checks of a tree, before any event arrives: size, names, functions and their arguments.

Called by `shapes`, once a shape. With declared variables every name must be known. Without them
(`variables=None`) names belong to the caller, and CEL lets an unknown function fail at run time where an error
can be absorbed, as in `f(1) || true`; where nothing could absorb it, it is refused all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whenthen.conditions import nodes as n
from whenthen.conditions.functions.function_table import FUNCTIONS, NAMESPACES, Form
from whenthen.conditions.parser import MACROS, MAX_DEPTH, MAX_NODES, ParseFault
from whenthen.conditions.runtime.cel_values import KINDS
from whenthen.conditions.runtime.condition_errors import Reason
from whenthen.conditions.runtime.messages import MESSAGES, fields_of
from whenthen.schemas.errors import near_names

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
        _check_call(node, place, variables)
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


def _check_call(node: n.Call, place: _Place, variables: frozenset[str] | None) -> None:
    found = FUNCTIONS.get(node.function)
    may_fail_later = variables is None and place.absorbed
    name = node.target.name if isinstance(node.target, n.Name) else None
    if variables is not None and name in NAMESPACES and name not in variables | place.scope:
        raise _unknown_function(f"{name}.{node.function}", node.start)
    if found is None:
        if not may_fail_later:
            raise _unknown_function(node.function, node.at)
        return
    method = node.target is not None
    forms = [form for form in found.forms if form.takes(len(node.operands), method=method)]
    if not forms:
        given = f"{len(node.args)} argument{'s' * (len(node.args) != 1)}"
        raise ParseFault(
            f"{node.function}() is not called {'on a value ' if method else ''}with {given}",
            node.at,
            Reason.UNKNOWN_FUNCTION,
            "write " + " or ".join(found.signatures),
        )
    wrong = [_first_unfit(node, form) for form in forms]
    if all(operand is not None for operand in wrong) and not may_fail_later:
        operand = max((operand for operand in wrong if operand is not None), key=lambda operand: operand.start)
        raise ParseFault(
            f"{node.function}() does not take {_kind_of(operand)} here",
            operand.start,
            Reason.NO_OVERLOAD,
            "write " + " or ".join(found.signatures),
        )


def _unknown_function(name: str, at: int) -> ParseFault:
    return ParseFault(
        f"unknown function {name!r}", at, Reason.UNKNOWN_FUNCTION, _nearest(name, [*FUNCTIONS, "has", *MACROS])
    )


def _first_unfit(node: n.Call, form: Form) -> n.Node | None:
    """The first operand that is certainly of another type than the form takes."""
    for position, operand in enumerate(node.operands):
        kinds, given = form.kinds_at(position), _kind_of(operand)
        if kinds is not None and given is not None and given not in kinds:
            return operand
    return None


def _kind_of(node: n.Node) -> str | None:
    """The type of a node's value, where the text alone tells it."""
    match node:
        case n.Literal(kind=kind):
            return kind
        case n.Constant(value=value):
            return "null_type" if value is None else "bool"
        case n.ListOf():
            return "list"
        case n.MapOf():
            return "map"
        case n.Logic() | n.Has():
            return "bool"
        case n.MaybeSelect() | n.MaybeIndex():
            return "optional_type"
        case n.Call(function=function) if function in FUNCTIONS:
            return FUNCTIONS[function].gives
    return None


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
