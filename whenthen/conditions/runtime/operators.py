"""The operators of CEL, exactly: arithmetic, comparison, membership, fields and elements.

Called by `exact` for every operation, and by the compiled code of `codegen` where its inlined case does not apply.
Each takes plain values and returns one or raises `EvaluationFault`. Meaning: cel-spec, langdef, "Standard
definitions".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import (
    INT_MAX,
    INT_MIN,
    NONE,
    UINT_MAX,
    EvaluationFault,
    OptionalValue,
    Uint,
    kind_name,
    no_overload,
    span_ns,
    time_ns,
)
from whenthen.conditions.runtime.comparing import equal, find, member, order
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, charge

__all__ = [
    "BINARY",
    "CHARGED",
    "MAX_RESULT",
    "add",
    "divide",
    "element",
    "equal",
    "greater",
    "greater_or_equal",
    "has",
    "invert",
    "less",
    "less_or_equal",
    "maybe_element",
    "maybe_select",
    "member",
    "multiply",
    "negate",
    "remainder",
    "select",
    "subtract",
    "unequal",
]

MAX_RESULT = 4_194_304  #: characters, bytes or elements that a concatenation may yield
MADE_TEXT = 4  #: 2**4 characters of a text are made in a step
MADE_ELEMENTS = 2  #: 2**2 elements of a list are made in a step


def _overflow(kind_: str, name: str, a: object, b: object) -> EvaluationFault:
    return EvaluationFault(Reason.OVERFLOW, f"{kind_} overflow: {describe(a)} {name} {describe(b)}", a)


# -- arithmetic


def _ints(name: str, a: Any, b: Any, result: int) -> int:
    if type(a) is int and type(b) is int:
        if not INT_MIN <= result <= INT_MAX:
            raise _overflow("int", name, a, b)
        return result
    if type(a) is Uint and type(b) is Uint:
        if not 0 <= result <= UINT_MAX:
            raise _overflow("uint", name, a, b)
        return Uint(result)
    raise no_overload(f'"{name}"', a, b)


def _same_integers(a: object, b: object) -> bool:
    return (type(a) is int and type(b) is int) or (type(a) is Uint and type(b) is Uint)


def add(a: Any, b: Any, budget: Budget | None) -> Any:
    """`a + b`: numbers of one type, text, bytes, lists, times and durations. Text and lists are charged before they are made."""
    if type(a) is str and type(b) is str:
        return _joined(a, b, MADE_TEXT, budget)
    if type(a) is datetime and type(b) is timedelta:
        return _moved(a, b)
    if _same_integers(a, b):
        return _ints("+", a, b, int(a) + int(b))
    if type(a) is float and type(b) is float:
        return a + b
    if isinstance(a, list) and isinstance(b, list):
        return _joined(a, b, MADE_ELEMENTS, budget)
    if any(isinstance(a, cls) and isinstance(b, cls) for cls in (str, bytes)):
        return _joined(a, b, MADE_TEXT, budget)
    if isinstance(a, datetime) and isinstance(b, timedelta):
        return _moved(a, b)
    if isinstance(a, timedelta) and isinstance(b, datetime):
        return _moved(b, a)
    if isinstance(a, timedelta) and isinstance(b, timedelta):
        return times.span_from_ns(span_ns(a) + span_ns(b))
    raise no_overload('"+"', a, b)


def _joined(a: Any, b: Any, shift: int, budget: Budget | None) -> Any:
    size = len(a) + len(b)
    if size > MAX_RESULT:
        raise EvaluationFault(Reason.BUDGET, f"cost limit: a result of {size:,} elements; the limit is {MAX_RESULT:,}")
    charge(size >> shift, budget)
    return a + b


def _moved(moment: datetime, span: timedelta) -> datetime:
    if type(moment) is datetime and type(span) is timedelta and moment.tzinfo is UTC:
        try:
            return moment + span
        except OverflowError:
            raise EvaluationFault(Reason.OVERFLOW, "timestamp is outside the years 1 to 9999", moment) from None
    return times.time_from_ns(time_ns(moment) + span_ns(span))


def subtract(a: Any, b: Any) -> Any:
    """`a - b`: numbers of one type, times and durations."""
    if _same_integers(a, b):
        return _ints("-", a, b, int(a) - int(b))
    if type(a) is float and type(b) is float:
        return a - b
    if isinstance(a, datetime) and isinstance(b, datetime):
        return times.span_from_ns(time_ns(a) - time_ns(b))
    if isinstance(a, datetime) and isinstance(b, timedelta):
        return times.time_from_ns(time_ns(a) - span_ns(b))
    if isinstance(a, timedelta) and isinstance(b, timedelta):
        return times.span_from_ns(span_ns(a) - span_ns(b))
    raise no_overload('"-"', a, b)


def multiply(a: Any, b: Any) -> Any:
    """`a * b` of two numbers of one type."""
    if _same_integers(a, b):
        return _ints("*", a, b, int(a) * int(b))
    if type(a) is float and type(b) is float:
        return a * b
    raise no_overload('"*"', a, b)


def divide(a: Any, b: Any) -> Any:
    """`a / b` of two numbers of one type; integers truncate towards zero, doubles follow IEEE 754."""
    if _same_integers(a, b):
        if b == 0:
            raise EvaluationFault(Reason.DIVISION_BY_ZERO, f"division by zero: {describe(a)} / 0", a)
        quotient = abs(int(a)) // abs(int(b))
        return _ints("/", a, b, -quotient if (a < 0) is not (b < 0) else quotient)
    if type(a) is float and type(b) is float:
        if b:
            return a / b
        if a != a or not a:
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    raise no_overload('"/"', a, b)


def remainder(a: Any, b: Any) -> Any:
    """`a % b` of two integers of one type; the sign is that of `a`."""
    if _same_integers(a, b):
        if b == 0:
            raise EvaluationFault(Reason.DIVISION_BY_ZERO, f"remainder by zero: {describe(a)} % 0", a)
        rest = abs(int(a)) % abs(int(b))
        return _ints("%", a, b, -rest if a < 0 else rest)
    raise no_overload('"%"', a, b)


def negate(a: Any) -> Any:
    """`-a` of an int or a double."""
    if type(a) is int:
        return _ints("-", 0, a, -a)
    if type(a) is float:
        return -a
    raise no_overload('unary "-"', a)


def invert(a: Any) -> bool:
    """`!a` of a bool."""
    if a is True or a is False:
        return not a
    raise no_overload('"!"', a)


# -- comparison and membership


def unequal(a: Any, b: Any, budget: Budget | None) -> bool:
    return not equal(a, b, budget)


def less(a: Any, b: Any, budget: Budget | None) -> bool:
    return order(a, b, budget) == -1


def less_or_equal(a: Any, b: Any, budget: Budget | None) -> bool:
    return order(a, b, budget) in (-1, 0)


def greater(a: Any, b: Any, budget: Budget | None) -> bool:
    return order(a, b, budget) == 1


def greater_or_equal(a: Any, b: Any, budget: Budget | None) -> bool:
    return order(a, b, budget) in (0, 1)


# -- fields and elements


def select(operand: Any, field: str) -> Any:
    """`operand.field` of a map; of an optional map an optional."""
    if not isinstance(operand, dict):
        if isinstance(operand, OptionalValue):
            return maybe_select(operand, field)
        raise EvaluationFault(
            Reason.NO_SUCH_FIELD, f"{kind_name(operand)} has no field {field!r}: {describe(operand)}", operand
        )
    if field not in operand:
        raise EvaluationFault(Reason.NO_SUCH_FIELD, f"no such field: {field!r}", operand)
    return operand[field]


def has(operand: Any, field: str) -> bool:
    """Whether a map has a field; an empty optional has none."""
    if isinstance(operand, OptionalValue):
        return operand.present and has(operand.value, field)
    if not isinstance(operand, dict):
        raise EvaluationFault(
            Reason.NO_OVERLOAD, f"has() looks into a map, not {kind_name(operand)}: {describe(operand)}", operand
        )
    return field in operand


def element(operand: Any, index: Any) -> Any:
    """`operand[index]` of a list or a map."""
    if isinstance(operand, dict):
        present, value = find(operand, index)
        if not present:
            raise EvaluationFault(Reason.NO_SUCH_FIELD, f"no such key: {describe(index)}", operand)
        return value
    if isinstance(operand, list):
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool):
            raise EvaluationFault(Reason.NO_OVERLOAD, f"a list is indexed by an int, not by {describe(index)}", index)
        if not 0 <= index < len(operand):
            raise EvaluationFault(
                Reason.INDEX_OUT_OF_RANGE, f"index {index} of a list of {len(operand)} elements", index
            )
        return operand[index]
    if isinstance(operand, OptionalValue):
        return maybe_element(operand, index)
    raise no_overload('"[]"', operand, index)


def maybe_select(operand: Any, field: str) -> OptionalValue:
    """`operand.?field` of a map or an optional map: empty when there is no such field."""
    if isinstance(operand, OptionalValue):
        return maybe_select(operand.value, field) if operand.present else NONE
    if isinstance(operand, dict) and field not in operand:
        return NONE
    return OptionalValue(select(operand, field), present=True)


def maybe_element(operand: Any, index: Any) -> OptionalValue:
    """`operand[?index]` of a list, a map, or an optional one: empty when there is no such element."""
    if isinstance(operand, OptionalValue):
        return maybe_element(operand.value, index) if operand.present else NONE
    try:
        return OptionalValue(element(operand, index), present=True)
    except EvaluationFault as fault:
        if fault.reason in (Reason.NO_SUCH_FIELD, Reason.INDEX_OUT_OF_RANGE):
            return NONE
        raise


#: the operators of `BINARY` that take a budget after their operands
CHARGED = frozenset({"+", "==", "!=", "<", "<=", ">", ">=", "in"})
BINARY: dict[str, Callable[..., Any]] = {
    "+": add, "-": subtract, "*": multiply, "/": divide, "%": remainder,
    "==": equal, "!=": unequal, "<": less, "<=": less_or_equal, ">": greater, ">=": greater_or_equal, "in": member,
}  # fmt: skip
