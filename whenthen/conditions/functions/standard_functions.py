"""Sizes, the tests of texts, and the parts of times and durations.

Called through `function_table`. Meaning: cel-spec, langdef, "Standard definitions".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import no_overload, span_ns
from whenthen.conditions.runtime.comparing import COMPARED
from whenthen.conditions.runtime.cost import Budget, charge

__all__ = ["OF_TIMES_ALONE", "PARTS", "contains", "ends_with", "search_steps", "size", "starts_with"]

#: the parts that a duration does not have
OF_TIMES_ALONE = frozenset({"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"})


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


PARTS: dict[str, Callable[..., int]] = {
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
