"""Optional values: made, asked, mapped, and replaced where they are empty.

Called through `function_table`, and by `exact` and compiled code for the optional macros and literals; `a.?b` and `a[?b]` are
operators.
Meaning: cel-go's optional types, version 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from whenthen.conditions.runtime.cel_values import NONE, EvaluationFault, OptionalValue, no_overload, span_ns, time_ns
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, charge

__all__ = [
    "either",
    "filled",
    "filled_entries",
    "first",
    "flat_mapped",
    "has_value",
    "last",
    "mapped",
    "none",
    "of",
    "of_non_zero_value",
    "unwrap",
    "value",
    "value_or",
]

_ZERO_TIME_NS = -62_135_596_800_000_000_000  #: 0001-01-01T00:00:00Z, in nanoseconds since 1970


def _checked(name: str, optional: Any, *others: Any) -> OptionalValue:
    if not isinstance(optional, OptionalValue):
        raise no_overload(f"{name}()", optional, *others)
    return optional


def of(value: Any) -> OptionalValue:
    return OptionalValue(value, present=True)


def none() -> OptionalValue:
    return NONE


def of_non_zero_value(value: Any) -> OptionalValue:
    """Empty for null, false, zero, what has no elements, and the timestamp 0001-01-01T00:00:00Z."""
    if isinstance(value, datetime):
        empty = time_ns(value) == _ZERO_TIME_NS
    elif isinstance(value, timedelta):
        empty = span_ns(value) == 0
    elif isinstance(value, str | bytes | list | dict):
        empty = not len(value)
    else:
        empty = value is None or (isinstance(value, int | float) and value == 0)
    return NONE if empty else of(value)


def has_value(optional: Any) -> bool:
    return _checked("hasValue", optional).present


def value(optional: Any) -> Any:
    if not _checked("value", optional).present:
        raise EvaluationFault(
            Reason.NO_SUCH_FIELD, "value() of an optional that has none; orValue(...) gives another one", optional
        )
    return optional.value


def either(optional: Any, other: Callable[[], Any]) -> OptionalValue:
    """`optional.or(other)`: the first of the two that has a value. `other` is evaluated when it is needed."""
    if _checked("or", optional).present:
        return optional  # type: ignore[no-any-return]
    return _checked("or", other())


def value_or(optional: Any, other: Callable[[], Any]) -> Any:
    """`optional.orValue(other)`. `other` is evaluated when it is needed."""
    return optional.value if _checked("orValue", optional).present else other()


def mapped(optional: Any, body: Callable[[Any], Any]) -> OptionalValue:
    """`optional.optMap(x, body)`."""
    return of(body(optional.value)) if _checked("optMap", optional).present else NONE


def flat_mapped(optional: Any, body: Callable[[Any], Any]) -> OptionalValue:
    """`optional.optFlatMap(x, body)`, where the body gives an optional."""
    return _checked("optFlatMap", body(optional.value)) if _checked("optFlatMap", optional).present else NONE


def unwrap(optionals: Any, budget: Budget | None) -> list[Any]:
    """The values of a list of optionals; empty ones are left out."""
    if not isinstance(optionals, list):
        raise no_overload("unwrapOpt()", optionals)
    charge(len(optionals), budget)
    return [item.value for item in (_checked("unwrapOpt", item) for item in optionals) if item.present]


def first(items: Any) -> OptionalValue:
    if not isinstance(items, list):
        raise no_overload("first()", items)
    return of(items[0]) if items else NONE


def last(items: Any) -> OptionalValue:
    if not isinstance(items, list):
        raise no_overload("last()", items)
    return of(items[-1]) if items else NONE


def filled(entries: Iterable[tuple[bool, Any]]) -> list[Any]:
    """The elements of a list with `?` before some: of those marked the values, where they have one."""
    found = []
    for maybe, item in entries:
        if not maybe:
            found.append(item)
        elif _marked(item).present:
            found.append(item.value)
    return found


def filled_entries(entries: Iterable[tuple[Any, Any]], maybe: frozenset[int]) -> list[tuple[Any, Any]]:
    """The entries of a map, of which those in `maybe` have `?` before the key."""
    found = []
    for number, (key, item) in enumerate(entries):
        if number not in maybe:
            found.append((key, item))
        elif _marked(item).present:
            found.append((key, item.value))
    return found


def _marked(item: Any) -> OptionalValue:
    if not isinstance(item, OptionalValue):
        raise EvaluationFault(Reason.NO_OVERLOAD, f'"?" takes an optional, which {describe(item)} is not', item)
    return item
