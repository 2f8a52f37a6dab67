"""Filters of our own, in place of Jinja's of the same names. They get the context first, which has the budget.

Used by `templates.environment`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

from jinja2.filters import do_urlencode, make_attrgetter
from jinja2.runtime import Context, Undefined

from whenthen.schemas import RenderError, is_deeper_than
from whenthen.templates.bounded_text import check_number, check_width, format_percent
from whenthen.templates.budget import MAX_CHARS, Budget, too_long
from whenthen.templates.scalar_text import scalar_text, written_items

__all__ = ["OWN_FILTERS"]


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


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "d": _default,
    "default": _default,
    "format": _format,
    "join": _join,
    "sum": _sum,
    "tojson": _tojson,
    "urlencode": _urlencode,
}
