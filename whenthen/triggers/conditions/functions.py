"""The standard functions and operators of CEL, exactly: what each does with values of each type.

Called by `exact` for every operation, and by the compiled code of `codegen` where its inlined case does not
apply. Each function takes plain values and returns one or raises `EvaluationFault`. Meaning: cel-spec, langdef,
"Standard definitions".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import re2

from whenthen.triggers.conditions import times
from whenthen.triggers.conditions.errors import Reason, describe
from whenthen.triggers.conditions.values import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    EvaluationFault,
    Uint,
    equal,
    find,
    kind,
    kind_name,
    order,
    span_ns,
    time_ns,
)

__all__ = ["BINARY", "FUNCTIONS", "MAX_RESULT", "MAX_STEPS", "Pattern", "compile_pattern", "matches"]

MAX_STEPS = 2_000_000  #: nodes that the macros of one evaluation may visit
MAX_RESULT = 4_194_304  #: characters, bytes or elements that a concatenation may yield
PATTERN_MEMORY = 1_048_576  #: bytes that RE2 may use for one pattern

Pattern = Callable[[str], bool]


def no_overload(name: str, *operands: object) -> EvaluationFault:
    """The fault of an operator or function that does not take operands of these types."""
    kinds = ", ".join(kind_name(operand) for operand in operands)
    values = ", ".join(describe(operand) for operand in operands)
    return EvaluationFault(Reason.NO_OVERLOAD, f"{name} does not take ({kinds}): {values}", operands[0])


def _overflow(kind_: str, name: str, a: object, b: object) -> EvaluationFault:
    return EvaluationFault(Reason.OVERFLOW, f"{kind_} overflow: {describe(a)} {name} {describe(b)}", a)


# -- arithmetic


def _ints(name: str, a: Any, b: Any, result: int) -> int:
    if type(a) is int and type(b) is int:
        if not INT_MIN <= result <= INT_MAX:
            raise _overflow("int", name, a, b)
        return result
    if type(a) is Uint and type(b) is Uint:
        if not 0 <= result <= UINT_MAX:
            raise _overflow("uint", name, a, b)
        return Uint(result)
    raise no_overload(f'"{name}"', a, b)


def _same_integers(a: object, b: object) -> bool:
    return (type(a) is int and type(b) is int) or (type(a) is Uint and type(b) is Uint)


def add(a: Any, b: Any) -> Any:
    """`a + b`: numbers of one type, text, bytes, lists, times and durations."""
    if type(a) is datetime and type(b) is timedelta:
        return _moved(a, b)
    if _same_integers(a, b):
        return _ints("+", a, b, int(a) + int(b))
    if type(a) is float and type(b) is float:
        return a + b
    if any(isinstance(a, cls) and isinstance(b, cls) for cls in (str, bytes, list)):
        if len(a) + len(b) > MAX_RESULT:
            raise EvaluationFault(
                Reason.BUDGET, f"a result of {len(a) + len(b):,} elements; the limit is {MAX_RESULT:,}"
            )
        return a + b
    if isinstance(a, datetime) and isinstance(b, timedelta):
        return _moved(a, b)
    if isinstance(a, timedelta) and isinstance(b, datetime):
        return _moved(b, a)
    if isinstance(a, timedelta) and isinstance(b, timedelta):
        return times.span_from_ns(span_ns(a) + span_ns(b))
    raise no_overload('"+"', a, b)


def _moved(moment: datetime, span: timedelta) -> datetime:
    if type(moment) is datetime and type(span) is timedelta and moment.tzinfo is UTC:
        try:
            return moment + span
        except OverflowError:
            raise EvaluationFault(Reason.OVERFLOW, "timestamp is outside the years 1 to 9999", moment) from None
    return times.time_from_ns(time_ns(moment) + span_ns(span))


def subtract(a: Any, b: Any) -> Any:
    """`a - b`: numbers of one type, times and durations."""
    if _same_integers(a, b):
        return _ints("-", a, b, int(a) - int(b))
    if type(a) is float and type(b) is float:
        return a - b
    if isinstance(a, datetime) and isinstance(b, datetime):
        return times.span_from_ns(time_ns(a) - time_ns(b))
    if isinstance(a, datetime) and isinstance(b, timedelta):
        return times.time_from_ns(time_ns(a) - span_ns(b))
    if isinstance(a, timedelta) and isinstance(b, timedelta):
        return times.span_from_ns(span_ns(a) - span_ns(b))
    raise no_overload('"-"', a, b)


def multiply(a: Any, b: Any) -> Any:
    """`a * b` of two numbers of one type."""
    if _same_integers(a, b):
        return _ints("*", a, b, int(a) * int(b))
    if type(a) is float and type(b) is float:
        return a * b
    raise no_overload('"*"', a, b)


def divide(a: Any, b: Any) -> Any:
    """`a / b` of two numbers of one type; integers truncate towards zero, doubles follow IEEE 754."""
    if _same_integers(a, b):
        if b == 0:
            raise EvaluationFault(Reason.DIVISION_BY_ZERO, f"division by zero: {describe(a)} / 0", a)
        quotient = abs(int(a)) // abs(int(b))
        return _ints("/", a, b, -quotient if (a < 0) is not (b < 0) else quotient)
    if type(a) is float and type(b) is float:
        if b:
            return a / b
        if a != a or not a:
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    raise no_overload('"/"', a, b)


def remainder(a: Any, b: Any) -> Any:
    """`a % b` of two integers of one type; the sign is that of `a`."""
    if _same_integers(a, b):
        if b == 0:
            raise EvaluationFault(Reason.DIVISION_BY_ZERO, f"remainder by zero: {describe(a)} % 0", a)
        rest = abs(int(a)) % abs(int(b))
        return _ints("%", a, b, -rest if a < 0 else rest)
    raise no_overload('"%"', a, b)


def negate(a: Any) -> Any:
    """`-a` of an int or a double."""
    if type(a) is int:
        return _ints("-", 0, a, -a)
    if type(a) is float:
        return -a
    raise no_overload('unary "-"', a)


def invert(a: Any) -> bool:
    """`!a` of a bool."""
    if a is True or a is False:
        return not a
    raise no_overload('"!"', a)


# -- comparison and membership


def unequal(a: Any, b: Any) -> bool:
    return not equal(a, b)


def less(a: Any, b: Any) -> bool:
    return order(a, b) == -1


def less_or_equal(a: Any, b: Any) -> bool:
    return order(a, b) in (-1, 0)


def greater(a: Any, b: Any) -> bool:
    return order(a, b) == 1


def greater_or_equal(a: Any, b: Any) -> bool:
    return order(a, b) in (0, 1)


def member(a: Any, b: Any) -> bool:
    """`a in b`: an element of a list, or a key of a map."""
    if isinstance(b, list):
        return any(equal(a, item) for item in b)
    if isinstance(b, dict):
        return find(b, a)[0]
    raise no_overload('"in"', a, b)


# -- fields and elements


def select(operand: Any, field: str) -> Any:
    """`operand.field` of a map."""
    if not isinstance(operand, dict):
        raise EvaluationFault(
            Reason.NO_SUCH_FIELD, f"{kind_name(operand)} has no field {field!r}: {describe(operand)}", operand
        )
    if field not in operand:
        raise EvaluationFault(Reason.NO_SUCH_FIELD, f"no such field: {field!r}", operand)
    return operand[field]


def has(operand: Any, field: str) -> bool:
    """Whether a map has a field."""
    if not isinstance(operand, dict):
        raise EvaluationFault(
            Reason.NO_OVERLOAD, f"has() looks into a map, not a {kind_name(operand)}: {describe(operand)}", operand
        )
    return field in operand


def element(operand: Any, index: Any) -> Any:
    """`operand[index]` of a list or a map."""
    if isinstance(operand, dict):
        present, value = find(operand, index)
        if not present:
            raise EvaluationFault(Reason.NO_SUCH_FIELD, f"no such key: {describe(index)}", operand)
        return value
    if isinstance(operand, list):
        if isinstance(index, float) and index.is_integer():
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool):
            raise EvaluationFault(Reason.NO_OVERLOAD, f"a list is indexed by an int, not by {describe(index)}", index)
        if not 0 <= index < len(operand):
            raise EvaluationFault(
                Reason.INDEX_OUT_OF_RANGE, f"index {index} of a list of {len(operand)} elements", index
            )
        return operand[index]
    raise no_overload('"[]"', operand, index)


# -- text


def size(value: Any) -> int:
    """Code points of a string, bytes, elements of a list, entries of a map."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise no_overload("size()", value)


