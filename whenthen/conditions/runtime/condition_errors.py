"""The errors of conditions: refused when compiled, or failed when evaluated.

    ConditionError
    ├── ConditionRefused        the text cannot become a condition
    │   └── ConditionSyntaxError    it is not CEL
    └── ConditionFailed         this condition has no value for these variables

Every error carries a stable `reason`, the text, the place in it (`line` and `column` count from 1, `position` from 0)
and a message that ends with the line and a caret. Called by every module of this package.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from whenthen.schemas.errors import InvalidInput, WhenthenError, error_text

__all__ = [
    "ConditionError",
    "ConditionFailed",
    "ConditionRefused",
    "ConditionSyntaxError",
    "Reason",
    "describe",
]

EXCERPT_CHARS = 80  #: how much of a long line the caret message shows
VALUE_CHARS = 60  #: how much of an offending value is shown


class Reason(StrEnum):
    """Why a condition was refused or failed. The set is bounded: it may become a metric label."""

    SYNTAX = "syntax"  #: the text is not CEL
    TOO_LARGE = "too_large"  #: too many characters, nodes or levels of nesting
    UNKNOWN_VARIABLE = "unknown_variable"  #: no variable of that name was declared or given
    UNKNOWN_FUNCTION = "unknown_function"  #: no function of that name, or not in that form
    UNKNOWN_TYPE = "unknown_type"  #: a message of a type that is not known here
    BAD_CONSTANT = "bad_constant"  #: a constant pattern, duration or timestamp that can never be valid
    NO_SUCH_FIELD = "no_such_field"  #: a map has no such key, or the operand has no fields
    NO_OVERLOAD = "no_overload"  #: the operator or function does not take operands of these types
    OVERFLOW = "overflow"  #: a number, timestamp or duration leaves its range
    DIVISION_BY_ZERO = "division_by_zero"  #: integer division or remainder by zero
    INDEX_OUT_OF_RANGE = "index_out_of_range"  #: a list has no such element
    BAD_CONVERSION = "bad_conversion"  #: the value cannot be converted
    BAD_PATTERN = "bad_pattern"  #: a regular expression that RE2 does not accept
    DUPLICATE_KEY = "duplicate_key"  #: a map literal repeats a key
    NOT_BOOLEAN = "not_boolean"  #: a condition was asked for its truth and its value is not a bool
    BUDGET = "budget"  #: evaluation took too many steps or built too large a value
    TOO_DEEP = "too_deep"  #: a value is nested too deeply to be compared


class _Short(reprlib.Repr):
    """A repr of bounded length and cost, whatever the value holds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = VALUE_CHARS
        self.maxdict = self.maxlist = 4
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 256:  # repr() of thousands of digits is slow, then an error
            return f"<an integer of {x.bit_length():,} bits>"
        return super().repr_int(x, level)

    # by the names of the classes, which know of these errors

    def repr_OptionalValue(self, x: Any, level: int) -> str:
        if not x.present:
            return "optional.none()"
        return f"optional.of({describe(x.value) if level == self.maxlevel else self.repr1(x.value, level)})"

    def repr_Cidr(self, x: Any, level: int) -> str:
        return f'cidr("{x}")'

    def repr_IPv4Address(self, x: Any, level: int) -> str:
        return f'ip("{x}")'

    repr_IPv6Address = repr_IPv4Address


def describe(value: object) -> str:
    """`value` as a reader of CEL would write it, cut short when it is long."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, datetime):
        return f'timestamp("{value.isoformat()}")'
    if isinstance(value, timedelta):
        return f'duration("{value.total_seconds():g}s")'
    if type(value) is str:
        text = value if len(value) <= VALUE_CHARS else value[: VALUE_CHARS - 1] + "…"
        return '"' + text.encode("utf-8", "backslashreplace").decode().replace('"', '\\"') + '"'
    return _Short().repr(value)


class ConditionError(WhenthenError):
    """Something is wrong with a condition; `str()` says what, where, and what was found."""

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason,
        text: str,
        position: int = 0,
        clause: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(detail)  # one sentence, without the place in the text
        self.reason = reason
        self.text = text
        self._position = position
        self._clause = clause
        self.hint = hint  #: the remedy, when one is known

    @property
    def position(self) -> int:
        """Where in the text, from 0."""
        return self._position

    @property
    def clause(self) -> str | None:
        """Source of the sub-expression at fault."""
        return self._clause

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1

    @property
    def column(self) -> int:
        return self.position - (self.text.rfind("\n", 0, self.position) + 1) + 1

    @property
    def caret(self) -> str:
        """The line at fault with a caret below the place; a long line is cut around it."""
        start = self.text.rfind("\n", 0, self.position) + 1
        end = self.text.find("\n", self.position)
        line = self.text[start : end if end >= 0 else len(self.text)]
        at = self.position - start
        if len(line) > EXCERPT_CHARS:
            left = max(0, min(at - EXCERPT_CHARS // 2, len(line) - EXCERPT_CHARS))
            line, at = line[left : left + EXCERPT_CHARS], at - left
        shown = "".join(c if c.isprintable() else " " for c in line)
        return f"  {shown}\n  {' ' * at}^"

    def __str__(self) -> str:
        head = f"{self.line}:{self.column}: {self.detail}"
        if self.hint:
            head += f"; {self.hint}"
        return error_text(self.path, f"{head}\n{self.caret}")


class ConditionRefused(ConditionError, InvalidInput):
    """The text cannot become a condition; nothing was compiled."""


class ConditionSyntaxError(ConditionRefused):
    """The text is not a CEL expression."""


class ConditionFailed(ConditionError):
    """The condition has no value for these variables. `value` is the operand at fault, when there is one."""

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason,
        text: str,
        position: int = 0,
        clause: str | None = None,
        value: object = None,
        locate: Callable[[], tuple[int, str]] | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, text=text, position=position, clause=clause)
        self.value = value
        self._locate = locate  #: finds position and clause on demand; most failures are only counted

    @property
    def position(self) -> int:
        return self._found()[0]

    @property
    def clause(self) -> str | None:
        return self._found()[1]

    def _found(self) -> tuple[int, str | None]:
        if self._locate is not None:
            self._position, self._clause = self._locate()
            self._locate = None
        return self._position, self._clause
