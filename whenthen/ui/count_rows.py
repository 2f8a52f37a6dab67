"""Counts over time as rows of a picture: a row for each reason, a bar for each hour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from whenthen.ui.reason_words import reason_words

__all__ = ["CountRow", "count_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """One value over time."""

    value: str
    total: int
    counts: tuple[int, ...]  #: of each step, the oldest first
    titles: tuple[str, ...]  #: what each says


def count_rows(
    found: Iterable[tuple[str, str, int]], *, now: datetime, steps: int = 24, step: timedelta = timedelta(hours=1)
) -> list[CountRow]:
    """Rows of `(beginning, value, count)` over the last `steps`, `fired` first and then the most frequent. Values that did not occur
    have no row; what began earlier is left out."""
    size = int(step.total_seconds())
    last = int(now.timestamp()) // size
    counts: dict[str, list[int]] = {}
    for at, value, count in found:
        place = int(datetime.fromisoformat(at).timestamp()) // size - last + steps - 1
        if 0 <= place < steps:
            counts.setdefault(value, [0] * steps)[place] += count
    begins = [datetime.fromtimestamp((last - steps + 1 + number) * size, UTC) for number in range(steps)]
    shown = [begin.strftime("%Y-%m-%d %H:%M UTC") for begin in begins]
    rows = [
        CountRow(
            value=value,
            total=sum(each),
            counts=tuple(each),
            titles=tuple(f"{at}: {count:,} {reason_words(value)}" for at, count in zip(shown, each, strict=True)),
        )
        for value, each in counts.items()
    ]
    return sorted(rows, key=lambda row: (row.value != "fired", -row.total, row.value))
