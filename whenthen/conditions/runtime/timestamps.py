"""Timestamps and durations: text to value and back, arithmetic in nanoseconds, and the parts of a moment.

A timestamp lies in the years 1 to 9999, a duration in an int64 of nanoseconds (about 292 years). Called by `functions`.
Meaning: cel-spec, langdef, "Timestamps and durations".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from whenthen.conditions.runtime.cel_values import (
    INT_MAX,
    INT_MIN,
    EvaluationFault,
    ExactSpan,
    ExactTime,
    span_ns,
    time_ns,
)
from whenthen.conditions.runtime.condition_errors import Reason, describe

__all__ = [
    "MAX_SPAN_CHARS",
    "format_span",
    "format_time",
    "local",
    "parse_span",
    "parse_time",
    "span_from_ns",
    "time_from_ns",
    "time_from_seconds",
]

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:(Z)|([+-][0-9]{2}:[0-9]{2}))"
)
_SPAN = re.compile(r"([+-]?)((?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:h|ms|us|µs|μs|ns|m|s))+)")
_SPAN_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(h|ms|us|µs|μs|ns|m|s)")
_UNIT_NS = {
    "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000,
    "ms": 1_000_000, "us": 1_000, "µs": 1_000, "μs": 1_000, "ns": 1,
}  # fmt: skip
_OFFSET = re.compile(r"([+-]?)([0-9]{2}):([0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799  # 0001-01-01 and 9999-12-31, in seconds
MAX_SPAN_CHARS = 200


def time_from_ns(ns: int) -> datetime:
    """The moment `ns` nanoseconds after 1970-01-01T00:00:00Z."""
    if not _MIN_SECONDS * 1_000_000_000 <= ns < (_MAX_SECONDS + 1) * 1_000_000_000:
        raise EvaluationFault(Reason.OVERFLOW, "timestamp is outside the years 1 to 9999")
    micros, nanos = divmod(ns, 1_000)
    value = _EPOCH + timedelta(microseconds=micros)
    return _with_nanos(value, nanos) if nanos else value


def time_from_seconds(seconds: int) -> datetime:
    """The moment `seconds` after 1970-01-01T00:00:00Z."""
    return time_from_ns(seconds * 1_000_000_000)


def _with_nanos(value: datetime, nanos: int) -> ExactTime:
    exact = ExactTime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    )
    exact.nanos = nanos
    return exact


def span_from_ns(ns: int) -> timedelta:
    """The duration of `ns` nanoseconds."""
    if not INT_MIN <= ns <= INT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, "duration is longer than an int64 of nanoseconds, about 292 years")
    micros, nanos = divmod(ns, 1_000)
    if not nanos:
        return timedelta(microseconds=micros)
    exact = ExactSpan(microseconds=micros)
    exact.nanos = nanos
    return exact


def parse_time(text: str) -> datetime:
    """An RFC 3339 timestamp, in UTC."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise EvaluationFault(
            Reason.BAD_CONVERSION, f"{describe(text)} is no RFC 3339 timestamp, such as 2026-01-31T08:00:00Z", text
        )
    whole, fraction, zulu, offset = match.groups()
    try:
        if zulu and fraction is None:
            return datetime.fromisoformat(text)
        value = datetime.fromisoformat(whole + (offset or "+00:00"))
        value = value.replace(tzinfo=UTC) if zulu else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise EvaluationFault(Reason.BAD_CONVERSION, f"{describe(text)}: {error}", text) from None
    if fraction is None:
        return value
    ns = int(fraction.ljust(9, "0"))
    value = value.replace(microsecond=ns // 1_000)
    return _with_nanos(value, ns % 1_000) if ns % 1_000 else value


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC, the fraction without trailing zeros."""
    seconds, ns = divmod(time_ns(value), 1_000_000_000)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("-%m-%dT%H:%M:%S")
    year = (_EPOCH + timedelta(seconds=seconds)).year
    fraction = f".{ns:09d}".rstrip("0") if ns else ""
    return f"{year:04d}{text}{fraction}Z"


def parse_span(text: str) -> timedelta:
    """A duration such as `1h30m`, `-1.5s` or `0`."""
    match = _SPAN.fullmatch(text) if len(text) <= MAX_SPAN_CHARS else None
    if match is None:
        if text in ("0", "+0", "-0"):
            return timedelta()
        raise EvaluationFault(
            Reason.BAD_CONVERSION,
            f"{describe(text)} is no duration, such as 1h30m or 1.5s (units h, m, s, ms, us, ns)",
            text,
        )
    ns = 0
    for whole, fraction, unit in _SPAN_PART.findall(match.group(2)):
        scale = _UNIT_NS[unit]
        ns += int(whole or "0") * scale
        if fraction:
            ns += int(fraction) * scale // 10 ** len(fraction)
    try:
        return span_from_ns(-ns if match.group(1) == "-" else ns)
    except EvaluationFault as fault:
        fault.value = text
        raise


def format_span(value: timedelta) -> str:
    """Seconds with an `s`, the fraction without trailing zeros."""
    ns = span_ns(value)
    seconds, rest = divmod(abs(ns), 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if ns < 0 else ''}{seconds}{fraction}s"


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo | None:
    match = _OFFSET.fullmatch(name)
    if match is not None:
        sign, hours, minutes = match.groups()
        if int(hours) > 23 or int(minutes) > 59:
            return None
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset)
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a name such as "America" is a folder of the zone database
        return None


def local(value: datetime, zone_name: str) -> datetime:
    """`value` on the clock of a zone: an IANA name or an offset such as `+02:00`.

    Raises:
        EvaluationFault: there is no such zone, or the local time leaves the years 1 to 9999.
    """
    zone = _zone(zone_name) if len(zone_name) < 100 else None
    if zone is None:
        raise EvaluationFault(Reason.BAD_CONVERSION, f"no time zone {describe(zone_name)}", zone_name)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    try:
        return value.astimezone(zone)
    except OverflowError:
        raise EvaluationFault(Reason.OVERFLOW, "local time is outside the years 1 to 9999", value) from None
