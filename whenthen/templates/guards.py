"""Operators, filters and methods of templates; those whose cost depends on their arguments are checked before they run.

Used by `templates.environment`. What is listed here is all that a template can call. Filters that are about HTML,
random numbers or Python objects are left out: the text must be the same on every retry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from string import Formatter
from typing import Any

from jinja2.filters import do_urlencode, make_attrgetter
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import SandboxedFormatter
from markupsafe import Markup

from whenthen.schemas import RenderError, is_deeper_than
from whenthen.templates.budget import CHARS_PER_STEP, MAX_CHARS, Budget, too_long
from whenthen.templates.scalar_text import format_part, scalar_text, written_items

__all__ = [
    "CONSTANT",
    "DEEP",
    "FILTERS",
    "GUARDS",
    "LIST_METHODS",
    "MAPPING_METHODS",
    "MAX_BITS",
    "OWN_FILTERS",
    "STRING_METHODS",
    "TIME_TYPES",
    "WRITTEN",
    "BoundedFormatter",
    "check_method",
    "check_number",
    "format_percent",
    "join_texts",
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
#: filters that make a text of their first arguments, and of how many: those are converted by `scalar_text` first
WRITTEN = {
    **dict.fromkeys(
        ("capitalize", "center", "e", "escape", "indent", "lower", "string", "title", "trim", "truncate"), 1
    ),
    **dict.fromkeys(("format", "upper", "wordcount", "wordwrap"), 1),
    "replace": 3,
}
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
_SEARCHES = frozenset(("count", "find", "index", "rfind", "rindex", "partition", "rpartition"))
TIME_TYPES = (datetime, date, time, timedelta)

#: after the `%` and the key of a field: flags, width, precision, length, type
_PERCENT = re.compile(r"[-+ #0]*(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?(.?)", re.DOTALL)
#: characters of a number that is not written with a width: the largest float has 309 digits, a whole number 1,234
_NUMBER_CHARS = 1_300
#: how much longer a text can become when it is written with escapes, as `%a` does
_ESCAPED = 10
_STRFTIME = re.compile(r"(?:[^%]|%[-_0^#]?[A-Za-z%])*")


def operate(budget: Budget, operator: str, left: Any, right: Any, plain: Callable[[Any, Any], Any]) -> Any:
    """The result of `left operator right`, unless it would be too large."""
    if operator == "%" and isinstance(left, str):
        return format_percent(budget, left, right)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if operator == "**":
            bits = (left.bit_length() - 1) * max(right, 1)
        if bits > MAX_BITS and operator in ("*", "**"):
            raise _too_many_bits(f"the result of {operator}", bits)
        check_number(left)
        check_number(right)
        return check_number(plain(left, right))
    if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        _make(budget, left, len(left) + len(right))
    elif operator == "*":
        for one, times in ((left, right), (right, left)):
            if isinstance(one, (str, list, tuple)) and isinstance(times, int):
                _make(budget, one, len(one) * max(times, 0))
    return plain(left, right)


def _make(budget: Budget, like: Any, length: int) -> None:
    if isinstance(like, str):
        budget.room(length)
    else:
        budget.make(length)


def check_number(value: Any) -> Any:
    """`value`, unless it is a whole number of too many bits.

    Raises:
        RenderError: it is; arithmetic with such numbers takes longer than their size tells.
    """
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise _too_many_bits("a whole number", value.bit_length())
    return value


def _too_many_bits(what: str, bits: int) -> RenderError:
    return RenderError(f"{what} would have about {bits} bits; at most {MAX_BITS} are allowed")


def format_percent(budget: Budget, text: str, values: Any) -> str:
    """`text % values`, with bounded widths and a bounded result."""
    longest = max((_text_size(budget, item) for item in _parts(values)), default=0)
    size = len(text)
    for field, width, kind in _percent_fields(text):
        written = longest * _ESCAPED if kind in "ar" or isinstance(text, Markup) else longest
        size += max(written, width) + (0 if kind in "sar" else _NUMBER_CHARS + width)
        if size > MAX_CHARS:
            raise too_long(size)
        if width > MAX_WIDTH:
            raise RenderError(f"the format {field[:40]!r} has a width above {MAX_WIDTH}")
    budget.room(size)
    return str(text % _written(values))


def _percent_fields(text: str) -> Iterator[tuple[str, int, str]]:
    """Each field of a `%` format: its text, its width and precision together, and its type."""
    at = text.find("%")
    while at >= 0:
        end = at + 1
        if text[end : end + 1] == "(":  # a key, which may have brackets in it
            depth = 0
            while end < len(text):
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
                if depth == 0:
                    break
        match = _PERCENT.match(text, end)
        assert match is not None
        numbers = [number for number in match.groups()[:2] if number]
        width = sum(MAX_WIDTH + 1 if len(number) > 5 or number == "*" else int(number) for number in numbers)
        yield text[at : match.end()], width, match[3]
        at = text.find("%", max(match.end(), at + 2))


def _written(values: Any) -> Any:
    if isinstance(values, tuple):
        return tuple(map(format_part, values))
    if isinstance(values, Mapping):
        return {name: format_part(value) for name, value in values.items()}
    return format_part(values)


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

    def __init__(self, environment: Any, budget: Budget) -> None:
        super().__init__(environment)
        self._budget = budget
        self._room = MAX_CHARS

    def vformat(self, format_string: str, args: Any, kwargs: Any) -> str:
        self._budget.spend(len(format_string) // 8)
        return super().vformat(format_string, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> Any:
        if any(len(number) > 5 or int(number) > MAX_WIDTH for number in re.findall(r"[0-9]+", format_spec)):
            if isinstance(value, TIME_TYPES):
                _check_strftime(format_spec)
            else:
                raise RenderError(f"the format {format_spec[:40]!r} has a width above {MAX_WIDTH}")
        elif isinstance(value, TIME_TYPES):
            _check_strftime(format_spec)
        value = format_part(value)
        return self._bounded(Formatter.format_field(self, value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is not None:
            value = format_part(value)
        return super().convert_field(value, conversion)

    def _bounded(self, text: Any) -> Any:
        self._room -= len(text)
        if self._room < 0:
            raise too_long(MAX_CHARS)
        return text


def check_method(budget: Budget, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check a call of a method of a built-in value before it is made."""
    owner = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    if isinstance(owner, str):
        budget.glance(owner)
        for arg in args:
            budget.walk(arg)
        if name in ("center", "ljust", "rjust", "zfill") and args:
            _check_width(args[0], name)
        elif name == "replace" and len(args) >= 2:
            check_replace(budget, owner, *args)
        elif name in _SEARCHES and args and isinstance(args[0], str):
            budget.search(len(owner), len(args[0]))
        elif name in ("split", "rsplit", "splitlines"):
            _check_split(budget, owner, name, args)
        elif name in ("strip", "lstrip", "rstrip") and args and isinstance(args[0], str):
            _guard_trim(budget, owner, args[0])
    elif isinstance(owner, TIME_TYPES):
        if name == "strftime" and args:
            _check_strftime(args[0])
    elif isinstance(owner, (list, tuple)):
        budget.walk(owner)
    elif isinstance(owner, LoopContext) and name == "changed":
        budget.walk(args)  # it compares them with those of the last call
    else:
        budget.spend((len(args) + len(kwargs)) // 16)


def join_texts(budget: Budget, between: str, items: Any) -> str:
    """`between.join(items)`, stopped before the text is too long."""
    texts: list[str] = []
    size = 0
    for item in items:
        budget.spend(1)
        if not isinstance(item, str):
            scalar_text(item)  # null, a list or an object has an error of its own
            raise RenderError(f"join takes texts, found {type(item).__name__}; the filter `join` takes all")
        texts.append(item)
        size += len(item) + len(between)
        if size > MAX_CHARS + len(between):
            raise too_long(size)
    budget.room(size)
    return between.join(texts)


def _check_split(budget: Budget, owner: str, name: str, args: tuple[Any, ...]) -> None:
    between = args[0] if args and name != "splitlines" else None
    if isinstance(between, str) and between:
        budget.search(len(owner), len(between))
        budget.spend(owner.count(between))
    else:
        budget.spend(len(owner) // 8)


def _check_strftime(text: Any) -> None:
    if not isinstance(text, str) or len(text) > 200 or not _STRFTIME.fullmatch(text):
        raise RenderError("a time's format is at most 200 characters and has no widths")


def _check_width(width: Any, what: str, limit: int = MAX_WIDTH) -> None:
    if not isinstance(width, (int, float)) or not -limit <= width <= limit:
        raise RenderError(f"{what}: a number of at most {limit} is allowed, found {str(width)[:40]}")


# Guards: called with a filter's own arguments before the filter.


def check_replace(budget: Budget, s: Any, old: Any, new: Any, count: Any = None) -> None:
    text, before, after = str(s), str(old), str(new)
    budget.search(len(text), len(before))
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
    _check_numbers("round", value, precision)
    _check_width(precision, "round", 30)


def _guard_number(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str) and len(value) > _NUMBER_CHARS:
        raise RenderError(f"a number of {len(value)} characters; at most {_NUMBER_CHARS} are read")


def _guard_trim(budget: Budget, value: Any, chars: Any = None) -> None:
    if isinstance(value, str) and isinstance(chars, str):
        budget.spend(len(value) * len(chars) // CHARS_PER_STEP)


def _guard_slow(budget: Budget, s: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(s, str):
        budget.spend(len(s) // 8)


def _guard_sort(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    # the comparisons of a sort, beyond the one look at each item that is charged for every filter
    if isinstance(value, (list, tuple, dict, str)):
        budget.spend(len(value) * len(value).bit_length() // 4)


def _guard_in(budget: Budget, value: Any, seq: Any) -> None:
    if isinstance(seq, str) and isinstance(value, str):
        budget.search(len(seq), len(value))


def _guard_remainder(budget: Budget, value: Any, num: Any = 2) -> None:
    _check_numbers("a test of divisibility", value, num)


def _check_numbers(what: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, (int, float)):
            raise RenderError(f"{what} takes numbers, found {type(value).__name__}")
        check_number(value)


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
    "dictsort": _guard_sort,
    "divisibleby": _guard_remainder,
    "even": _guard_remainder,
    "filesizeformat": _guard_number,
    "float": _guard_number,
    "groupby": _guard_sort,
    "in": _guard_in,
    "indent": _guard_indent,
    "int": _guard_number,
    "odd": _guard_remainder,
    "replace": check_replace,
    "round": _guard_round,
    "slice": _guard_slice,
    "sort": _guard_sort,
    "title": _guard_slow,
    "trim": _guard_trim,
    "urlencode": _guard_slow,
    "wordcount": _guard_slow,
    "wordwrap": _guard_wordwrap,
}


# Filters of our own, in place of Jinja's. They get the context first.


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
        _check_width(indent, "tojson: indent", 16)
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
