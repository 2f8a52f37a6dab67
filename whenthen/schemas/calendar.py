"""When a schedule comes next: cron, interval and RRULE in a time zone. Pure: no clock.

`runs.scheduler` and schedule triggers ask it; `Schedule` and `ScheduleTrigger` check themselves with it at load.

What a change of the clocks does (docs/deployments.md, "Schedules"):

- A schedule that names hours (`30 2 * * *`, `FREQ=DAILY`, an interval of whole days) follows the clock on the wall. A
  time that the change skips comes at the first moment after it; a time that comes twice counts once, the first.
- A schedule by the hour or faster (an hour field that starts with `*`, `FREQ=HOURLY`, `FREQ=MINUTELY`) follows elapsed
  time: the repeated hour counts twice, the skipped one does not exist.

RRULE is dateutil's, which looks for the next match until the year 9999 and can not be stopped on the way. So what could
match never, or only after millions of steps, is refused here before dateutil is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import gcd
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadDateError, CroniterError, croniter
from dateutil.rrule import DAILY, HOURLY, MINUTELY, WEEKLY, rrule, rrulestr

from whenthen.schemas.errors import near_names

__all__ = ["Timetable", "check_timetable", "next_after", "occurrences"]

#: the first local time that matches after the given one (or at it); None when there is none
NextLocal = Callable[[datetime, bool], datetime | None]

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
_STEP = {
    MINUTELY: timedelta(minutes=1),
    HOURLY: timedelta(hours=1),
    DAILY: timedelta(days=1),
    WEEKLY: timedelta(days=7),
}
#: what goes with HOURLY and MINUTELY: anything that matches at least once a week
_FAST_PARTS = {"FREQ", "INTERVAL", "UNTIL", "COUNT", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "WKST"}
_MAX_COUNT = 10_000
_MAX_INTERVAL = 1_000


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
    zone = _zone(timetable.timezone)
    after = after.astimezone(UTC)
    if timetable.interval is not None:
        if timetable.interval % timedelta(days=1):
            anchor = _EPOCH if timetable.anchor is None else _anchor(timetable.anchor, zone)
            steps = (after - anchor) // timetable.interval + 1
            return anchor + max(steps, 0) * timetable.interval
        first = datetime(1970, 1, 1) if timetable.anchor is None else _local(timetable.anchor, zone)
        return _next_on_the_wall(_whole_days(first, timetable.interval), zone, after)
    if timetable.cron is not None:
        cron = _compile_cron(timetable.cron)
        search = _next_elapsed if cron.elapsed else _next_on_the_wall
        return search(cron.next_local, zone, after)
    if timetable.rrule is not None:
        anchor_text = None if timetable.anchor is None else timetable.anchor.isoformat()
        rule = _compile_rrule(timetable.rrule, timetable.timezone, anchor_text)
        search = _next_elapsed if rule.elapsed else _next_on_the_wall
        return search(rule.next_local, zone, after)
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
    _zone(timetable.timezone)
    if timetable.interval is not None and timetable.interval < timedelta(seconds=1):
        raise ValueError("the shortest interval is 1s")
    if timetable.anchor is not None and timetable.cron is not None:
        raise ValueError("`anchor` belongs to an interval or rrule; a cron schedule has none")
    if timetable.rrule is not None:
        anchor_text = None if timetable.anchor is None else timetable.anchor.isoformat()
        rule = _compile_rrule(timetable.rrule, timetable.timezone, anchor_text)
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


def _zone(name: str) -> ZoneInfo:
    zone = _known_zone(name)
    if zone is None:
        near = near_names(name, available_timezones(), cutoff=0.7)
        hint = f"; did you mean {near[0]!r}?" if near else ", such as Europe/Berlin or UTC"
        raise ValueError(f"{name!r} is not a known IANA time zone{hint}")
    return zone


@lru_cache(maxsize=1024)
def _known_zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
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


@dataclass(frozen=True, slots=True)
class _Rule:
    next_local: NextLocal
    elapsed: bool  #: follows elapsed time, not the clock on the wall
    first_possible: datetime = datetime(1970, 1, 1)


@lru_cache(maxsize=4096)
def _compile_cron(text: str) -> _Rule:
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

    return _Rule(next_local, fields[1].startswith("*"))


# RRULE (RFC 5545)


@lru_cache(maxsize=4096)
def _compile_rrule(text: str, timezone: str, anchor: str | None) -> _Rule:
    zone = _zone(timezone)
    start = None if anchor is None else _local(datetime.fromisoformat(anchor), zone)
    parts: dict[str, str] = {}
    for line in text.replace("\\n", "\n").split("\n"):
        line = line.strip()
        if not line:
            continue
        name, _, value = line.rpartition(":")
        if name.upper() == "DTSTART":
            start = _ical_time(value, zone)
        elif parts:
            raise ValueError(f"{text!r} has more than one rule; write one schedule for each")
        elif name.upper() in ("", "RRULE"):
            parts = _rrule_parts(text, value)
        else:
            raise ValueError(
                f"{line!r} is not understood; an rrule is FREQ=... and maybe a line DTSTART:20260131T080000"
            )
    if "FREQ" not in parts:
        raise ValueError(f"{text!r} has no FREQ, such as FREQ=WEEKLY;BYDAY=MO")
    if parts["FREQ"] == "SECONDLY":
        raise ValueError("FREQ=SECONDLY is not supported; use an interval")
    if parts["FREQ"] in ("HOURLY", "MINUTELY") and (odd := sorted(set(parts) - _FAST_PARTS)):
        raise ValueError(
            f"FREQ={parts['FREQ']} does not go with {', '.join(odd)}; use cron, or FREQ=DAILY with BYHOUR and BYMINUTE"
        )
    if not (parts.get("INTERVAL", "1").isdecimal() and 1 <= int(parts.get("INTERVAL", "1")) <= _MAX_INTERVAL):
        raise ValueError(f"INTERVAL={parts['INTERVAL'][:40]} is not a number from 1 to {_MAX_INTERVAL}")
    counted = "COUNT" in parts
    if counted and start is None:
        raise ValueError("COUNT needs a start to count from: add `anchor`, or a DTSTART line")
    if counted and not (parts["COUNT"].isdecimal() and 1 <= int(parts["COUNT"]) <= _MAX_COUNT):
        raise ValueError(f"COUNT={parts['COUNT']} is not a number from 1 to {_MAX_COUNT}")
    until = _ical_time(parts.pop("UNTIL"), zone) if "UNTIL" in parts else None
    start = start or datetime(1970, 1, 1)
    if _never_in_a_year(parts):
        raise ValueError(f"{text!r} never comes: no month that it names has such a day")
    try:
        parsed = rrulestr(";".join(f"{key}={value}" for key, value in parts.items()), dtstart=start)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{text!r} is not an rrule: {error}") from None
    assert isinstance(parsed, rrule)
    rule = parsed
    frequency: int = rule._freq  # type: ignore[attr-defined]
    interval = int(parts.get("INTERVAL", "1"))
    if frequency in (HOURLY, MINUTELY) and not _reached_in_a_week(rule, start, _STEP[frequency] * interval):
        raise ValueError(f"{text!r} never comes: INTERVAL={interval} steps over every hour and day that it names")
    step = None if counted or frequency not in _STEP else _STEP[frequency] * interval

    def next_local(local: datetime, inclusive: bool) -> datetime | None:
        begin = start
        if step is not None and local - start > 2 * step:
            # begin close by; whole steps keep the phase and the fields that the start implies
            begin = start + ((local - start) // step - 1) * step
        found = rule.replace(dtstart=begin, until=until).after(local, inc=inclusive)
        return found if isinstance(found, datetime) else None

    return _Rule(next_local, frequency in (HOURLY, MINUTELY), start)


def _never_in_a_year(parts: dict[str, str]) -> bool:
    """Whether BYMONTH and BYMONTHDAY have no day in common in any year."""
    months, days = parts.get("BYMONTH", ""), parts.get("BYMONTHDAY", "")
    longest = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    try:
        return bool(months and days) and all(
            abs(int(day)) > longest[int(month) - 1] for month in months.split(",") for day in days.split(",")
        )
    except (ValueError, IndexError):
        return False  # not numbers; the parser says it better


def _reached_in_a_week(rule: rrule, start: datetime, step: timedelta) -> bool:
    """Whether steps from `start` ever meet the weekdays and hours of the rule; both repeat each week."""
    weekdays, hours = rule._byweekday, rule._byhour  # type: ignore[attr-defined]
    minutes = rule._byminute  # type: ignore[attr-defined]
    unit = timedelta(minutes=1)
    stride = gcd(step // unit, timedelta(days=7) // unit)
    moments = (start + timedelta(minutes=minute) for minute in range(0, 7 * 24 * 60, stride))
    if rule._freq == HOURLY:  # type: ignore[attr-defined]
        minutes = None  # an hourly rule has every minute of its hours
    return any(
        (not weekdays or at.weekday() in weekdays)
        and (not hours or at.hour in hours)
        and (not minutes or at.minute in minutes)
        for at in moments
    )


def _rrule_parts(text: str, value: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for item in value.strip().strip(";").split(";"):
        key, equals, setting = item.partition("=")
        key = key.strip().upper()
        if not equals or not key or key in parts:
            raise ValueError(f"{text!r} is not an rrule at {item!r}; write FREQ=DAILY;BYHOUR=9;BYMINUTE=0")
        parts[key] = setting.strip().upper()
    return parts


def _ical_time(text: str, zone: ZoneInfo) -> datetime:
    found = re.fullmatch(r"(\d{8})(?:T(\d{6})(Z?))?", text.strip().upper(), re.ASCII)
    try:
        if found is None:
            raise ValueError("no match")
        moment = datetime.strptime(found[1] + (found[2] or "000000"), "%Y%m%d%H%M%S")
    except ValueError:
        raise ValueError(f"{text!r} is not a time of an rrule; write 20260131T080000, or with Z for UTC") from None
    return _local(moment.replace(tzinfo=UTC), zone) if found[3] else moment


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)