def _text(name: str, *operands: Any) -> None:
    for operand in operands:
        if not isinstance(operand, str):
            raise no_overload(f"{name}()", *operands)


def starts_with(value: Any, prefix: Any) -> bool:
    _text("startsWith", value, prefix)
    return bool(value.startswith(prefix))


def ends_with(value: Any, suffix: Any) -> bool:
    _text("endsWith", value, suffix)
    return bool(value.endswith(suffix))


def contains(value: Any, part: Any) -> bool:
    _text("contains", value, part)
    return part in value


def _pattern_options() -> Any:
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    return options


@lru_cache(maxsize=1_024)
def compile_pattern(pattern: str) -> Pattern:
    """A function that says whether RE2 finds `pattern` anywhere in a text.

    Raises:
        EvaluationFault: RE2 does not accept the pattern, or it needs more than `PATTERN_MEMORY`.
    """
    try:
        compiled = re2.compile(pattern, options=_pattern_options())
    except (re2.error, UnicodeEncodeError) as error:
        found: object = error.args[0] if error.args else error
        why = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        detail = f"RE2 does not accept {describe(pattern)}: {why}"
        raise EvaluationFault(Reason.BAD_PATTERN, detail, pattern) from None
    direct = getattr(getattr(compiled, "_regexp", None), "Match", None)
    if direct is None:
        return lambda text: compiled.search(text) is not None
    # The public method builds a match object with decoded offsets, which costs six times the match itself.
    anchor = re2._re2.RE2.Anchor.UNANCHORED
    missing = (-1, -1)

    def search(text: str) -> bool:
        data = text.encode()
        return bool(direct(anchor, data, 0, len(data))[0] != missing)

    return search


