"""When a schedule comes next: cron, interval and RRULE in a time zone. Pure: no clock.

`runs.schedules` and schedule triggers ask it; `Schedule` and `ScheduleTrigger` check themselves with it at load.

What a change of the clocks does (docs/deployments.md, "Schedules"):

- A schedule that names hours (`30 2 * * *`, `FREQ=DAILY`, an interval of whole days) follows the clock on the wall. A
  time that the change skips comes at the first moment after it; a time that comes twice counts once, the first.
- A schedule by the hour or faster (an hour field that starts with `*`, `FREQ=HOURLY`, `FREQ=MINUTELY`) follows elapsed
  time: the repeated hour counts twice, the skipped one does not exist.

RRULEs are read by `recurrence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

from whenthen.schemas.calendar.recurrence import NextLocal, Rule, compile_rrule
from whenthen.schemas.calendar.zones import local_time, zone_of

__all__ = ["Timetable", "check_timetable", "next_after", "occurrences"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9990, 1, 1, tzinfo=UTC)  #: arithmetic past this year overflows
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Timetable(Protocol):
    """What `Schedule` and `ScheduleTrigger` have in common. Exactly one of cron, interval and rrule is given."""

    @property
    def cron(self) -> str | None: ...
    @property
    def interval(self) -> timedelta | None: ...
    @property
    def anchor(self) -> datetime | None: ...
    @property
    def rrule(self) -> str | None: ...
    @property
    def timezone(self) -> str: ...


def next_after(timetable: Timetable, after: datetime) -> datetime | None:
    """The first time later than `after` (timezone-aware), in UTC; None when none comes any more.

    Raises:
        ValueError: the timetable is not valid; `check_timetable` says so at load.
    """
    if after >= _END:
        return None
    zone = zone_of(timetable.timezone)
    after = after.astimezone(UTC)
    if timetable.interval is not None:
        if timetable.interval % timedelta(days=1):
            anchor = _EPOCH if timetable.anchor is None else _anchor(timetable.anchor, zone)
            steps = (after - anchor) // timetable.interval + 1
            return anchor + max(steps, 0) * timetable.interval
        first = datetime(1970, 1, 1) if timetable.anchor is None else local_time(timetable.anchor, zone)
        return _next_on_the_wall(_whole_days(first, timetable.interval), zone, after)
    if timetable.cron is not None:
        cron = _compile_cron(timetable.cron)
        search = _next_elapsed if cron.elapsed else _next_on_the_wall
        return search(cron.next_local, zone, after)
    if timetable.rrule is not None:
        anchor_text = None if timetable.anchor is None else timetable.anchor.isoformat()
        rule = compile_rrule(timetable.rrule, timetable.timezone, anchor_text)
        search = _next_elapsed if rule.elapsed else _next_on_the_wall
        return search(rule.next_local, rule.zone or zone, after)
    raise ValueError("a schedule is one of cron, interval or rrule; found none")


def occurrences(timetable: Timetable, after: datetime, until: datetime, *, limit: int = 10_000) -> Iterator[datetime]:
    """The times in (after, until], oldest first, at most `limit` of them."""
    for _ in range(limit):
        moment = next_after(timetable, after)
        if moment is None or moment > until:
            return
        yield moment
        after = moment


def check_timetable(timetable: Timetable, *, now: datetime = _EPOCH) -> None:
    """Refuse what can not be understood or never comes.

    Raises:
        ValueError: names what was found and the remedy.
    """
    zone_of(timetable.timezone)
    if timetable.interval is not None and timetable.interval < timedelta(seconds=1):
        raise ValueError("the shortest interval is 1s")
    if timetable.anchor is not None and timetable.cron is not None:
        raise ValueError("`anchor` belongs to an interval or rrule; a cron schedule has none")
    if timetable.rrule is not None:
        anchor_text = None if timetable.anchor is None else timetable.anchor.isoformat()
        rule = compile_rrule(timetable.rrule, timetable.timezone, anchor_text)
        now = rule.first_possible.replace(tzinfo=UTC) - timedelta(days=2)
    if next_after(timetable, now) is None:
        written = timetable.cron or timetable.rrule
        raise ValueError(f"{written!r} never comes; check days and months, such as February 30")


# Local time and elapsed time


def _next_on_the_wall(next_local: NextLocal, zone: ZoneInfo, after: datetime) -> datetime | None:
    local = next_local(after.astimezone(zone).replace(tzinfo=None), False)
    while local is not None:
        moment = _first_moment(local, zone)
        if moment > after:
            return moment
        local = next_local(local, False)
    return None


def _next_elapsed(next_local: NextLocal, zone: ZoneInfo, after: datetime) -> datetime | None:
    start, inclusive = after, False
    while start < _END:
        local_start = start.astimezone(zone)
        local = next_local(local_start.replace(tzinfo=None), inclusive)
        if local is None:
            return None
        moment = start + (local - local_start.replace(tzinfo=None))
        change = _first_change(zone, start, moment)
        if change is None:
            return moment
        start, inclusive = change, True
    return None


def _first_moment(local: datetime, zone: ZoneInfo) -> datetime:
    """The instant of a local time: the first of two, and for a skipped one the end of the skipped span."""
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    day = timedelta(days=1)
    return _first_change(zone, moment - day, moment) or moment


def _first_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The first change of the offset in (start, end], to the second; None when there is none.

    Steps of seven days see every change that lasts longer than that; no zone has had two opposite ones within a week
    since 1970.
    """
    offset = start.astimezone(zone).utcoffset()
    low = start
    while low < end:
        high = min(low + timedelta(days=7), end)
        if high.astimezone(zone).utcoffset() != offset:
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                if middle.astimezone(zone).utcoffset() == offset:
                    low = middle
                else:
                    high = middle
            return high.replace(microsecond=0)
        low = high
    return None


# Intervals


def _anchor(anchor: datetime, zone: ZoneInfo) -> datetime:
    return anchor.astimezone(UTC) if anchor.tzinfo is not None else _first_moment(anchor, zone)


def _whole_days(anchor: datetime, interval: timedelta) -> NextLocal:
    def next_local(local: datetime, inclusive: bool) -> datetime | None:
        steps = -((anchor - local) // interval) if inclusive else (local - anchor) // interval + 1
        return anchor + max(steps, 0) * interval

    return next_local


# Cron


@lru_cache(maxsize=4096)
def _compile_cron(text: str) -> Rule:
    written = " ".join(text.split())
    if written.startswith("@"):
        if written.lower() not in _MACROS:
            raise ValueError(f"{text!r} is not a cron macro; they are {', '.join(sorted(_MACROS))}")
        written = _MACROS[written.lower()]
    fields = written.split(" ") if written else []
    if len(fields) != 5:
        raise ValueError(
            f"{text!r} has {len(fields)} fields; cron has 5: minute hour day month weekday"
            + (" (for seconds, use an interval)" if len(fields) in (6, 7) else "")
        )
    if found := re.search(r"(?<![A-Za-z])[HhRr](?![A-Za-z])", written):
        raise ValueError(f"{text!r} has {found[0]!r}: hashed and random fields differ between machines; write a value")
    try:
        croniter(written, datetime(2000, 1, 1))
    except (CroniterError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{text!r} is not a cron expression: {error}") from None

    def next_local(local: datetime, inclusive: bool) -> datetime | None:
        start = local - timedelta(microseconds=1) if inclusive else local
        try:
            found: datetime = croniter(written, start, ret_type=datetime).get_next()
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return found.replace(microsecond=0, tzinfo=None)

    return Rule(next_local=next_local, elapsed=fields[1].startswith("*"))
