"""Operators, filters and methods of templates; those whose cost depends on their arguments are checked before they run.

Used by `templates.environment`. What is listed here is all that a template can call. Filters that are about HTML,
random numbers or Python objects are left out: the text must be the same on every retry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from string import Formatter
from typing import Any

from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedFormatter

from whenthen.schemas import RenderError
from whenthen.templates.budget import MAX_CHARS, Budget, too_long

__all__ = [
    "CONSTANT",
    "DEEP",
    "FILTERS",
    "GUARDS",
    "LIST_METHODS",
    "MAPPING_METHODS",
    "OWN_FILTERS",
    "STRING_METHODS",
    "TIME_TYPES",
    "BoundedFormatter",
    "check_method",
    "format_percent",
    "operate",
]

#: widths, counts and the like
MAX_WIDTH = 10_000
#: bits of a whole number
MAX_BITS = 4096
#: filters of Jinja that templates may use
FILTERS = frozenset(
    (
        "abs",
        "batch",
        "capitalize",
        "center",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "filesizeformat",
        "first",
        "float",
        "format",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "slice",
        "sort",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
        "wordwrap",
    )
)
#: filters and tests whose work does not depend on the size of their arguments
CONSTANT = frozenset(("count", "d", "default", "defined", "first", "last", "length", "mapping", "none"))
#: filters and tests whose work depends on everything inside their arguments
DEEP = frozenset(
    (
        "!=",
        "<",
        "<=",
        "==",
        ">",
        ">=",
        "dictsort",
        "e",
        "eq",
        "equalto",
        "escape",
        "ge",
        "greaterthan",
        "groupby",
        "gt",
        "in",
        "le",
        "lessthan",
        "lt",
        "max",
        "min",
        "ne",
        "sort",
        "string",
        "unique",
        "urlencode",
    )
)
STRING_METHODS = frozenset(
    (
        "capitalize",
        "casefold",
        "center",
        "count",
        "endswith",
        "find",
        "format",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "zfill",
    )
)
MAPPING_METHODS = frozenset(("get", "items", "keys", "values"))
LIST_METHODS = frozenset(("count", "index"))
TIME_TYPES = (datetime, date, time, timedelta)

_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?")
_STRFTIME = re.compile(r"(?:[^%]|%[-_0^#]?[A-Za-z%])*")


def operate(budget: Budget, operator: str, left: Any, right: Any, plain: Callable[[Any, Any], Any]) -> Any:
    """The result of `left operator right`, unless it would be too large."""
    if operator == "%" and isinstance(left, str):
        return format_percent(budget, left, right)
    if isinstance(left, (str, list, tuple)) and operator == "+" and isinstance(right, type(left)):
        budget.room(len(left) + len(right))
    elif operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(text, (str, list, tuple)) and isinstance(times, int):
                budget.room(len(text) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if operator == "**":
            bits = left.bit_length() * max(right, 1)
        if bits > MAX_BITS and operator in ("*", "**"):
            raise RenderError(f"the result of {operator} would have about {bits} bits; at most {MAX_BITS} are allowed")
    return plain(left, right)


def format_percent(budget: Budget, text: str, values: Any) -> str:
    """`text % values`, with bounded widths."""
    fields = 0
    for field in _PERCENT.finditer(text):
        fields += 1
        for width in field.groups():
            if width == "*" or (width and (len(width) > 5 or int(width) > MAX_WIDTH)):
                raise RenderError(f"the format {field[0][:40]!r} has a width above {MAX_WIDTH}")
    longest = max((_text_size(budget, item) for item in _parts(values)), default=0)
    budget.room(len(text) + fields * longest)
    return str(text % values)


def _parts(values: Any) -> list[Any]:
    if isinstance(values, tuple):
        return list(values)
    return list(values.values()) if isinstance(values, Mapping) else [values]


def _text_size(budget: Budget, value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    budget.walk(value)
    return len(str(value))


class BoundedFormatter(SandboxedFormatter):
    """`str.format` with bounded widths and a bounded result."""

    def __init__(self, environment: Any, budget: Budget | None = None) -> None:
        super().__init__(environment)
        self._budget = budget or Budget()
        self._room = MAX_CHARS

    def format_field(self, value: Any, format_spec: str) -> Any:
        if any(len(number) > 5 or int(number) > MAX_WIDTH for number in re.findall(r"[0-9]+", format_spec)):
            if isinstance(value, TIME_TYPES):
                _check_strftime(format_spec)
            else:
                raise RenderError(f"the format {format_spec[:40]!r} has a width above {MAX_WIDTH}")
        elif isinstance(value, TIME_TYPES):
            _check_strftime(format_spec)
        self._budget.walk(value)
        return self._bounded(Formatter.format_field(self, value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._budget.walk(value)
        return super().convert_field(value, conversion)

    def _bounded(self, text: Any) -> Any:
        self._room -= len(text)
        if self._room < 0:
            raise too_long(MAX_CHARS)
        return text


def check_method(budget: Budget, method: Any, args: tuple[Any, ...]) -> None:
    """Check a call of a method of a built-in value before it is made."""
    owner = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    if isinstance(owner, str):
        budget.glance(owner)
        if name in ("center", "ljust", "rjust", "zfill") and args:
            _check_width(args[0], name)
        elif name == "replace" and len(args) >= 2:
            check_replace(budget, owner, *args)
        elif name == "join" and args:
            items = args[0]
            budget.walk(items)
            if isinstance(items, (list, tuple, dict)):
                size = sum(len(item) for item in items if isinstance(item, str))
                budget.room(size + len(owner) * len(items))
    elif isinstance(owner, TIME_TYPES):
        if name == "strftime" and args:
            _check_strftime(args[0])
    elif isinstance(owner, (list, tuple)):
        budget.walk(owner)


def _check_strftime(text: Any) -> None:
    if not isinstance(text, str) or len(text) > 200 or not _STRFTIME.fullmatch(text):
        raise RenderError("a time's format is at most 200 characters and has no widths")


def _check_width(width: Any, what: str, limit: int = MAX_WIDTH) -> None:
    if not isinstance(width, (int, float)) or not -limit <= width <= limit:
        raise RenderError(f"{what}: a number of at most {limit} is allowed, found {str(width)[:40]}")


# Guards: called with a filter's own arguments before the filter.


def check_replace(budget: Budget, s: Any, old: Any, new: Any, count: Any = None) -> None:
    text, before, after = str(s), str(old), str(new)
    found = text.count(before)
    if isinstance(count, int) and count >= 0:
        found = min(found, count)
    budget.room(len(text) + found * len(after))


def _guard_center(budget: Budget, value: Any, width: Any = 80) -> None:
    _check_width(width, "center")


def _guard_indent(budget: Budget, s: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    text = str(s)
    if not isinstance(width, str):
        _check_width(width, "indent")
    each = len(width) if isinstance(width, str) else int(width)
    budget.room(len(text) + (len(text.splitlines()) + 1) * max(each, 0))


def _guard_batch(budget: Budget, value: Any, linecount: Any = 1, fill_with: Any = None) -> None:
    _check_width(linecount, "batch")


def _guard_slice(budget: Budget, value: Any, slices: Any = 1, fill_with: Any = None) -> None:
    _check_width(slices, "slice")


def _guard_round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> None:
    _check_width(precision, "round", 30)


def _guard_wordwrap(
    budget: Budget,
    s: Any,
    width: Any = 79,
    break_long_words: Any = True,
    wrapstring: Any = None,
    break_on_hyphens: Any = True,
) -> None:
    _check_width(width, "wordwrap")
    _check_width(len(wrapstring or ""), "wordwrap: the length of wrapstring", 100)
    budget.room(len(str(s)) * (1 + len(wrapstring or "\n")))
    budget.spend(len(str(s)) // 2)  # it is slow: about half a step a character


GUARDS: dict[str, Callable[..., None]] = {
    "batch": _guard_batch,
    "center": _guard_center,
    "indent": _guard_indent,
    "replace": check_replace,
    "round": _guard_round,
    "slice": _guard_slice,
    "wordwrap": _guard_wordwrap,
}


# Filters of our own, in place of Jinja's. They get the context first.


def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> str:
    budget: Budget = context.budget  # type: ignore[attr-defined]
    get = make_attrgetter(context.environment, attribute) if attribute is not None else None
    between = str(d)
    texts: list[str] = []
    size = 0
    for item in value:
        part = item if get is None else get(item)
        budget.spend(1)
        if not isinstance(part, str):
            budget.walk(part)
        texts.append(str(part))
        size += len(texts[-1]) + len(between)
        if size > MAX_CHARS + len(between):
            raise too_long(size)
    return between.join(texts)


def _tojson(context: Context, value: Any, indent: Any = None) -> str:
    if indent is not None:
        _check_width(indent, "tojson: indent", 16)
    context.budget.walk(value)  # type: ignore[attr-defined]
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_json_default)


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
        total = total + part
    return total


def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise RenderError("format takes either values or named values, not both")
    return format_percent(context.budget, str(value), kwargs or args)  # type: ignore[attr-defined]


OWN_FILTERS: dict[str, Callable[..., Any]] = {"format": _format, "join": _join, "sum": _sum, "tojson": _tojson}
