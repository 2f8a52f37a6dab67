"""Times and durations as they are written in events and rules.

Inside the evaluator a time is an `int`, microseconds since 1970-01-01T00:00:00Z (`_us`); at every public face it is a
timezone-aware `datetime`. Text is RFC 3339 for times (of what senders write, `read_time` reads more), and `90s`, `5m`, `1h30m`, `2d`, `250ms`, `1w`, ISO 8601 (`PT5M`)
or a number of seconds for durations.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

__all__ = [
    "Duration",
    "duration_us",
    "format_duration",
    "format_time",
    "format_us",
    "from_us",
    "parse_duration",
    "parse_time",
    "parse_us",
    "read_time",
    "to_us",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
#: what else has one meaning only: a space or nothing before the zone, `+0000`, `+02`, `UTC`, no seconds, a comma, ISO's basic form, a zone beside its offset
_ZONED = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[Tt ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?"
    r" ?(?:([Zz]|UTC|GMT)|([+-]\d\d)(?::?(\d\d))?(?: [A-Z]{1,5})?)(?:\[[A-Za-z0-9_/+-]{1,40}\])?",
    re.ASCII,
)
_HTTP_DATE = re.compile(
    r"(?:[A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d (?:GMT|UTC|[+-]\d{4})", re.ASCII
)
#: seconds since the epoch as text: so many digits that it is no date without separators
_EPOCH_TEXT = re.compile(r"(\d{9,10}|\d{12,13}|\d{15,16}|\d{18,19})(\.\d{1,30})?", re.ASCII)
#: below each limit a number of seconds, milliseconds, microseconds or nanoseconds: the year 5138
_EPOCH_UNITS: tuple[tuple[int, int], ...] = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
_MOST_NS = 10**20
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|w|d|h|m|s)", re.ASCII)
_ISO = re.compile(
    r"P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_UNIT_S = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001}
#: ten years: longer than any window that a process should hold
MAX_DURATION = timedelta(days=3653)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch of a timezone-aware `moment`."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The UTC `datetime` of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=us)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; digits past the microsecond are cut.

    Raises:
        ValueError: not RFC 3339, or without a zone; the message says which.
    """
    if not _RFC3339.fullmatch(text):
        if _RFC3339.fullmatch(text + "Z"):
            raise ValueError(f"{text!r} has no time zone; add Z or an offset such as +02:00")
        raise ValueError(f"{text[:80]!r} is not a time; write RFC 3339, such as 2026-01-31T08:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


def read_time(value: str | int | float) -> datetime:
    """A time in whatever form it has one meaning only: RFC 3339 and its near relations (`2026-11-26 17:23:34 UTC`, `+0000`, an HTTP
    date), or a number since 1970 as number or text. Its size tells seconds, milliseconds, microseconds and nanoseconds apart.

    Raises:
        ValueError: none of these, or without a zone; the message has the remedy.
    """
    if isinstance(value, (int, float)):
        return _of_epoch(value)
    text = value.strip()
    if _RFC3339.fullmatch(text):
        return parse_time(text)
    if found := _EPOCH_TEXT.fullmatch(text):
        return _of_epoch(int(text) if found[2] is None else Decimal(text))
    try:
        if found := _ZONED.fullmatch(text):
            year, month, day, hour, minute, second, fraction, zulu, offset, minutes = found.groups()
            zone = "+00:00" if zulu else f"{offset}:{minutes or '00'}"
            written = f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}.{(fraction or '0')[:6]:0<6}{zone}"
            return datetime.fromisoformat(written).astimezone(UTC)
        if _HTTP_DATE.fullmatch(text):
            return parsedate_to_datetime(text.replace("UTC", "GMT")).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value[:80]!r} is not a time: {error}") from None
    if _ZONED.fullmatch(text + "Z"):
        raise ValueError(f"{value[:80]!r} has no time zone; add Z or an offset such as +02:00")
    raise ValueError(f"{value[:80]!r} is not a time; RFC 3339 is, such as 2026-01-31T08:00:00Z, or a number since 1970")


