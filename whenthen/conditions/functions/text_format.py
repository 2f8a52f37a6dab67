"""`text.format([values])`: a text with clauses such as `%s` and `%.2f` in it, and a value for each.

Called through `function_table`; constant texts are checked when a condition is loaded (`shapes`).
Meaning: cel-spec, doc/extensions/strings.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import (
    INT_MIN,
    UINT_MAX,
    CelType,
    EvaluationFault,
    Uint,
    kind_name,
    span_ns,
)
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, allowance, spend
from whenthen.conditions.runtime.operators import MADE_TEXT, MAX_RESULT

__all__ = ["MAX_PRECISION", "check_format", "format_text"]

MAX_PRECISION = 100  #: decimal places
STEPS_PER_CLAUSE = 20
STEPS_PER_VALUE = 20  #: of a list or a map that is written out

_CLAUSE = re.compile(r"%(?:(%)|(?:\.([0-9]*))?(.?))", re.DOTALL)
_UNREADABLE = re.compile("[\udc80-\udcff]+")

#: what is written so far, with its length; the budget
_Pieces = list[str]


class _Writer:
    """Collects a text; charges what is added to it."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.pieces: _Pieces = []
        self.size = 0

    def add(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_RESULT:
            raise EvaluationFault(
                Reason.BUDGET, f"cost limit: a text of more than {MAX_RESULT:,} characters is made by format()"
            )
        spend(len(text) >> MADE_TEXT, self.budget)
        self.pieces.append(text)


def format_text(text: Any, values: Any, budget: Budget | None) -> str:
    """`text` with its clauses replaced by the values, in order; more values than clauses are ignored."""
    if not isinstance(text, str) or not isinstance(values, list):
        raise EvaluationFault(
            Reason.NO_OVERLOAD, f"format() does not take ({kind_name(text)}, {kind_name(values)})", text
        )
    writer = _Writer(allowance(budget))
    at = used = 0
    for match in _CLAUSE.finditer(text):
        spend(STEPS_PER_CLAUSE, writer.budget)
        writer.add(text[at : match.start()])
        at = match.end()
        if match[1]:
            writer.add("%")
            continue
        write, precision = _clause(match)
        if used == len(values):
            raise _too_few(used)
        write(values[used], precision, writer)
        used += 1
    writer.add(text[at:])
    return "".join(writer.pieces)


def check_format(text: str, values: int | None) -> None:
    """Refuse a constant text that can not be formatted, or not with so many values. None: how many is not known.

    Raises:
        EvaluationFault: what is wrong.
    """
    clauses = [match for match in _CLAUSE.finditer(text) if not match[1]]
    for match in clauses:
        _clause(match)
    if values is None:
        return
    if len(clauses) > values:
        raise _too_few(values)
    if len(clauses) < values:
        raise EvaluationFault(
            Reason.BAD_CONSTANT, f"format() has {len(clauses)} clauses for {values} values; leave out what is not used"
        )


def _too_few(values: int) -> EvaluationFault:
    return EvaluationFault(
        Reason.INDEX_OUT_OF_RANGE, f"format() has no value for clause {values + 1}: it was given {values}"
    )


def _clause(match: re.Match[str]) -> tuple[Callable[[Any, int, _Writer], None], int]:
    """What writes a value for a clause, and with how many decimal places."""
    _, places, letter = match.groups()
    write = _CLAUSES.get(letter)
    if write is None:
        found = f'"{match[0]}" is no clause' if letter else f'"{match[0]}" is not finished'
        raise EvaluationFault(
            Reason.BAD_CONVERSION,
            f'format(): {found}; known are %s %d %f %e %b %o %x %X, "%.2f" for two decimal places, and "%%" for a percent sign',
            match.string,
        )
    if places is not None and (not places or len(places) > 3 or int(places) > MAX_PRECISION):
        raise EvaluationFault(
            Reason.BAD_CONVERSION,
            f'format(): in "{describe(match[0])[1:-1]}" the number of decimal places is not from 0 to {MAX_PRECISION}',
            match.string,
        )
    return write, int(places) if places else 6


def _unfit(letter: str, value: object) -> EvaluationFault:
    return EvaluationFault(Reason.NO_OVERLOAD, f"%{letter} does not take {kind_name(value)}: {describe(value)}", value)


# -- the clauses


def _integer(letter: str, value: Any) -> int:
    if type(value) is not int and type(value) is not Uint:
        raise _unfit(letter, value)
    if not INT_MIN <= value <= UINT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
    return int(value)


def _not_finite(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _shortest(value: float) -> str:
    """The fewest digits that read back as this double, without an exponent."""
    if not math.isfinite(value):
        return _not_finite(value)
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def _fraction(letter: str) -> Callable[[Any, int, _Writer], None]:
    def write(value: Any, precision: int, writer: _Writer) -> None:
        number = value if type(value) is float else float(_integer(letter, value))
        writer.add(f"{number:.{precision}{letter}}" if math.isfinite(number) else _not_finite(number))

    return write


def _decimal(value: Any, _precision: int, writer: _Writer) -> None:
    writer.add(_shortest(value) if type(value) is float else str(_integer("d", value)))


def _binary(value: Any, _precision: int, writer: _Writer) -> None:
    writer.add(str(int(value)) if isinstance(value, bool) else f"{_integer('b', value):b}")


def _octal(value: Any, _precision: int, writer: _Writer) -> None:
    writer.add(f"{_integer('o', value):o}")


def _hexadecimal(letter: str) -> Callable[[Any, int, _Writer], None]:
    def write(value: Any, _precision: int, writer: _Writer) -> None:
        if isinstance(value, str | bytes):
            spend(len(value) >> MADE_TEXT, writer.budget)
            try:
                digits = (value.encode() if isinstance(value, str) else value).hex()
            except UnicodeEncodeError:
                raise EvaluationFault(Reason.BAD_CONVERSION, "the text holds a lone surrogate", value) from None
            writer.add(digits if letter == "x" else digits.upper())
        else:
            writer.add(f"{_integer(letter, value):{letter}}")

    return write


def _text(value: Any, _precision: int, writer: _Writer) -> None:
    if isinstance(value, list):
        spend(STEPS_PER_VALUE * len(value), writer.budget)
        for index, item in enumerate(value):
            writer.add(", " if index else "[")
            _text(item, 0, writer)
        writer.add("]" if value else "[]")
    elif isinstance(value, dict):
        spend(STEPS_PER_VALUE * len(value), writer.budget)
        entries = sorted([(_key(key, writer.budget), item) for key, item in value.items()], key=lambda entry: entry[0])
        for index, (key, item) in enumerate(entries):
            writer.add(", " if index else "{")
            writer.add(key)
            writer.add(": ")
            _text(item, 0, writer)
        writer.add("}" if value else "{}")
    else:
        writer.add(_scalar(value, writer.budget))


def _key(value: Any, budget: Budget) -> str:
    text = _scalar(value, budget)
    spend(len(text) >> MADE_TEXT, budget)
    return text


def _scalar(value: Any, budget: Budget) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _shortest(value)
    if isinstance(value, int):
        return str(_integer("s", value))
    if isinstance(value, bytes):
        spend(len(value), budget)  # when nothing in it is UTF-8
        return _UNREADABLE.sub("\ufffd", value.decode("utf-8", "surrogateescape"))
    if isinstance(value, datetime):
        return times.format_time(value)
    if isinstance(value, timedelta):
        seconds, rest = divmod(abs(span_ns(value)), 1_000_000_000)
        whole = seconds + rest / 1e9
        return _shortest(-whole if span_ns(value) < 0 else whole) + "s"
    if isinstance(value, CelType):
        return value.name
    raise _unfit("s", value)


_CLAUSES: dict[str, Callable[[Any, int, _Writer], None]] = {
    "s": _text,
    "d": _decimal,
    "f": _fraction("f"),
    "e": _fraction("e"),
    "b": _binary,
    "o": _octal,
    "x": _hexadecimal("x"),
    "X": _hexadecimal("X"),
}
