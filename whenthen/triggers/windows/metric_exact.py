"""The aggregate of a metric over events that are all known, kept as events come and leave.

Adding or removing a value costs no more with many events than with few. Sums are kept as integers, in units of the smallest
float, and so are exact: the order of events, removals and restarts change nothing, and the result is rounded once.

Called by `triggers.windows.metric`; `scaled` and `unscaled` by `triggers.windows.metric_slices`, too.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any

__all__ = ["ExactAggregate", "Reading", "rank", "read", "scaled", "unscaled"]

#: floats are multiples of 2**-1074 (IEEE 754, binary64)
_SHIFT = 1074
_UNIT = 1 << _SHIFT


class Reading:
    """What an aggregate says: how it compares with the threshold (-1, 0 or 1; None without value), and as text."""

    __slots__ = ("shown", "sign")

    def __init__(self, sign: int | None, shown: str) -> None:
        self.sign = sign
        self.shown = shown


class ExactAggregate:
    """One aggregate over a changing collection of values, and the ids of their events."""

    __slots__ = ("_counts", "_kind", "_number", "_ordered", "_total", "ids")

    def __init__(self, kind: str, events: Iterable[tuple[str, Any]] = ()) -> None:
        self._kind = kind
        self._number = 0
        self._total = 0  #: of a sum or average, scaled
        self._counts: dict[str, int] = {}  #: of `distinct`, by value
        self._ordered: list[float] = []  #: of `min`, `max` and the percentiles
        self.ids: set[str] = set()
        for event_id, value in events:
            self.add(event_id, value)

    def add(self, event_id: str, value: Any) -> None:
        self.ids.add(event_id)
        self._number += 1
        if self._kind in ("sum", "avg"):
            self._total += scaled(value)
        elif self._kind == "distinct":
            self._counts[value] = self._counts.get(value, 0) + 1
        elif self._kind != "count":
            insort(self._ordered, value)

    def remove(self, event_id: str, value: Any) -> None:
        """Remove a value that was added."""
        self.ids.discard(event_id)
        self._number -= 1
        if self._kind in ("sum", "avg"):
            self._total -= scaled(value)
        elif self._kind == "distinct":
            left = self._counts[value] - 1
            if left:
                self._counts[value] = left
            else:
                del self._counts[value]
        elif self._kind != "count":
            del self._ordered[bisect_left(self._ordered, value)]

    def value(self) -> float | None:
        """The aggregate; None when it has no value."""
        kind = self._kind
        if kind == "count":
            return self._number
        if kind == "distinct":
            return len(self._counts)
        if kind == "sum":
            return unscaled(self._total)
        if not self._number:
            return None
        if kind == "avg":
            return unscaled(self._total) / self._number
        return float(self._ordered[rank(kind, self._number) - 1])


def read(value: float | None, threshold: float) -> Reading:
    """The reading of a value that is known."""
    if value is None:
        return Reading(None, "no value")
    return Reading((value > threshold) - (value < threshold), f"{value:g}")


def rank(kind: str, number: int) -> int:
    """Which of `number` values in order an aggregate is, from 1: the smallest, the largest, or the nearest rank."""
    if kind == "min":
        return 1
    if kind == "max":
        return number
    return max(1, -(-int(kind[1:]) * number // 100))


def scaled(value: float) -> int:
    """A finite number in units of 2**-1074, exact."""
    if isinstance(value, int):
        return value << _SHIFT
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_SHIFT + 1 - denominator.bit_length())


def unscaled(total: int) -> float:
    """The nearest float; infinite beyond the range of floats."""
    try:
        return total / _UNIT
    except OverflowError:
        return math.inf if total > 0 else -math.inf
