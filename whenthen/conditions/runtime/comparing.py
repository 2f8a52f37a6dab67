"""When two CEL values are equal, how they order, and what a list or map contains. Charged by the size of the operands.

Called by `operators` and by compiled code. Meaning: cel-spec, langdef, "Equality".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from whenthen.conditions.runtime.cel_values import (
    EvaluationFault,
    OptionalValue,
    kind,
    kind_name,
    no_overload,
    span_ns,
    time_ns,
)
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, allowance, charge, spend

__all__ = ["COMPARED", "compare_numbers", "equal", "find", "is_number", "literal_member", "member", "order"]

COMPARED = 6  #: 2**6 characters of a text are compared in a step
SCANNED = 2  #: 2**2 elements of a list are compared with a text in a step
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare_numbers(a: Any, b: Any) -> int | None:
    """-1, 0 or 1 across int, uint and double; None when a NaN is involved.

    Against a double an integer is rounded to double first, as the published conformance cases have it: the largest int
    equals 9223372036854775808.0.
    """
    if type(a) is float or type(b) is float:
        try:
            a, b = float(a), float(b)
        except OverflowError:  # an int beyond int64 can arrive as JSON
            pass
        if a != a or b != b:
            return None
    return -1 if a < b else 1 if a > b else 0


def find(mapping: dict[Any, Any], key: Any) -> tuple[bool, Any]:
    """Whether `mapping` has `key` and its value, with its value. As keys 1, 1u and 1.0 are one, and true is another."""
    if type(key) is str:
        return (True, mapping[key]) if key in mapping else (False, None)
    if not isinstance(key, int | float) or key != key:
        return False, None
    if key not in mapping:
        return False, None
    if key == 0 or key == 1:  # Python finds True under 1
        wanted = isinstance(key, bool)
        stored = next(k for k in mapping if k == key and not isinstance(k, str))
        if isinstance(stored, bool) is not wanted:
            return False, None
    return True, mapping[key]


def equal(a: Any, b: Any, budget: Budget | None) -> bool:
    """CEL's `==`: numbers across types by value, lists and maps deeply, values of different types unequal."""
    cls = type(a)
    if cls is type(b) and cls in _SCALARS:
        if (cls is str or cls is bytes) and len(a) == len(b) >= 1 << COMPARED:
            charge(len(a) >> COMPARED, budget)
        return bool(a == b)
    if is_number(a):
        return is_number(b) and compare_numbers(a, b) == 0
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and _equal_lists(a, b, allowance(budget))
    if isinstance(a, dict):
        return isinstance(b, dict) and len(a) == len(b) and _equal_maps(a, b, allowance(budget))
    if isinstance(a, datetime):
        return isinstance(b, datetime) and time_ns(a) == time_ns(b)
    if isinstance(a, timedelta):
        return isinstance(b, timedelta) and span_ns(a) == span_ns(b)
    if isinstance(a, OptionalValue) and isinstance(b, OptionalValue):
        return a.present is b.present and (not a.present or equal(a.value, b.value, budget))
    if isinstance(a, str | bytes) and isinstance(b, str | bytes):
        charge(min(len(a), len(b)) >> COMPARED, budget)
    return kind(a) == kind(b) and bool(a == b)


def _equal_lists(a: list[Any], b: list[Any], budget: Budget) -> bool:
    spend(len(a), budget)
    return all(equal(one, other, budget) for one, other in zip(a, b, strict=True))


def _equal_maps(a: dict[Any, Any], b: dict[Any, Any], budget: Budget) -> bool:
    spend(2 * len(a), budget)  # an entry is looked up, then compared
    for key, value in a.items():
        present, other = find(b, key)
        if not present or not equal(value, other, budget):
            return False
    return True


def member(a: Any, b: Any, budget: Budget | None) -> bool:
    """`a in b`: an element of a list, or a key of a map."""
    if isinstance(b, list):
        if type(a) is str and len(a) < 1 << COMPARED:
            return literal_member(a, b, budget)
        budget = allowance(budget)
        spend(len(b), budget)
        return any(equal(a, item, budget) for item in b)
    if isinstance(b, dict):
        return find(b, a)[0]
    raise no_overload('"in"', a, b)


def literal_member(a: str, b: Any, budget: Budget | None) -> bool:
    """`member` of a text whose length is charged elsewhere: a literal, which a macro charges for each element."""
    if not isinstance(b, list):
        return member(a, b, budget)
    charge(len(b) >> SCANNED, budget)
    return a in b  # no value of another type equals a str in Python either


def order(a: Any, b: Any, budget: Budget | None) -> int | None:
    """-1, 0 or 1 as `a` sorts before, with or after `b`; None when one is NaN.

    Raises:
        EvaluationFault: values of these types have no order.
    """
    if is_number(a) and is_number(b):
        return compare_numbers(a, b)
    if (type(a) is type(b) and type(a) in (str, bytes, bool)) or (isinstance(a, str) and isinstance(b, str)):
        if type(a) is not bool:
            charge(min(len(a), len(b)) >> COMPARED, budget)
        return -1 if a < b else 1 if a > b else 0
    if type(a) is datetime and type(b) is datetime and a.tzinfo is UTC and b.tzinfo is UTC:
        return -1 if a < b else 1 if a > b else 0
    if isinstance(a, datetime) and isinstance(b, datetime):
        return _sign(time_ns(a) - time_ns(b))
    if isinstance(a, timedelta) and isinstance(b, timedelta):
        return _sign(span_ns(a) - span_ns(b))
    raise EvaluationFault(
        Reason.NO_OVERLOAD,
        f"{kind_name(a)} and {kind_name(b)} have no order: {describe(a)} and {describe(b)}",
        a if not is_number(a) else b,
    )


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