def matches(value: Any, pattern: Any) -> bool:
    """Whether RE2 finds `pattern` in `value`."""
    _text("matches", value, pattern)
    try:
        return compile_pattern(pattern)(value)
    except UnicodeEncodeError:
        raise EvaluationFault(Reason.BAD_CONVERSION, "the text holds a lone surrogate", value) from None


# -- conversions

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_UNSIGNED = re.compile(r"\+?[0-9]{1,40}")
_DOUBLE = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "true", "TRUE", "True", "T"})
_FALSE = frozenset({"0", "f", "false", "FALSE", "False", "F"})


def _unconvertible(name: str, value: object, why: str = "") -> EvaluationFault:
    tail = f": {why}" if why else ""
    return EvaluationFault(Reason.BAD_CONVERSION, f"{name}() cannot convert {describe(value)}{tail}", value)


def to_int(value: Any) -> int:
    if isinstance(value, datetime):
        return time_ns(value) // 1_000_000_000
    if type(value) is float:
        if not -(2.0**63) < value < 2.0**63:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
        return int(value)
    if type(value) is str:
        if not _INTEGER.fullmatch(value):
            raise _unconvertible("int", value)
        number = int(value)
    elif type(value) is int or type(value) is Uint:
        number = int(value)
    else:
        raise no_overload("int()", value)
    if not INT_MIN <= number <= INT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of int", value)
    return number


def to_uint(value: Any) -> Uint:
    if type(value) is float:
        if not 0 <= value < 2.0**64:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of uint", value)
        return Uint(value)
    if type(value) is str:
        if not _UNSIGNED.fullmatch(value):
            raise _unconvertible("uint", value)
        number = int(value)
    elif type(value) is int or type(value) is Uint:
        number = int(value)
    else:
        raise no_overload("uint()", value)
    if not 0 <= number <= UINT_MAX:
        raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of uint", value)
    return Uint(number)


