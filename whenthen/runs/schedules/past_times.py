"""Times of a schedule that have passed: those to make up for, and those of a backfill. Pure, and bounded in what is looked at.

Called by `scheduler` and `backfills`. Meaning: docs/deployments.md, "Schedules".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from whenthen.schemas.calendar import Timetable, occurrences
from whenthen.schemas.deployments import CatchUp, Schedule

__all__ = ["MOST_CAUGHT_UP", "Span", "missed", "span_of", "upcoming"]

MOST_CAUGHT_UP: Final = 1000  #: runs that one schedule makes up for; older times are left out
_FIRST_LOOK: Final = timedelta(
    hours=1
)  #: back; then twice as far each time, so that a day of seconds is not walked through for one of them
_COUNTED: Final = 10_000  #: times of a span that are counted one by one


def missed(
    schedule: Schedule, since: datetime, now: datetime, *, late_after: timedelta
) -> tuple[list[datetime], list[datetime]]:
    """The times in (since, now] for which runs are created: those that are in time, and those that were missed and are made up for."""
    reach = max(late_after, schedule.catch_up_within)
    times = _latest(schedule, max(since, now - reach), now, MOST_CAUGHT_UP)
    fresh = [at for at in times if now - at <= late_after]
    old = times[: len(times) - len(fresh)]
    if schedule.catch_up is CatchUp.ALL:
        return fresh, old
    return fresh, old[-1:] if schedule.catch_up is CatchUp.LAST and not fresh else []


def _latest(timetable: Timetable, since: datetime, now: datetime, most: int) -> list[datetime]:
    """The last `most` times in (since, now], or all."""
    look = _FIRST_LOOK
    while True:
        start = max(since, now - look)
        times = list(occurrences(timetable, start, now, limit=_COUNTED))
        if start <= since or len(times) >= most:
            return times[-most:]
        look *= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The times of a schedule in a span of time."""

    times: Sequence[datetime]  #: at most as many as were asked for
    count: int
    exact: bool = True  #: whether that is how many there are, and not about how many


def span_of(timetable: Timetable, since: datetime, until: datetime, *, most: int) -> Span:
    """The times in [since, until), the first `most` of them, and how many there are."""
    tick = timedelta(microseconds=1)
    found = list(occurrences(timetable, since - tick, until - tick, limit=most + 1))
    if len(found) <= most:
        return Span(times=found, count=len(found))
    times = list(occurrences(timetable, since - tick, until - tick, limit=_COUNTED))
    if len(times) < _COUNTED:
        return Span(times=times[:most], count=len(times))
    step = (times[-1] - times[0]) / (len(times) - 1)
    return Span(times=times[:most], count=round((until - times[0]) / step), exact=False)


def upcoming(timetable: Timetable, now: datetime, *, most: int) -> list[datetime]:
    """The next times, at most `most`, of the next ten years."""
    return list(occurrences(timetable, now, now + timedelta(days=3660), limit=most))
