"""Filters of our own, some in place of Jinja's of the same names. They get the context first, which has the budget.

Used by `templates.environment`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from jinja2.filters import do_urlencode, make_attrgetter
from jinja2.runtime import Context, Undefined

from whenthen.schemas.base import MAX_DEPTH, is_deeper_than
from whenthen.schemas.errors import RenderError
from whenthen.schemas.times import format_time, read_time
from whenthen.templates.bounded_text import check_number, check_width, format_percent
from whenthen.templates.budget import MAX_CHARS, Budget, too_long
from whenthen.templates.scalar_text import kind_of_value, scalar_text, written_items

__all__ = ["OWN_FILTERS"]

#: characters of JSON that are decoded for one step
_READ_PER_STEP = 8
_LONG_INTEGER = re.compile("[0-9]{19}")
_MOST_DIGITS = 20
_MOST_TIME, _MOST_FORMAT = 200, 100
#: what `strptime` reads by the names of the machine's own zone, and what is no part of a time
_UNFIT_FORMAT = re.compile(r"%(?:[^aAbBdHIjmMpSfyYzGuVUWw]|$)")
_YEAR = re.compile(r"%[yYG]")
_UTC = ZoneInfo("UTC")


def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> str:
    budget: Budget = context.budget  # type: ignore[attr-defined]
    get = make_attrgetter(context.environment, attribute) if attribute is not None else None
    between = scalar_text(d)
    texts: list[str] = []
    size = 0
    for item in value:
        part = item if get is None else get(item)
        budget.spend(1)
        texts.append(scalar_text(part))
        size += len(texts[-1]) + len(between)
        if size > MAX_CHARS + len(between):
            raise too_long(size)
    return between.join(texts)


def _tojson(context: Context, value: Any, indent: Any = None) -> str:
    budget: Budget = context.budget  # type: ignore[attr-defined]
    before = budget.steps
    budget.walk(value)
    if indent is not None:
        check_width(indent, "tojson: indent", 16)
        budget.room((before - budget.steps) * int(indent) * _depth(value))
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_json_default)


def _depth(value: Any) -> int:
    depth = 1
    while is_deeper_than(value, depth):
        depth *= 2
    return depth


def _json_default(value: Any) -> Any:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise RenderError(f"tojson: {type(value).__name__} is not a JSON value")


def _sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    budget: Budget = context.budget  # type: ignore[attr-defined]
    get = make_attrgetter(context.environment, attribute) if attribute is not None else None
    total = start
    for item in value:
        part = item if get is None else get(item)
        budget.spend(1)
        if not isinstance(part, (int, float, timedelta)):
            if not isinstance(part, str):
                budget.walk(part)
            raise RenderError(f"sum adds numbers, found {type(part).__name__}")
        total = check_number(total + part)
    return total


def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise RenderError("format takes either values or named values, not both")
    return format_percent(context.budget, value, kwargs or args)  # type: ignore[attr-defined]


def _default(context: Context, value: Any, default_value: Any = "", boolean: Any = False) -> Any:
    """Jinja's, but null counts as missing: neither has a text."""
    return default_value if isinstance(value, Undefined) or value is None or (boolean and not value) else value


def _urlencode(context: Context, value: Any) -> str:
    return do_urlencode(written_items(value))


def _from_json(context: Context, value: Any) -> Any:
    """The value of JSON inside a text, within the limits of a body; an integer beyond 64 bits stays text, as in bodies."""
    budget: Budget = context.budget  # type: ignore[attr-defined]
    if not isinstance(value, str):
        if isinstance(value, Undefined):
            bool(value)  # raises, with what is missing
        raise RenderError(f"from_json reads a text, found {kind_of_value(value)}")
    budget.room(len(value))
    budget.spend(len(value) // _READ_PER_STEP)
    try:
        found = orjson.loads(value)
        if _LONG_INTEGER.search(value):
            found = json.loads(value, parse_int=_integer)
    except orjson.JSONDecodeError as error:
        raise RenderError(f"from_json: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    budget.walk(found)
    if is_deeper_than(found, MAX_DEPTH):
        raise RenderError(f"from_json: nested more than {MAX_DEPTH} deep")
    return found


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _MOST_DIGITS and -(2**63) <= int(text) < 2**64 else text


def _parse_time(context: Context, value: Any, format: Any = None, zone: Any = None) -> str:
    """A time as RFC 3339: by `format`, that of `strptime`, or of any form that has one meaning only. `zone` is that of a time that
    names none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        if isinstance(value, Undefined):
            bool(value)
        raise RenderError(f"parse_time reads a text or a number, found {kind_of_value(value)}")
    if isinstance(value, str) and len(value) > _MOST_TIME:
        raise RenderError(f"parse_time: a text of {len(value)} characters; at most {_MOST_TIME} are read")
    named = None if zone is None else _zone(zone)
    try:
        found = _read_time(value, named) if format is None else _read_by_format(value, format, named)
        return format_time(found)
    except (ValueError, OverflowError, re.error) as error:
        raise RenderError(f"parse_time: {error}") from None


def _read_time(value: str | int | float, zone: ZoneInfo | None) -> datetime:
    try:
        return read_time(value)
    except ValueError as error:
        if zone is None or not isinstance(value, str):
            raise
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            raise error from None
    return found if found.tzinfo else found.replace(tzinfo=zone)


def _read_by_format(value: str | int | float, format: Any, zone: ZoneInfo | None) -> datetime:
    if not isinstance(format, str) or not 0 < len(format) <= _MOST_FORMAT:
        raise RenderError(
            f'parse_time: a format of 1 to {_MOST_FORMAT} characters is expected, such as "%d/%m/%Y %H:%M"'
        )
    if unfit := _UNFIT_FORMAT.search(format.replace("%%", "")):
        raise RenderError(
            f"parse_time: {unfit[0]} is not understood; the zone of a time without an offset (%z) is the second parameter"
        )
    if not _YEAR.search(format.replace("%%", "")):
        raise RenderError(f"parse_time: the format {format!r} names no year; add %Y")
    text = scalar_text(value)
    try:
        found = datetime.strptime(text, format)
    except ValueError:
        raise RenderError(f"parse_time: {text[:80]!r} does not match {format!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=zone or _UTC)


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(scalar_text(name))
    except (ValueError, OSError, KeyError):
        raise RenderError(f"parse_time: {str(name)[:60]!r} is no time zone; name one such as Europe/Berlin") from None


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "d": _default,
    "default": _default,
    "format": _format,
    "from_json": _from_json,
    "join": _join,
    "parse_time": _parse_time,
    "sum": _sum,
    "tojson": _tojson,
    "urlencode": _urlencode,
}
