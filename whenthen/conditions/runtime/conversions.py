"""Conversions between CEL types: `int()`, `string()`, `timestamp()` and the others.

Called by `functions`. Meaning: cel-spec, langdef, "Type conversions".
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    Cidr,
    EvaluationFault,
    Uint,
    no_overload,
    time_ns,
)
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, charge, spend

__all__ = [
    "to_bool",
    "to_bytes",
    "to_double",
    "to_duration",
    "to_dyn",
    "to_int",
    "to_string",
    "to_timestamp",
    "to_uint",
]

MAX_NUMBER_CHARS = 1_000  #: the longest text that is read as a number
TIME_STEPS = 8  #: of reading a time or duration; each character of a duration is two more
STEPS_PER_ADDRESS = 40  #: of writing one
CODED = 4  #: 2**4 characters are encoded or decoded in a step

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_UNSIGNED = re.compile(r"\+?[0-9]{1,40}")
_DOUBLE = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "true", "TRUE", "True", "T"})
_FALSE = frozenset({"0", "f", "false", "FALSE", "False", "F"})


def _unconvertible(name: str, value: object, why: str = "") -> EvaluationFault:
    tail = f": {why}" if why else ""
    return EvaluationFault(Reason.BAD_CONVERSION, f"{name}() cannot convert {describe(value)}{tail}", value)


def _number_text(name: str, text: str, budget: Budget | None) -> str:
    if len(text) > MAX_NUMBER_CHARS:
        raise _unconvertible(name, text, f"{len(text):,} characters; at most {MAX_NUMBER_CHARS:,} are read")
    charge(len(text) >> CODED, budget)
    return text


def to_int(value: Any, budget: Budget | None) -> int:
    if isinstance(value, datetime):
        return time_ns(value) // 1_000_000_000
    if type(value) is float:
        if not -(2.0**63) < value < 2.0**63:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
        return int(value)
    if type(value) is str:
        if not _INTEGER.fullmatch(_number_text("int", value, budget)):
            raise _unconvertible("int", value)
        number = int(value)
    elif type(value) is int or type(value) is Uint:
        number = int(value)
    else:
        raise no_overload("int()", value)
    if not INT_MIN <= number <= INT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
    return number


def to_uint(value: Any, budget: Budget | None) -> Uint:
    if type(value) is float:
        if not 0 <= value < 2.0**64:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of uint", value)
        return Uint(value)
    if type(value) is str:
        if not _UNSIGNED.fullmatch(_number_text("uint", value, budget)):
            raise _unconvertible("uint", value)
        number = int(value)
    elif type(value) is int or type(value) is Uint:
        number = int(value)
    else:
        raise no_overload("uint()", value)
    if not 0 <= number <= UINT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of uint", value)
    return Uint(number)


def to_double(value: Any, budget: Budget | None) -> float:
    if type(value) is float:
        return value
    if type(value) is int or type(value) is Uint:
        if not INT_MIN <= value <= UINT_MAX:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
        return float(value)
    if type(value) is str:
        if not _DOUBLE.fullmatch(_number_text("double", value, budget)):
            raise _unconvertible("double", value)
        return float(value)
    raise no_overload("double()", value)


def to_string(value: Any, budget: Budget | None) -> str:
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        if not INT_MIN <= value <= UINT_MAX:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
        return str(int(value))
    if type(value) is float:
        return repr(value)
    if isinstance(value, bytes):
        charge(len(value) >> CODED, budget)
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _unconvertible("string", value, f"no UTF-8 at byte {error.start}") from None
    if isinstance(value, datetime):
        return times.format_time(value)
    if isinstance(value, timedelta):
        return times.format_span(value)
    if isinstance(value, IPv4Address | IPv6Address | Cidr):
        charge(STEPS_PER_ADDRESS, budget)
        return str(value)
    raise no_overload("string()", value)


def to_bytes(value: Any, budget: Budget | None) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        charge(len(value) >> CODED, budget)
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise _unconvertible("bytes", value, "it holds a lone surrogate") from None
    raise no_overload("bytes()", value)


def to_bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    if type(value) is str:
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise _unconvertible("bool", value)
    raise no_overload("bool()", value)


def to_timestamp(value: Any, budget: Budget | None) -> datetime:
    if type(value) is str:
        if budget is not None:  # without one so few steps are free
            spend(TIME_STEPS, budget)
        return times.parse_time(value)
    if isinstance(value, datetime):
        return value
    if type(value) is int:
        return times.time_from_seconds(value)
    raise no_overload("timestamp()", value)


def to_duration(value: Any, budget: Budget | None) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if type(value) is str:
        charge(TIME_STEPS + 2 * min(len(value), times.MAX_SPAN_CHARS), budget)
        return times.parse_span(value)
    raise no_overload("duration()", value)


def to_dyn(value: Any) -> Any:
    return value
