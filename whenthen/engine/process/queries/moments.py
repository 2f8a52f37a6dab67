"""Moments as people give them to a list: a time, or how long ago it was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import parse_duration, parse_time, to_us

__all__ = ["moment_us", "time_range"]


def moment_us(text: str | None, field: str, now: datetime) -> int | None:
    """A time, or how long ago it was, such as 2h. Raises InvalidInput: it is neither."""
    if text is None:
        return None
    try:
        return to_us(parse_time(text))
    except ValueError:
        pass
    try:
        return to_us(now - parse_duration(text))
    except (ValueError, OverflowError):
        why = f"{text[:80]!r} is neither a time (2026-01-31T08:00:00Z) nor how long ago it was (2h, 7d)"
        raise InvalidInput(why, path=(field,)) from None


def time_range(filters: Mapping[str, str | None], now: datetime) -> tuple[int | None, int | None]:
    """`since` and `until`, the end exclusive.

    Raises:
        InvalidInput: one is no moment, or nothing lies between them.
    """
    since, until = (moment_us(filters.get(name), name, now) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise InvalidInput(
            f"the beginning {filters['since']!r:.80} is not before the end {filters['until']!r:.80}; exchange them",
            path=("since",),
        )
    return since, until
