"""How a value is written where text is made: text as it is, numbers and booleans as JSON writes them, nothing else.

Used for templates (`environment`, `bounded_text`, `own_filters`, `lookups`) and, through the package, for the fields of actions and the labels
of events. Null, lists and objects have no text: the word `None` in an id would make all events without one the same.
Meaning: docs/templates.md, "Text".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

from jinja2.runtime import Undefined

from whenthen.schemas.errors import RenderError

__all__ = ["NoText", "format_part", "kind_of_value", "scalar_text", "written_items"]


class NoText(RenderError):
    """A text was to be made of a value that has none; `kind` says of what: `null`, `a list`, `an object`."""

    def __init__(self, kind: str, remedy: str) -> None:
        super().__init__(f"{kind} has no text; {remedy}")
        self.kind = kind


class _Flag(int):
    """A boolean for `%` and `str.format`, which write it as JSON does, and as a number where a number is asked for."""

    def __str__(self) -> str:
        return "true" if self else "false"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec) if spec[-1:] in tuple("bcdoxXneEfFgG%") else format(str(self), spec)


def scalar_text(value: Any) -> str:
    """The text of a value.

    Raises:
        NoText: null, a list or an object.
        RenderError: a number that JSON can not write, or what is no JSON value.
    """
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise RenderError(f"{value} is no number that JSON can write")
    if isinstance(value, (int, float, datetime, date, time, timedelta)):
        return str(value)
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    kind = kind_of_value(value)
    if value is None:
        raise NoText(kind, "say what to write: `| default('')`, or `| tojson`")
    if kind in ("a list", "an object"):
        raise NoText(kind, "name one value of it, or use `| tojson` or `| join(', ')`")
    raise RenderError(f"{kind} has no text; a method needs parentheses, a sequence `| list`")


def kind_of_value(value: Any) -> str:
    """`null`, `a list`, `an object`; other values by their type."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


def format_part(value: Any) -> Any:
    """A value that `%` or `str.format` writes as `scalar_text` does. Errors: those of `scalar_text`."""
    if isinstance(value, bool):
        return _Flag(value)
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        scalar_text(value)
    return value


def written_items(values: Any) -> Any:
    """What `urlencode` is given, with each name and value as its text."""
    if isinstance(values, Mapping):
        values = values.items()
    elif isinstance(values, (str, int, float)) or not hasattr(values, "__iter__"):
        return scalar_text(values)
    return [(scalar_text(name), scalar_text(value)) for name, value in values]
