"""Evaluates a tree exactly, and locates failures. Called by `condition` and `value_tree`.

A tree becomes closures, once per shape; the frame has the literals. This module defines the meaning: compiled code
(`codegen`) covers the usual cases and leaves every other one to these closures; conditions are pure, so they start over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.check import dotted_name
from whenthen.conditions.runtime import operators as o
from whenthen.conditions.runtime.cel_values import KINDS, EvaluationFault, kind_name
from whenthen.conditions.runtime.comparing import find, literal_member
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import (
    FREE,
    MAX_STEPS,
    Budget,
    charge_parts,
    literal_slots,
    literal_weight,
    pairs,
    spend,
    weight,
)
from whenthen.conditions.runtime.functions import CHARGED_FUNCTIONS, FUNCTIONS
from whenthen.conditions.runtime.messages import build_message
from whenthen.conditions.runtime.regex import matches

__all__ = ["Evaluator", "Frame", "build", "build_map"]

STEPS_PER_ZONE = 1_000  #: loading a time zone that is not a constant of the condition


class Frame:
    """One evaluation: the caller's variables, the literals of the text, the macros' variables and the steps left."""

    __slots__ = ("budget", "constants", "locals", "seen", "variables")

    def __init__(self, variables: Mapping[str, Any], constants: Sequence[Any], steps: int = MAX_STEPS) -> None:
        self.variables = variables
        self.constants = constants
        self.locals: dict[str, Any] = {}
        self.budget: Budget = [steps]
        self.seen: set[str] = set()  #: patterns and zones out of variables that were paid for


Evaluator = Callable[[Frame], Any]


def build_map(entries: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map literal's value: keys are int, uint, bool or string, each once."""
    result: dict[Any, Any] = {}
    for key, value in entries:
        if not isinstance(key, int | str):
            raise EvaluationFault(Reason.NO_OVERLOAD, f"{kind_name(key)} cannot be a key: {describe(key)}", key)
        if key in result:
            if find(result, key)[0]:
                raise EvaluationFault(Reason.DUPLICATE_KEY, f"the key {describe(key)} is given twice", key)
            raise EvaluationFault(
                Reason.NO_OVERLOAD, f"a map cannot hold a bool beside the number {int(key)} as keys", key
            )
        result[key] = value
    return result


# -- closures


def build(node: n.Node, scope: frozenset[str] = frozenset(), declared: frozenset[str] | None = None) -> Evaluator:
    """The evaluator of a tree. It raises `EvaluationFault` with the node at fault.

    `scope` names the macros' variables around `node`; `declared` the caller's, None when they are not known.
    """
    match node:
        case n.Literal(slot=slot):
            return lambda frame: frame.constants[slot]
        case n.Constant(value=value):
            return lambda frame: value
        case n.Name():
            return _name(node, scope)
        case n.Select():
            return _select(node, scope, declared)
        case n.Has(operand=operand, field=field):
            return _apply(node, o.has, [build(operand, scope, declared), lambda frame: field])
        case n.Index(operand=operand, index=index):
            return _apply(node, o.element, [build(operand, scope, declared), build(index, scope, declared)])
        case n.Unary(operator=operator, operand=operand):
            return _apply(node, o.invert if operator == "!" else o.negate, [build(operand, scope, declared)])
        case n.Binary(operator=operator, left=left, right=right):
            sides = [build(left, scope, declared), build(right, scope, declared)]
            function = o.BINARY[operator]
            if operator not in o.CHARGED:
                return _apply(node, function, sides)
            if operator == "in" and isinstance(left, n.Literal) and left.kind == "string":
                function = literal_member
            return _charged(node, lambda frame, a, b: function(a, b, frame.budget), sides, free=not scope)
        case n.Call():
            return _call(node, scope, declared)
        case n.Logic():
            return _logic(node, scope, declared)
        case n.Choose():
            return _choose(node, scope, declared)
        case n.ListOf(items=items):
            parts = [build(item, scope, declared) for item in items]
            return lambda frame: [part(frame) for part in parts]
        case n.MapOf():
            return _map(node, scope, declared)
        case n.Message():
            return _message(node, scope, declared)
        case n.Macro():
            return _macro(node, scope, declared)
    raise AssertionError(f"no evaluator for {type(node).__name__}")


