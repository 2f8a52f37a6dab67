"""The functions of CEL by name: text, the parts of times and durations, conversions.

`FUNCTIONS` is the table that `check` refuses by, `exact` calls and `codegen` inlines from. Meaning: cel-spec, langdef,
"Standard definitions".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from whenthen.conditions.runtime import conversions
from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import kind, no_overload, span_ns
from whenthen.conditions.runtime.comparing import COMPARED
from whenthen.conditions.runtime.cost import Budget, charge
from whenthen.conditions.runtime.regex import matches

__all__ = ["CHARGED_FUNCTIONS", "FUNCTIONS"]


def size(value: Any) -> int:
    """Code points of a string, bytes, elements of a list, entries of a map."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise no_overload("size()", value)


def _text(name: str, *operands: Any) -> None:
    for operand in operands:
        if not isinstance(operand, str):
            raise no_overload(f"{name}()", *operands)


def starts_with(value: Any, prefix: Any, budget: Budget | None) -> bool:
    _text("startsWith", value, prefix)
    charge(min(len(value), len(prefix)) >> COMPARED, budget)
    return bool(value.startswith(prefix))


def ends_with(value: Any, suffix: Any, budget: Budget | None) -> bool:
    _text("endsWith", value, suffix)
    charge(min(len(value), len(suffix)) >> COMPARED, budget)
    return bool(value.endswith(suffix))


def contains(value: Any, part: Any, budget: Budget | None) -> bool:
    _text("contains", value, part)
    charge(search_steps(len(value), len(part)), budget)
    return part in value


def search_steps(chars: int, part: int) -> int:
    """Steps of a search. In short texts Python compares at every place, which can take as long as both lengths multiplied."""
    if chars < 32 or part > chars:
        return 0
    if chars >= 30_000 or (part >= 100 and chars >= 2_500):
        return (chars + part) >> 5
    return chars * (8 + part) >> 9


# -- parts of times and durations


def _part(
    name: str, of_time: Callable[[datetime], int], of_span: Callable[[int], int] | None = None
) -> Callable[..., int]:
    def part(value: Any, *zone: Any) -> int:
        if isinstance(value, datetime) and not zone:
            return of_time(times.local(value, "UTC") if value.tzinfo is not UTC else value)
        if isinstance(value, datetime) and isinstance(zone[0], str):
            return of_time(times.local(value, zone[0]))
        if of_span is not None and isinstance(value, timedelta) and not zone:
            ns = span_ns(value)
            return of_span(ns) if ns >= 0 else -of_span(-ns)
        raise no_overload(f"{name}()", value, *zone)

    return part


_PARTS: dict[str, Callable[..., int]] = {
    "getFullYear": _part("getFullYear", lambda t: t.year),
    "getMonth": _part("getMonth", lambda t: t.month - 1),
    "getDate": _part("getDate", lambda t: t.day),
    "getDayOfMonth": _part("getDayOfMonth", lambda t: t.day - 1),
    "getDayOfWeek": _part("getDayOfWeek", lambda t: t.isoweekday() % 7),
    "getDayOfYear": _part("getDayOfYear", lambda t: t.timetuple().tm_yday - 1),
    "getHours": _part("getHours", lambda t: t.hour, lambda ns: ns // 3_600_000_000_000),
    "getMinutes": _part("getMinutes", lambda t: t.minute, lambda ns: ns // 60_000_000_000),
    "getSeconds": _part("getSeconds", lambda t: t.second, lambda ns: ns // 1_000_000_000),
    "getMilliseconds": _part("getMilliseconds", lambda t: t.microsecond // 1_000, lambda ns: ns // 1_000_000 % 1_000),
}

# -- the tables

#: the functions that take a budget after their arguments
CHARGED_FUNCTIONS = frozenset(
    {
        *("matches", "startsWith", "endsWith", "contains"),
        *("string", "bytes", "int", "uint", "double", "timestamp", "duration"),
    }
)
#: function -> (implementation, numbers of arguments as f(...), numbers of arguments as x.f(...))
FUNCTIONS: dict[str, tuple[Callable[..., Any], frozenset[int], frozenset[int]]] = {
    "size": (size, frozenset({1}), frozenset({0})),
    "matches": (matches, frozenset({2}), frozenset({1})),
    "startsWith": (starts_with, frozenset(), frozenset({1})),
    "endsWith": (ends_with, frozenset(), frozenset({1})),
    "contains": (contains, frozenset(), frozenset({1})),
    "type": (kind, frozenset({1}), frozenset()),
    "dyn": (conversions.to_dyn, frozenset({1}), frozenset()),
    "int": (conversions.to_int, frozenset({1}), frozenset()),
    "uint": (conversions.to_uint, frozenset({1}), frozenset()),
    "double": (conversions.to_double, frozenset({1}), frozenset()),
    "string": (conversions.to_string, frozenset({1}), frozenset()),
    "bytes": (conversions.to_bytes, frozenset({1}), frozenset()),
    "bool": (conversions.to_bool, frozenset({1}), frozenset()),
    "timestamp": (conversions.to_timestamp, frozenset({1}), frozenset()),
    "duration": (conversions.to_duration, frozenset({1}), frozenset()),
    **{name: (part, frozenset[int](), frozenset({0, 1})) for name, part in _PARTS.items()},
}