def to_double(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int or type(value) is Uint:
        return float(value)
    if type(value) is str:
        if not _DOUBLE.fullmatch(value):
            raise _unconvertible("double", value)
        return float(value)
    raise no_overload("double()", value)


def to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if type(value) is float:
        return repr(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _unconvertible("string", value, f"no UTF-8 at byte {error.start}") from None
    if isinstance(value, datetime):
        return times.format_time(value)
    if isinstance(value, timedelta):
        return times.format_span(value)
    raise no_overload("string()", value)


def to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
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


def to_timestamp(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if type(value) is str:
        return times.parse_time(value)
    if type(value) is int:
        return times.time_from_seconds(value)
    raise no_overload("timestamp()", value)


def to_duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if type(value) is str:
        return times.parse_span(value)
    raise no_overload("duration()", value)


def to_dyn(value: Any) -> Any:
    return value


# -- parts of times and durations


def _part(
    name: str, of_time: Callable[[datetime], int], of_span: Callable[[int], int] | None = None
) -> Callable[..., int]:
    def part(value: Any, *zone: Any) -> int:
        if isinstance(value, datetime) and not zone:
            return of_time(times.local(value, "UTC") if value.tzinfo is not UTC else value)
        if isinstance(value, datetime) and isinstance(zone[0], str):
            return of_time(times.local(value, zone[0]))
        if of_span is not None and isinstance(value, timedelta) and not zone:
            ns = span_ns(value)
            return of_span(ns) if ns >= 0 else -of_span(-ns)
        raise no_overload(f"{name}()", value, *zone)

    return part


_PARTS: dict[str, Callable[..., int]] = {
    "getFullYear": _part("getFullYear", lambda t: t.year),
    "getMonth": _part("getMonth", lambda t: t.month - 1),
    "getDate": _part("getDate", lambda t: t.day),
    "getDayOfMonth": _part("getDayOfMonth", lambda t: t.day - 1),
    "getDayOfWeek": _part("getDayOfWeek", lambda t: t.isoweekday() % 7),
    "getDayOfYear": _part("getDayOfYear", lambda t: t.timetuple().tm_yday - 1),
    "getHours": _part("getHours", lambda t: t.hour, lambda ns: ns // 3_600_000_000_000),
    "getMinutes": _part("getMinutes", lambda t: t.minute, lambda ns: ns // 60_000_000_000),
    "getSeconds": _part("getSeconds", lambda t: t.second, lambda ns: ns // 1_000_000_000),
    "getMilliseconds": _part("getMilliseconds", lambda t: t.microsecond // 1_000, lambda ns: ns // 1_000_000 % 1_000),
}

# -- the tables

#: function -> (implementation, numbers of arguments as f(...), numbers of arguments as x.f(...))
FUNCTIONS: dict[str, tuple[Callable[..., Any], frozenset[int], frozenset[int]]] = {
    "size": (size, frozenset({1}), frozenset({0})),
    "matches": (matches, frozenset({2}), frozenset({1})),
    "startsWith": (starts_with, frozenset(), frozenset({1})),
    "endsWith": (ends_with, frozenset(), frozenset({1})),
    "contains": (contains, frozenset(), frozenset({1})),
    "type": (kind, frozenset({1}), frozenset()),
    "dyn": (to_dyn, frozenset({1}), frozenset()),
    "int": (to_int, frozenset({1}), frozenset()),
    "uint": (to_uint, frozenset({1}), frozenset()),
    "double": (to_double, frozenset({1}), frozenset()),
    "string": (to_string, frozenset({1}), frozenset()),
    "bytes": (to_bytes, frozenset({1}), frozenset()),
    "bool": (to_bool, frozenset({1}), frozenset()),
    "timestamp": (to_timestamp, frozenset({1}), frozenset()),
    "duration": (to_duration, frozenset({1}), frozenset()),
    **{name: (part, frozenset[int](), frozenset({0, 1})) for name, part in _PARTS.items()},
}

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": add, "-": subtract, "*": multiply, "/": divide, "%": remainder,
    "==": equal, "!=": unequal, "<": less, "<=": less_or_equal, ">": greater, ">=": greater_or_equal, "in": member,
}  # fmt: skip
