"""CEL values as Python values, and what kind a value is.

    int -> int      uint -> Uint       double -> float     bool -> bool       string -> str     bytes -> bytes
    null -> None    list -> list       map -> dict         type -> CelType    timestamp -> datetime
    duration -> timedelta         optional_type -> OptionalValue
    net.IP -> IPv4Address, IPv6Address              net.CIDR -> Cidr

Time has nanoseconds in CEL; a value that needs more than microseconds is an `ExactTime` or `ExactSpan`, which is the
datetime or timedelta below it plus the nanoseconds left over. Meaning: cel-spec, langdef, "Values".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from whenthen.conditions.runtime.condition_errors import Reason, describe

__all__ = [
    "INT_MAX",
    "INT_MIN",
    "KINDS",
    "NONE",
    "UINT_MAX",
    "CelType",
    "Cidr",
    "EvaluationFault",
    "ExactSpan",
    "ExactTime",
    "OptionalValue",
    "Uint",
    "kind",
    "kind_name",
    "no_overload",
    "span_ns",
    "time_ns",
]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
UINT_MAX = 2**64 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EvaluationFault(Exception):
    """An operation has no value. The evaluator adds the place; only `ConditionFailed` leaves this package."""

    def __init__(self, reason: Reason, detail: str, value: object = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.value = value
        self.node: Any = None


class Uint(int):
    """A CEL uint: equal to the int of the same value, apart from it in arithmetic."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class CelType:
    """The type of a CEL value, as `type(x)` gives it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CelType) and other.name == self.name

    def __hash__(self) -> int:
        return hash((CelType, self.name))

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


class ExactTime(datetime):
    """A timestamp with nanoseconds: `nanos` (1 to 999) come on top of the datetime."""

    nanos: int


class ExactSpan(timedelta):
    """A duration with nanoseconds: `nanos` (1 to 999) come on top of the timedelta."""

    nanos: int


class OptionalValue:
    """A value that may not be there, as `event.payload.?size` gives it. Nobody changes one: a frozen dataclass takes three
    times as long to make."""

    __slots__ = ("present", "value")

    def __init__(self, value: Any = None, *, present: bool = False) -> None:
        self.value = value
        self.present = present

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptionalValue) and other.present is self.present and bool(other.value == self.value)

    def __hash__(self) -> int:
        return hash((OptionalValue, self.present, self.value))

    def __repr__(self) -> str:
        return describe(self)


NONE = OptionalValue()  #: `optional.none()`


@dataclass(frozen=True, slots=True)
class Cidr:
    """A range of addresses as it is written: `10.0.0.1/8` keeps its 1."""

    address: IPv4Address | IPv6Address
    bits: int

    def __str__(self) -> str:
        return f"{self.address}/{self.bits}"


def no_overload(name: str, *operands: object) -> EvaluationFault:
    """The fault of an operator or function that does not take operands of these types."""
    kinds = ", ".join(kind_name(operand) for operand in operands)
    values = ", ".join(describe(operand) for operand in operands)
    return EvaluationFault(Reason.NO_OVERLOAD, f"{name} does not take ({kinds}): {values}", operands[0])


def time_ns(value: datetime) -> int:
    """Nanoseconds since 1970-01-01T00:00:00Z. A datetime without a time zone is UTC."""
    if value.tzinfo is not UTC:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else _to_utc(value)
    return span_ns(value - _EPOCH) + getattr(value, "nanos", 0)


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise EvaluationFault(Reason.OVERFLOW, "timestamp is outside the years 1 to 9999 in UTC", value) from None


def span_ns(value: timedelta) -> int:
    """A duration in nanoseconds."""
    return (
        (value.days * 86_400 + value.seconds) * 1_000_000_000 + value.microseconds * 1_000 + getattr(value, "nanos", 0)
    )


KINDS = {
    name: CelType(name)
    for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")
}
KINDS.update({name: CelType(name) for name in ("optional_type", "net.IP", "net.CIDR")})
KINDS["google.protobuf.Timestamp"] = CelType("google.protobuf.Timestamp")
KINDS["google.protobuf.Duration"] = CelType("google.protobuf.Duration")

_BY_CLASS: dict[type, CelType] = {
    bool: KINDS["bool"],
    int: KINDS["int"],
    Uint: KINDS["uint"],
    float: KINDS["double"],
    str: KINDS["string"],
    bytes: KINDS["bytes"],
    list: KINDS["list"],
    dict: KINDS["map"],
    type(None): KINDS["null_type"],
    CelType: KINDS["type"],
    datetime: KINDS["google.protobuf.Timestamp"],
    ExactTime: KINDS["google.protobuf.Timestamp"],
    timedelta: KINDS["google.protobuf.Duration"],
    ExactSpan: KINDS["google.protobuf.Duration"],
    OptionalValue: KINDS["optional_type"],
    IPv4Address: KINDS["net.IP"],
    IPv6Address: KINDS["net.IP"],
    Cidr: KINDS["net.CIDR"],
}


def kind(value: object) -> CelType:
    """The CEL type of a value.

    Raises:
        EvaluationFault: the value is of a Python type that stands for no CEL type.
    """
    found = _BY_CLASS.get(type(value))
    if found is None:
        for cls in type(value).__mro__:
            if cls in _BY_CLASS:
                return _BY_CLASS[cls]
        raise EvaluationFault(
            Reason.NO_OVERLOAD,
            f"a Python {type(value).__name__} is no CEL value",
            value,
        )
    return found


def kind_name(value: object) -> str:
    """The name of a value's CEL type, for messages."""
    name = kind(value).name if type(value) in _BY_CLASS else type(value).__name__
    return name.removeprefix("google.protobuf.").removeprefix("net.").lower()
