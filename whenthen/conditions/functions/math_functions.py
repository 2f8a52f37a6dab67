"""Numbers: the greatest and the least, rounding, signs, tests of doubles, bits.

Called through `function_table`. Meaning: the math extension of cel-go, version 2.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from whenthen.conditions.runtime.cel_values import INT_MAX, INT_MIN, UINT_MAX, EvaluationFault, Uint, no_overload
from whenthen.conditions.runtime.comparing import compare_numbers, is_number
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import charge

__all__ = [
    "BITWISE",
    "ROUNDED",
    "SHIFTS",
    "TESTS",
    "absolute",
    "bit_not",
    "greatest",
    "least",
    "sign",
    "square_root",
]

STEPS_PER_COMPARISON = 4
BITS = 64


# -- extremes


def greatest(*values: Any) -> Any:
    """The greatest of several numbers, or of a list of them; of equal ones the first."""
    return _extreme("math.greatest", values, 1)


def least(*values: Any) -> Any:
    """The least of several numbers, or of a list of them; of equal ones the first."""
    return _extreme("math.least", values, -1)


def _extreme(name: str, values: tuple[Any, ...], wanted: int) -> Any:
    *operands, budget = values
    numbers: list[Any] = operands
    if len(operands) == 1 and isinstance(operands[0], list):
        numbers = operands[0]
        if not numbers:
            raise EvaluationFault(Reason.NO_OVERLOAD, f"{name}() of an empty list", numbers)
    charge(STEPS_PER_COMPARISON * len(numbers), budget)
    found = numbers[0]
    if not is_number(found):
        raise no_overload(f"{name}()", found)
    for number in numbers[1:]:
        if not is_number(number):
            raise no_overload(f"{name}()", number)
        order = compare_numbers(number, found)
        if order is None:
            raise EvaluationFault(Reason.NO_OVERLOAD, f"{name}() of NaN, which has no order", found)
        if order == wanted:
            found = number
    return found


# -- doubles


def _of_double(name: str, function: Callable[[float], Any]) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        if type(value) is not float:
            raise no_overload(f"{name}()", value)
        return function(value)

    return call


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """A rounding that keeps what has no fraction: NaN, the infinities, and the sign of zero."""

    def call(value: float) -> float:
        return math.copysign(float(function(value)), value) if math.isfinite(value) else value

    return call


def _round(value: float) -> int:
    """The nearest integer, ties away from zero."""
    whole = math.trunc(value)
    return whole + (1 if value > 0 else -1) if abs(value - whole) >= 0.5 else whole


ROUNDED: dict[str, Callable[[Any], float]] = {
    f"math.{name}": _of_double(f"math.{name}", _whole(function))
    for name, function in (("ceil", math.ceil), ("floor", math.floor), ("round", _round), ("trunc", math.trunc))
}
TESTS: dict[str, Callable[[Any], bool]] = {
    f"math.{name}": _of_double(f"math.{name}", function)
    for name, function in (("isNaN", math.isnan), ("isInf", math.isinf), ("isFinite", math.isfinite))
}


def square_root(value: Any) -> float:
    """As a double; NaN of a negative number."""
    if not is_number(value):
        raise no_overload("math.sqrt()", value)
    if value < 0:
        return math.nan
    if type(value) is not float and value > UINT_MAX:
        raise _out_of_range(value)
    return math.sqrt(value)


# -- signs


def absolute(value: Any) -> Any:
    if not is_number(value):
        raise no_overload("math.abs()", value)
    if type(value) is int and abs(value) > INT_MAX:
        raise _out_of_range(value)
    return abs(value) if type(value) is not Uint else value


def sign(value: Any) -> Any:
    """-1, 0 or 1 in the type of the number; NaN of NaN."""
    if not is_number(value):
        raise no_overload("math.sign()", value)
    if value != value:
        return value
    return type(value)((value > 0) - (value < 0))


def _out_of_range(value: int) -> EvaluationFault:
    return EvaluationFault(Reason.OVERFLOW, f"int overflow: {describe(value)}", value)


# -- bits


def _integer(value: Any, name: str, *others: Any) -> int:
    """An int or a uint of 64 bits; JSON may bring a larger one."""
    if type(value) is int:
        if not INT_MIN <= value <= INT_MAX:
            raise _out_of_range(value)
    elif type(value) is not Uint:
        raise no_overload(f"{name}()", value, *others)
    return int(value)


def _as(cls: type, bits: int) -> int:
    """The int or uint with these bits, of which the lowest 64 count."""
    bits &= UINT_MAX
    return Uint(bits) if cls is Uint else bits if bits <= INT_MAX else bits - (UINT_MAX + 1)


def _pairwise(name: str, combine: Callable[[int, int], int]) -> Callable[[Any, Any], int]:
    def call(a: Any, b: Any) -> int:
        if type(a) is not type(b):
            raise no_overload(f"{name}()", a, b)
        return _as(type(a), combine(_integer(a, name, b), _integer(b, name)))

    return call


BITWISE: dict[str, Callable[[Any, Any], int]] = {
    f"math.{name}": _pairwise(f"math.{name}", combine)
    for name, combine in (("bitAnd", operator.and_), ("bitOr", operator.or_), ("bitXor", operator.xor))
}


def bit_not(value: Any) -> int:
    return _as(type(value), ~_integer(value, "math.bitNot"))


def _shifted(name: str, shift: Callable[[int, int], int]) -> Callable[[Any, Any], int]:
    def call(value: Any, offset: Any) -> int:
        bits = _integer(value, name, offset)
        if type(offset) is not int:
            raise no_overload(f"{name}()", value, offset)
        if offset < 0:
            raise EvaluationFault(Reason.OVERFLOW, f"{name}() by a negative offset: {describe(offset)}", offset)
        return _as(type(value), shift(bits & UINT_MAX, offset) if offset < BITS else 0)

    return call


#: the sign is no more than a bit: from the left zeros move in
SHIFTS: dict[str, Callable[[Any, Any], int]] = {
    f"math.{name}": _shifted(f"math.{name}", shift)
    for name, shift in (("bitShiftLeft", operator.lshift), ("bitShiftRight", operator.rshift))
}
