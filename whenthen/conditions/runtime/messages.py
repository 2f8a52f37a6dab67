"""The well-known messages that CEL turns into plain values: wrappers, Value, Struct, ListValue, Timestamp, Duration.

Other protobuf messages have no meaning here and are refused when a condition is compiled.
Called by `check` and `exact`. Meaning: cel-spec, langdef, "Dynamic values".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from whenthen.conditions.runtime import timestamps as times
from whenthen.conditions.runtime.cel_values import INT_MAX, INT_MIN, UINT_MAX, EvaluationFault, Uint, kind_name
from whenthen.conditions.runtime.condition_errors import Reason, describe

__all__ = ["MESSAGES", "build_message", "fields_of"]

_PREFIX = "google.protobuf."


def _wrong(type_name: str, value: object) -> EvaluationFault:
    return EvaluationFault(
        Reason.NO_OVERLOAD, f"{type_name} does not take {kind_name(value)}: {describe(value)}", value
    )


def _integer(type_name: str, cls: type[int], low: int, high: int) -> Callable[[dict[str, Any]], Any]:
    def build(fields: dict[str, Any]) -> Any:
        value = fields.get("value", cls(0))
        if type(value) is not cls:
            raise _wrong(type_name, value)
        if not low <= value <= high:
            raise EvaluationFault(Reason.OVERFLOW, f"{describe(value)} is outside the range of {type_name}", value)
        return value

    return build


def _plain(type_name: str, cls: type, default: object) -> Callable[[dict[str, Any]], Any]:
    def build(fields: dict[str, Any]) -> Any:
        value = fields.get("value", default)
        if not isinstance(value, cls):
            raise _wrong(type_name, value)
        return value

    return build


def _float(fields: dict[str, Any]) -> float:
    value = fields.get("value", 0.0)
    if not isinstance(value, float):
        raise _wrong("FloatValue", value)
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _json(value: Any) -> Any:
    """A value as JSON holds it: every number a double, keys text."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise _wrong("a key of Struct", key)
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if value is None or isinstance(value, bool | float | str):
        return value
    raise _wrong("Value", value)


def _list(fields: dict[str, Any]) -> Any:
    value = fields.get("values", [])
    if not isinstance(value, list):
        raise _wrong("ListValue", value)
    return _json(value)


def _struct(fields: dict[str, Any]) -> Any:
    value = fields.get("fields", {})
    if not isinstance(value, dict):
        raise _wrong("Struct", value)
    return _json(value)


_VALUE_FIELDS: dict[str, type] = {
    "null_value": type(None),
    "number_value": float,
    "string_value": str,
    "bool_value": bool,
    "struct_value": dict,
    "list_value": list,
}


def _value(fields: dict[str, Any]) -> Any:
    if len(fields) > 1:
        raise EvaluationFault(Reason.NO_OVERLOAD, "Value takes one field, not " + ", ".join(sorted(fields)))
    for name, value in fields.items():
        if not isinstance(value, _VALUE_FIELDS[name]) and not (name == "null_value" and value == 0):
            raise _wrong(f"Value.{name}", value)
        return None if name == "null_value" else _json(value)
    return None


def _nanoseconds(type_name: str, fields: dict[str, Any]) -> int:
    for value in fields.values():
        if type(value) is not int:
            raise _wrong(type_name, value)
    return int(fields.get("seconds", 0)) * 1_000_000_000 + int(fields.get("nanos", 0))


def _timestamp(fields: dict[str, Any]) -> datetime:
    return times.time_from_ns(_nanoseconds("Timestamp", fields))


def _duration(fields: dict[str, Any]) -> timedelta:
    return times.span_from_ns(_nanoseconds("Duration", fields))


#: type -> (its fields, what builds the plain value)
MESSAGES: dict[str, tuple[frozenset[str], Callable[[dict[str, Any]], Any]]] = {
    _PREFIX + name: (frozenset(fields.split()), build)
    for name, fields, build in (
        ("BoolValue", "value", _plain("BoolValue", bool, False)),
        ("BytesValue", "value", _plain("BytesValue", bytes, b"")),
        ("StringValue", "value", _plain("StringValue", str, "")),
        ("DoubleValue", "value", _plain("DoubleValue", float, 0.0)),
        ("FloatValue", "value", _float),
        ("Int32Value", "value", _integer("Int32Value", int, -(2**31), 2**31 - 1)),
        ("Int64Value", "value", _integer("Int64Value", int, INT_MIN, INT_MAX)),
        ("UInt32Value", "value", _integer("UInt32Value", Uint, 0, 2**32 - 1)),
        ("UInt64Value", "value", _integer("UInt64Value", Uint, 0, UINT_MAX)),
        ("ListValue", "values", _list),
        ("Struct", "fields", _struct),
        ("Value", " ".join(_VALUE_FIELDS), _value),
        ("Timestamp", "seconds nanos", _timestamp),
        ("Duration", "seconds nanos", _duration),
    )
}


def fields_of(type_name: str) -> frozenset[str] | None:
    """The fields of a message type, or None when the type is not known here."""
    found = MESSAGES.get(type_name)
    return found[0] if found else None


def build_message(type_name: str, fields: dict[str, Any]) -> Any:
    """The plain value of a message literal.

    Raises:
        EvaluationFault: a field's value is of the wrong type or out of range.
    """
    return MESSAGES[type_name][1](fields)