def _apply(node: n.Node, function: Callable[..., Any], parts: list[Evaluator]) -> Evaluator:
    if len(parts) == 2:
        first, second = parts

        def two(frame: Frame) -> Any:
            a, b = first(frame), second(frame)
            try:
                return function(a, b)
            except EvaluationFault as fault:
                fault.node = fault.node or node
                raise

        return two

    def run(frame: Frame) -> Any:
        values = [part(frame) for part in parts]
        try:
            return function(*values)
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise

    return run


def _charged(node: n.Node, function: Callable[..., Any], parts: list[Evaluator], *, free: bool) -> Evaluator:
    """An operation that charges the frame. With `free`, outside of macros, what it spends up to `FREE` is given back."""

    def run(frame: Frame) -> Any:
        values = [part(frame) for part in parts]
        budget, before = frame.budget, frame.budget[0]
        if free:
            budget[0] = before + FREE
        try:
            return function(frame, *values)
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise
        finally:
            if free:
                budget[0] = min(before, budget[0])

    return run


def _fault(node: n.Node, reason: Reason, detail: str, value: object = None) -> EvaluationFault:
    fault = EvaluationFault(reason, detail, value)
    fault.node = node
    return fault


def _name(node: n.Name, scope: frozenset[str]) -> Evaluator:
    name = node.name
    if name in scope and not node.absolute:
        return lambda frame: frame.locals[name]
    denoted = KINDS.get(name)

    def run(frame: Frame) -> Any:
        if name in frame.variables:
            return frame.variables[name]
        if denoted is not None:
            return denoted
        raise _fault(node, Reason.UNKNOWN_VARIABLE, f"no variable {name!r}")

    return run


