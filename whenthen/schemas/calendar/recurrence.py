"""An RRULE with its DTSTART, EXDATE and RDATE lines: what local time comes next. Pure: no clock.

Called by `timetable`. Specification: RFC 5545, sections 3.3.10, 3.8.2.4, 3.8.5. Meaning: docs/deployments.md, "Schedules".

The rule itself is dateutil's, which looks for the next match until the year 9999 and can not be stopped on the way. So what could
match never is refused here before dateutil is asked, where that can be seen; and dateutil is asked 7,600 years ahead, where the
calendar is the same (it repeats every 400 years, weekdays included), so that its search ends after at most 500 years.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import gcd
from zoneinfo import ZoneInfo

from dateutil.rrule import DAILY, HOURLY, MINUTELY, MONTHLY, WEEKLY, YEARLY, rrule, rrulestr

from whenthen.schemas.calendar.zones import local_time, zone_of

__all__ = ["NextLocal", "Rule", "compile_rrule"]

#: the first local time that matches after the given one (or at it); None when there is none
NextLocal = Callable[[datetime, bool], datetime | None]

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
_MAX_POSITIONS = 31  #: of BYSETPOS; dateutil goes through all days for each
_MAX_TIMES = 1_440  #: of a day; dateutil makes a list of them
_YEARS = range(1900, 2200)  #: of a start
_LAST_YEAR = 2398  #: in which a match is looked for
_AHEAD = timedelta(days=19 * 146_097)  #: 19 times the 400 years after which the calendar repeats

_NAMES = "DTSTART|RRULE|EXRULE|RDATE|EXDATE"
#: a line that goes on in the next one, as RFC 5545 folds them
_FOLDED = re.compile(rf"\r?\n[ \t](?!\s*(?:(?:{_NAMES})[;:]|FREQ=))", re.IGNORECASE)
#: lines may also stand behind each other, as many tools write them
_BETWEEN = re.compile(rf"\s*\n\s*|\s+(?=(?:{_NAMES})[;:])", re.IGNORECASE)
_HINT = "an rrule is FREQ=... and maybe lines such as DTSTART;TZID=Europe/Berlin:20260131T080000, EXDATE and RDATE"


@dataclass(frozen=True, slots=True)
class Rule:
    """What comes next by the clock on the wall of a zone."""

    next_local: NextLocal
    elapsed: bool  #: follows elapsed time, not the clock on the wall
    first_possible: datetime = datetime(1970, 1, 1)
    zone: ZoneInfo | None = None  #: that the rule itself names; None for that of the schedule


@dataclass(slots=True)
class _Lines:
    """What the lines of a rule say."""

    rule: dict[str, str] = field(default_factory=dict)
    start: datetime | None = None
    days_out: set[date] = field(default_factory=set)
    times_out: set[datetime] = field(default_factory=set)
    more: set[datetime] = field(default_factory=set)


@lru_cache(maxsize=4096)
def compile_rrule(text: str, timezone: str, anchor: str | None) -> Rule:
    """The rule of a text in the zone that its DTSTART names, else in `timezone`. `anchor`, ISO 8601, is its start where no DTSTART is.

    Raises:
        ValueError: it is not understood, never comes, or would be too costly; the message has the remedy.
    """
    lines, zone, named = _read_lines(text, timezone)
    parts, start = lines.rule, lines.start
    if start is None and anchor is not None:
        start = local_time(datetime.fromisoformat(anchor), zone)
    if start is not None and start.year not in _YEARS:
        raise ValueError(f"{start.date()} is no start; one lies in the years {_YEARS[0]} to {_YEARS[-1]}")
    more = sorted(lines.more | ({start} if start is not None and not parts else set()))
    if not parts and not lines.more:
        raise ValueError(f"{text!r} has no FREQ, such as FREQ=WEEKLY;BYDAY=MO")
    repeat = None if not parts else _repeat(text, parts, start, zone)

    def next_local(local: datetime, inclusive: bool) -> datetime | None:
        if local.year > _LAST_YEAR:
            return None
        after = local
        while True:
            found = None if repeat is None else repeat.next_local(after, inclusive)
            single = next((at for at in more if at > after or (inclusive and at == after)), None)
            if single is not None and (found is None or single < found):
                found = single
            if found is None or not (found in lines.times_out or found.date() in lines.days_out):
                return found
            # on to the next day when the whole day is out; each of the dates is passed once
            whole = found.date() in lines.days_out
            after = datetime.combine(found.date() + timedelta(days=1), datetime.min.time()) if whole else found
            inclusive = whole

    first = min([*more[:1], *([] if repeat is None else [repeat.first_possible])])
    return Rule(next_local, repeat is not None and repeat.elapsed, first, zone if named else None)


def _read_lines(text: str, timezone: str) -> tuple[_Lines, ZoneInfo, bool]:
    """What the lines say, the zone of the rule, and whether the rule itself names it."""
    content = _FOLDED.sub("", text.replace("\\n", "\n"))
    split = [_split_line(line) for line in _BETWEEN.split(content) if line.strip()]
    zone, named = zone_of(timezone), False
    for line, name, parameters, _ in split:
        if name == "DTSTART" and "TZID" in parameters:
            found = _tzid(line, parameters)
            if timezone not in ("UTC", found.key):
                raise ValueError(f"{line!r} and timezone: {timezone} are two zones; leave one of them out")
            zone, named = found, True
    lines = _Lines()
    for line, name, parameters, value in split:
        if name in ("", "RRULE"):
            if lines.rule:
                raise ValueError(f"{text!r} has more than one rule; write one schedule for each")
            lines.rule = _rrule_parts(text, value)
            continue
        if name == "EXRULE":
            raise ValueError(f"{line!r}: EXRULE is not supported; name the dates with EXDATE")
        if name not in ("DTSTART", "EXDATE", "RDATE"):
            raise ValueError(f"{line!r} is not understood; {_HINT}")
        written = _tzid(line, parameters) if "TZID" in parameters else zone
        values = [_ical_time(item.partition("/")[0], written) for item in value.split(",")]
        if name == "DTSTART":
            if len(values) > 1 or lines.start is not None:
                raise ValueError(f"{line!r} is a second start; a rule has one DTSTART")
            lines.start = _in_zone(values[0][0], written, zone)
            continue
        for moment, is_day in values:
            if name == "RDATE":
                lines.more.add(_in_zone(moment, written, zone))
            elif is_day:
                lines.days_out.add(moment.date())
            else:
                lines.times_out.add(_in_zone(moment, written, zone))
    return lines, zone, named


def _split_line(line: str) -> tuple[str, str, dict[str, str], str]:
    """A content line: itself, its name, its parameters and its value."""
    name, colon, value = line.strip().partition(":")
    if not colon:
        return line, "", {}, line
    name, *parameters = name.split(";")
    found: dict[str, str] = {}
    for parameter in parameters:
        key, _, setting = parameter.partition("=")
        key = key.strip().upper()
        if key not in ("TZID", "VALUE") and not key.startswith("X-"):
            raise ValueError(f"{line[:80]!r} has {parameter[:40]!r}, which is not understood; {_HINT}")
        found[key] = setting.strip().strip('"')
    if found.get("VALUE", "DATE").upper() not in ("DATE", "DATE-TIME", "PERIOD"):
        raise ValueError(f"{line[:80]!r}: VALUE={found['VALUE'][:40]} is not known; DATE, DATE-TIME and PERIOD are")
    return line, name.strip().upper(), found, value


def _tzid(line: str, parameters: dict[str, str]) -> ZoneInfo:
    try:
        return zone_of(parameters["TZID"].removeprefix("/"))
    except ValueError as error:
        raise ValueError(f"{line[:80]!r}: {error}") from None


def _in_zone(moment: datetime, written: ZoneInfo, zone: ZoneInfo) -> datetime:
    """A local time of one zone, or a moment, as a local time of another."""
    if moment.tzinfo is None and written.key != zone.key:
        moment = moment.replace(tzinfo=written)
    return local_time(moment, zone)


def _ical_time(text: str, zone: ZoneInfo) -> tuple[datetime, bool]:
    """A time as RFC 5545 writes it, and whether it is a day. One that ends in Z has a zone."""
    found = re.fullmatch(r"(\d{8})(?:T(\d{6})(Z?))?", text.strip().upper(), re.ASCII)
    try:
        if found is None:
            raise ValueError("no match")
        moment = datetime.strptime(found[1] + (found[2] or "000000"), "%Y%m%d%H%M%S")
    except ValueError:
        raise ValueError(f"{text[:80]!r} is not a time of an rrule; write 20260131T080000, or with Z for UTC") from None
    return (moment.replace(tzinfo=UTC) if found[3] else moment), found[2] is None


def _repeat(text: str, parts: dict[str, str], start: datetime | None, zone: ZoneInfo) -> Rule:
    """What the rule itself gives, without the dates beside it."""
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
    until = None
    if "UNTIL" in parts:
        until = local_time(_ical_time(parts.pop("UNTIL"), zone)[0], zone)
        if until.year > _LAST_YEAR:
            until = None
    start = start or datetime(1970, 1, 1)
    if "BYEASTER" in parts:
        raise ValueError("BYEASTER is not of RFC 5545 and not supported; name the dates with RDATE")
    if _never_in_a_year(parts):
        raise ValueError(f"{text!r} never comes: no month that it names has such a day")
    _check_cost(text, parts)
    _write_out(parts, start)
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
    months = None if counted else {MONTHLY: interval, YEARLY: 12 * interval}.get(frequency)
    end = None if until is None else until + _AHEAD

    def next_local(local: datetime, inclusive: bool) -> datetime | None:
        begin = start
        # begin close by; whole steps keep the phase, and the fields that the start implies are in the rule
        if step is not None and local - start > 2 * step:
            begin = start + ((local - start) // step - 1) * step
        elif months is not None:
            passed = ((local.year - start.year) * 12 + local.month - start.month) // months - 1
            if passed > 0:
                year, month = divmod(start.year * 12 + start.month - 1 + passed * months, 12)
                begin = datetime(year, 1 if frequency == YEARLY else month + 1, 1)
        found = rule.replace(dtstart=begin + _AHEAD, until=end).after(local + _AHEAD, inc=inclusive)
        return found - _AHEAD if isinstance(found, datetime) else None

    return Rule(next_local, frequency in (HOURLY, MINUTELY), start)


def _write_out(parts: dict[str, str], start: datetime) -> None:
    """Add the fields of a yearly or monthly rule that its start implies, so that it may begin elsewhere."""
    if parts["FREQ"] not in ("YEARLY", "MONTHLY"):
        return
    if not parts.keys() & {"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY"}:
        parts["BYMONTHDAY"] = str(start.day)
        if parts["FREQ"] == "YEARLY":
            parts.setdefault("BYMONTH", str(start.month))
    parts.setdefault("BYHOUR", str(start.hour))
    parts.setdefault("BYMINUTE", str(start.minute))
    parts.setdefault("BYSECOND", str(start.second))


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


def _check_cost(text: str, parts: dict[str, str]) -> None:
    """Refuse more positions than dateutil tries fast, and more times of a day, or of the hour or minute that repeats, than one a minute."""
    if parts.get("BYSETPOS", "").count(",") >= _MAX_POSITIONS:
        raise ValueError(f"BYSETPOS has more than {_MAX_POSITIONS} positions; write BYDAY or BYMONTHDAY for days")
    by = [name for name in ("BYHOUR", "BYMINUTE", "BYSECOND") if name in parts]
    times = 1
    for name in by:
        times *= len(set(parts[name].split(",")))
    most = {"HOURLY": _MAX_TIMES // 24, "MINUTELY": 1}.get(parts["FREQ"], _MAX_TIMES)
    if parts["FREQ"] in ("HOURLY", "MINUTELY"):
        times = len(set(parts.get("BYSECOND", "0").split(",")))
        if parts["FREQ"] == "HOURLY":
            times *= len(set(parts.get("BYMINUTE", "0").split(",")))
    if times > most:
        raise ValueError(f"{text[:200]!r} comes more often than once a minute; use an interval")


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
