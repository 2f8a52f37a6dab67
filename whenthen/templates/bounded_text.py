"""Operators of templates and text that they write, with a bounded result: arithmetic, `%`, `str.format`, `str.join`.

Used by `templates.environment`, `templates.guards` and `templates.own_filters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from string import Formatter
from typing import Any

from jinja2.sandbox import SandboxedFormatter
from markupsafe import Markup

from whenthen.schemas.errors import RenderError
from whenthen.templates.budget import MAX_CHARS, Budget, too_long
from whenthen.templates.scalar_text import format_part, scalar_text

__all__ = [
    "MAX_BITS",
    "NUMBER_CHARS",
    "TIME_TYPES",
    "BoundedFormatter",
    "check_number",
    "check_strftime",
    "check_width",
    "format_percent",
    "join_texts",
    "operate",
]

#: widths, counts and the like
MAX_WIDTH = 10_000
#: bits of a whole number
MAX_BITS = 4096
TIME_TYPES = (datetime, date, time, timedelta)

#: after the `%` and the key of a field: flags, width, precision, length, type
_PERCENT = re.compile(r"[-+ #0]*(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?(.?)", re.DOTALL)
#: characters of a number that is not written with a width: the largest float has 309 digits, a whole number 1,234
NUMBER_CHARS = 1_300
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
        size += max(written, width) + (0 if kind in "sar" else NUMBER_CHARS + width)
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
                check_strftime(format_spec)
            else:
                raise RenderError(f"the format {format_spec[:40]!r} has a width above {MAX_WIDTH}")
        elif isinstance(value, TIME_TYPES):
            check_strftime(format_spec)
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


def check_strftime(text: Any) -> None:
    if not isinstance(text, str) or len(text) > 200 or not _STRFTIME.fullmatch(text):
        raise RenderError("a time's format is at most 200 characters and has no widths")


def check_width(width: Any, what: str, limit: int = MAX_WIDTH) -> None:
    if not isinstance(width, (int, float)) or not -limit <= width <= limit:
        raise RenderError(f"{what}: a number of at most {limit} is allowed, found {str(width)[:40]}")