def _of_epoch(value: int | float | Decimal) -> datetime:
    """The time of a number of seconds, milliseconds, microseconds or nanoseconds since 1970; what is below a microsecond is cut."""
    if not -_MOST_NS < value < _MOST_NS:  # NaN neither
        raise ValueError(
            f"{str(value)[:40]} is no time in seconds, milliseconds, microseconds or nanoseconds since 1970"
        )
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    scale: int | None = next((scale for limit, scale in _EPOCH_UNITS if abs(number) < limit), None)
    us = int(number // 1000) if scale is None else int(number * scale)
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        raise ValueError(f"{str(value)[:40]} is no time since 1970") from None


def parse_us(text: str) -> int:
    """Microseconds since the epoch of text that `format_time` wrote or a checked event carries."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-31T08:00:00.000000Z`, always of one length."""
    # `isoformat` takes a tenth of the time of `strftime`; in UTC it ends in +00:00
    return moment.astimezone(UTC).isoformat("T", "microseconds")[:-6] + "Z"


def format_us(us: int) -> str:
    """As `format_time`, of microseconds since the epoch."""
    return format_time(from_us(us))


def parse_duration(value: Any) -> timedelta:
    """Read a duration: `90s`, `1h30m`, `PT5M`, `1:30:00`, seconds as a number, or a `timedelta`.

    Raises:
        ValueError: not a duration, negative, or longer than ten years.
    """
    result: timedelta | None = None
    if isinstance(value, timedelta):
        result = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) > MAX_DURATION.total_seconds():
            raise ValueError(f"{value!r} seconds is not a usable duration; the longest is 10 years")
        result = timedelta(seconds=value)
    elif isinstance(value, str) and len(value) <= 64:
        result = _duration_of_text(value.strip())
    if result is None:
        raise ValueError(
            f"{str(value)[:80]!r} is not a duration; write 90s, 5m, 1h30m, 2d, PT5M or a number of seconds"
        )
    if result < timedelta(0):
        raise ValueError(f"{value!r} is negative; a duration is zero or more")
    if result > MAX_DURATION:
        raise ValueError(f"{value!r} is longer than 10 years")
    return result


def duration_us(value: timedelta) -> int:
    """Whole microseconds of a duration."""
    return value // _MICROSECOND


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: `1h30m`, `250ms`, `0s`."""
    us = value // _MICROSECOND
    if us == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        count, us = divmod(us, size)
        if count:
            parts.append(f"{count}{unit}")
    if us:
        parts.append(f"{us // 1000}ms" if us % 1000 == 0 else f"{us}us")
    return "".join(parts)


def _duration_of_text(text: str) -> timedelta | None:
    seconds = 0.0
    end = 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        end = part.end()
        seconds += float(part[1]) * _UNIT_S[part[2]]
    if not text:
        return None
    if end == 0:
        if iso := _ISO.fullmatch(text.upper()):
            if all(group is None for group in iso.groups()):
                return None
            amounts = zip(iso.groups(), (604800.0, 86400.0, 3600.0, 60.0, 1.0), strict=True)
            seconds = sum(float(group) * size for group, size in amounts if group)
        elif re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            seconds = float(text)
        elif clock := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)(\.\d+)?", text, re.ASCII):
            seconds = int(clock[1]) * 3600.0 + int(clock[2]) * 60 + int(clock[3]) + float(clock[4] or 0)
        else:
            return None
    elif end != len(text):
        return None
    if seconds > MAX_DURATION.total_seconds():
        raise ValueError(f"{text!r} is longer than 10 years")
    return timedelta(seconds=seconds)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}],
            "description": "a duration: 90s, 5m, 1h30m, 2d, PT5M, or a number of seconds",
            "examples": ["30s", "5m", "1h30m", "1d"],
        }
    ),
]
