"""Evaluates a tree exactly, and locates failures. Called by `shapes` and `value_tree`.

A tree becomes closures, once per shape; the frame has the literals. This module defines the meaning: compiled code
(`codegen`) covers the usual cases and leaves every other one to these closures; conditions are pure, so they start over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.check import dotted_name
from whenthen.conditions.comprehensions import comprehension
from whenthen.conditions.frame import Evaluator, Frame, absorb, fault_at, not_bool
from whenthen.conditions.functions.function_table import CONSTANT_FUNCTIONS, FUNCTIONS, LAZY_FUNCTIONS, constant_value
from whenthen.conditions.functions.optional_functions import filled, filled_entries
from whenthen.conditions.runtime import operators as o
from whenthen.conditions.runtime.cel_values import KINDS, EvaluationFault, kind_name
from whenthen.conditions.runtime.comparing import find, literal_member
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import FREE, charge_parts, spend
from whenthen.conditions.runtime.messages import build_message
from whenthen.conditions.runtime.regex import matches

__all__ = ["STEPS_PER_ZONE", "build", "build_map"]

STEPS_PER_ZONE = 1_000  #: loading a time zone that is not a constant of the condition


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
        case n.MaybeSelect(operand=operand, field=field):
            return _apply(node, o.maybe_select, [build(operand, scope, declared), lambda frame: field])
        case n.Index(operand=operand, index=index) | n.MaybeIndex(operand=operand, index=index):
            element = o.element if isinstance(node, n.Index) else o.maybe_element
            return _apply(node, element, [build(operand, scope, declared), build(index, scope, declared)])
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
        case n.ListOf():
            return _list(node, scope, declared)
        case n.MapOf():
            return _map(node, scope, declared)
        case n.Message():
            return _message(node, scope, declared)
        case n.Macro(over=over, test=test, result=result):
            inner = scope | set(node.variables)
            bodies = [build(part, inner, declared) if part is not None else None for part in (test, result)]
            return comprehension(node, build(over, scope, declared), *bodies)
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
        raise fault_at(node, Reason.UNKNOWN_VARIABLE, f"no variable {name!r}")

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
            raise fault_at(node, Reason.UNKNOWN_FUNCTION, f"unknown function {node.function!r}")

        return unknown
    function, name = found.called(method=node.target is not None), node.function
    last = node.args[-1] if node.args else None
    constant = isinstance(last, n.Literal) and last.kind == "string"
    if name == "matches":
        return _charged(
            node,
            lambda frame, text, pattern: matches(text, pattern, frame.budget, None if constant else frame.seen),
            parts,
            free=not scope,
        )
    if constant and name in CONSTANT_FUNCTIONS:
        return _apply(node, lambda text: constant_value(name, text), parts)
    if name in LAZY_FUNCTIONS:
        return _lazy(node, function, *parts)
    if found.charged:
        return _charged(node, lambda frame, *values: function(*values, frame.budget), parts, free=not scope)
    if name.startswith("get") and len(parts) == 2 and not constant:
        return _charged(node, lambda frame, moment, zone: function(moment, _paid_zone(zone, frame)), parts, free=False)
    return _apply(node, function, parts)


def _lazy(node: n.Node, function: Callable[..., Any], first: Evaluator, second: Evaluator) -> Evaluator:
    """A function that asks for its second operand when it needs it."""

    def run(frame: Frame) -> Any:
        value = first(frame)
        try:
            return function(value, lambda: second(frame))
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise

    return run


def _paid_zone(zone: Any, frame: Frame) -> Any:
    """A time zone out of a variable, charged once in an evaluation: it may have to be read from a file."""
    if isinstance(zone, str) and zone not in frame.seen:
        spend(STEPS_PER_ZONE, frame.budget)
        frame.seen.add(zone)
    return zone


def _logic(node: n.Logic, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(operand, build(operand, scope, declared)) for operand in node.operands]
    decisive, what = node.operator == "||", f'"{node.operator}"'
    return lambda frame: absorb(parts, frame, decisive, what)


def _choose(node: n.Choose, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    test, yes, no = (build(part, scope, declared) for part in (node.test, node.yes, node.no))

    def run(frame: Frame) -> Any:
        value = test(frame)
        if value is True:
            return yes(frame)
        if value is False:
            return no(frame)
        raise not_bool(node.test, '"?"', value)

    return run


def _list(node: n.ListOf, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [build(item, scope, declared) for item in node.items]
    if not node.maybe:
        return lambda frame: [part(frame) for part in parts]
    marks = [number in node.maybe for number in range(len(parts))]

    def run(frame: Frame) -> Any:
        items = [part(frame) for part in parts]
        try:
            return filled(zip(marks, items, strict=True))
        except EvaluationFault as fault:
            fault.node = node
            raise

    return run


def _map(node: n.MapOf, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(build(key, scope, declared), build(value, scope, declared)) for key, value in node.entries]
    maybe = node.maybe

    def run(frame: Frame) -> Any:
        entries = [(key(frame), value(frame)) for key, value in parts]
        try:
            return build_map(filled_entries(entries, maybe) if maybe else entries)
        except EvaluationFault as fault:
            fault.node = node
            raise

    return run


def _message(node: n.Message, scope: frozenset[str], declared: frozenset[str] | None) -> Evaluator:
    parts = [(name, build(value, scope, declared)) for name, value in node.fields]

    def run(frame: Frame) -> Any:
        entries = [(name, part(frame)) for name, part in parts]
        try:
            fields = dict(filled_entries(entries, node.maybe))
            charge_parts(fields, frame.budget)
            return build_message(node.type_name, fields)
        except EvaluationFault as fault:
            fault.node = node
            raise

    return run