def _select(node: n.Select, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    field = node.field
    operand = build(node.operand, scope, declared)

    def plain(frame: Frame) -> Any:
        value = operand(frame)
        try:
            return o.select(value, field)
        except EvaluationFault as fault:
            fault.node = node
            raise

    dotted = dotted_name(node, scope)
    if dotted is None or (declared is not None and dotted not in declared and dotted not in KINDS):
        return plain
    denoted = KINDS.get(dotted)

    def qualified(frame: Frame) -> Any:
        if dotted in frame.variables:
            return frame.variables[dotted]
        return denoted if denoted is not None else plain(frame)

    return qualified


def _call(node: n.Call, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [build(operand, scope, declared) for operand in node.operands]
    found = FUNCTIONS.get(node.function)
    if found is None:

        def unknown(frame: Frame) -> Any:
            for part in parts:
                part(frame)
            raise _fault(node, Reason.UNKNOWN_FUNCTION, f"unknown function {node.function!r}")

        return unknown
    function, name = found[0], node.function
    constant = isinstance(node.operands[-1], n.Literal)
    if name == "matches":
        return _charged(
            node,
            lambda frame, text, pattern: matches(text, pattern, frame.budget, None if constant else frame.seen),
            parts,
            free=not scope,
        )
    if constant and name in ("timestamp", "duration"):  # a constant of compiled code
        return _apply(node, lambda text: function(text, [MAX_STEPS]), parts)
    if name in CHARGED_FUNCTIONS:
        return _charged(node, lambda frame, *values: function(*values, frame.budget), parts, free=not scope)
    if name.startswith("get") and len(parts) == 2 and not constant:
        return _charged(node, lambda frame, moment, zone: function(moment, _paid_zone(zone, frame)), parts, free=False)
    return _apply(node, function, parts)


def _paid_zone(zone: Any, frame: Frame) -> Any:
    """A time zone out of a variable, charged once in an evaluation: it may have to be read from a file."""
    if isinstance(zone, str) and zone not in frame.seen:
        spend(STEPS_PER_ZONE, frame.budget)
        frame.seen.add(zone)
    return zone


def _logic(node: n.Logic, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(operand, build(operand, scope, declared)) for operand in node.operands]
    decisive, what = node.operator == "||", f'"{node.operator}"'
    return lambda frame: _absorb(parts, frame, decisive, what)


def _absorb(tests: Iterable[tuple[n.Node, Evaluator]], frame: Frame, decisive: bool, what: str) -> bool:
    """`decisive` if a test yields it, whatever fails beside it; else the first failure, or the other bool."""
    failure: EvaluationFault | None = None
    for node, test in tests:
        try:
            value = test(frame)
        except EvaluationFault as fault:
            if fault.reason is Reason.BUDGET:
                raise
            failure = failure or fault
            continue
        if value is not True and value is not False:
            failure = failure or _not_bool(node, what, value)
        elif value is decisive:
            return decisive
    if failure is not None:
        raise failure
    return not decisive


def _not_bool(node: n.Node, what: str, value: object) -> EvaluationFault:
    return _fault(node, Reason.NO_OVERLOAD, f"{what} takes a bool, not {kind_name(value)}: {describe(value)}", value)


def _choose(node: n.Choose, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    test, yes, no = (build(part, scope, declared) for part in (node.test, node.yes, node.no))

    def run(frame: Frame) -> Any:
        value = test(frame)
        if value is True:
            return yes(frame)
        if value is False:
            return no(frame)
        raise _not_bool(node.test, '"?"', value)

    return run


def _map(node: n.MapOf, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(build(key, scope, declared), build(value, scope, declared)) for key, value in node.entries]

    def run(frame: Frame) -> Any:
        entries = [(key(frame), value(frame)) for key, value in parts]
        try:
            return build_map(entries)
        except EvaluationFault as fault:
            fault.node = node
            raise

    return run


def _message(node: n.Message, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(name, build(value, scope, declared)) for name, value in node.fields]

    def run(frame: Frame) -> Any:
        fields = {name: part(frame) for name, part in parts}
        try:
            charge_parts(fields, frame.budget)
            return build_message(node.type_name, fields)
        except EvaluationFault as fault:
            fault.node = node
            raise

    return run


# -- macros

_UNSET = object()


def _macro(node: n.Macro, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    """A macro's evaluator: ranges over `over` with the variables bound, and folds what the body yields."""
    over = build(node.over, scope, declared)
    inner = scope | set(node.variables)
    test = build(node.test, inner, declared) if node.test is not None else None
    result = build(node.result, inner, declared) if node.result is not None else None
    fold = _FOLDS[node.kind](node, test, result)
    cost, slots = weight(node), literal_slots(node)
    names = node.variables

    def run(frame: Frame) -> Any:
        value = over(frame)
        try:
            more = literal_weight(frame.constants[slot] for slot in slots)
            keys, values = pairs(value, cost + more, frame.budget)
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise
        saved = {name: frame.locals.get(name, _UNSET) for name in names}
        try:
            return fold(frame, _steps(frame, names, value, keys, values))
        finally:
            for name, old in saved.items():
                if old is _UNSET:
                    frame.locals.pop(name, None)
                else:
                    frame.locals[name] = old

    return run


def _steps(
    frame: Frame, names: tuple[str, ...], value: Any, keys: Iterable[Any], values: Iterable[Any]
) -> Iterable[tuple[Any, Any]]:
    """Bind the variables for each element in turn; yields key and element."""
    if len(names) == 1:
        name = names[0]
        for item in value:
            frame.locals[name] = item
            yield item, item
    else:
        first, second = names
        for key, item in zip(keys, values, strict=True):
            frame.locals[first] = key
            frame.locals[second] = item
            yield key, item


_Fold = Callable[[Frame, Iterable[tuple[Any, Any]]], Any]


def _absorbing(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    assert test is not None
    assert node.test is not None
    decisive, what, body = node.kind == "exists", f"{node.kind}()", (node.test, test)
    return lambda frame, steps: _absorb((body for _pair in steps), frame, decisive, what)


def _passes(node: n.Macro, test: Evaluator | None, frame: Frame) -> bool:
    if test is None or node.test is None:
        return True
    value = test(frame)
    if value is not True and value is not False:
        raise _not_bool(node.test, f"{node.kind}()", value)
    return bool(value)


def _exists_one(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    return lambda frame, steps: sum([_passes(node, test, frame) for _pair in steps]) == 1


def _filter(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    return lambda frame, steps: [item for _key, item in steps if _passes(node, test, frame)]


def _to_list(node: n.Macro, test: Evaluator | None, result: Evaluator | None) -> _Fold:
    assert result is not None
    return lambda frame, steps: [result(frame) for _pair in steps if _passes(node, test, frame)]


def _to_map(node: n.Macro, test: Evaluator | None, result: Evaluator | None) -> _Fold:
    assert result is not None
    return lambda frame, steps: {key: result(frame) for key, _item in steps if _passes(node, test, frame)}


_FOLDS: dict[str, Callable[[n.Macro, Evaluator | None, Evaluator | None], _Fold]] = {
    "all": _absorbing,
    "exists": _absorbing,
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _to_list,
    "transformList": _to_list,
    "transformMap": _to_map,
}
