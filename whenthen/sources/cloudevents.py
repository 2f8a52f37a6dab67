"""CloudEvents 1.0 (structured JSON) as events in their native form, before they are checked. Pure.

| CloudEvent | event |
| --- | --- |
| `type` | `event` |
| `source` and `id` | `id`: `<source>#<id>`, the pair that the specification calls unique |
| `subject`, else `source` | `resource.id` |
| `source`, `subject`, text extensions | labels of the resource |
| `time` | `occurred` |
| `data`, or `data_base64` decoded | `payload` |
| `traceparent`, `tracestate` | `trace`, see `trace_of_cloudevent` |

Called by the HTTP edge and by `replay`. Specification: CloudEvents 1.0.2, JSON event format.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from whenthen.schemas import TRACE_HEADERS, InvalidEvent, read_trace

__all__ = ["event_of_cloudevent", "is_cloudevent", "trace_of_cloudevent"]

_KNOWN = frozenset(
    (
        *("specversion", "id", "source", "type", "subject", "time", "data", "data_base64"),
        *("datacontenttype", "dataschema", *TRACE_HEADERS),
    )
)
_REQUIRED = ("id", "source", "type")


def is_cloudevent(data: Any) -> bool:
    """Whether an object says that it is a CloudEvent."""
    return isinstance(data, dict) and "specversion" in data


def event_of_cloudevent(data: Any) -> dict[str, Any]:
    """The native form of one structured CloudEvent.

    Raises:
        InvalidEvent: an attribute is missing or wrong; names it.
    """
    if not isinstance(data, dict):
        raise InvalidEvent("a CloudEvent is a JSON object", path=("event",))
    version = data.get("specversion")
    if version is None:
        raise InvalidEvent('missing; a CloudEvent says "specversion": "1.0"', path=("specversion",))
    if version != "1.0":
        raise InvalidEvent(f"{str(version)[:40]!r} is not known; 1.0 is", path=("specversion",))
    for name in (*_REQUIRED, *(name for name in ("subject", "time") if data.get(name) is not None)):
        value = data.get(name)
        if not isinstance(value, str) or not value:
            found = "missing" if value is None else "not text, or empty"
            raise InvalidEvent(f"{found}; a CloudEvent needs id, source and type as text", path=(name,))
    source, subject = data["source"], data.get("subject")
    labels = {"id": subject or source, "source": source}
    if subject:
        labels["subject"] = subject
    for name, value in data.items():
        if name not in _KNOWN and isinstance(value, (str, int, bool)):
            labels.setdefault(name, value if isinstance(value, str) else orjson.dumps(value).decode())
    event: dict[str, Any] = {
        "event": data["type"],
        "id": f"{source}#{data['id']}",
        "resource": labels,
        "payload": _payload(data),
    }
    if data.get("time") is not None:
        event["occurred"] = data["time"]
    return event


def trace_of_cloudevent(data: Any) -> dict[str, str] | None:
    """The trace of the distributed tracing extension; None without one, or with one that is malformed."""
    if not isinstance(data, dict) or not isinstance(data.get("traceparent"), str):
        return None
    state = data.get("tracestate")
    return read_trace([data["traceparent"]], [state] if isinstance(state, str) else [])


def _payload(data: dict[str, Any]) -> Any:
    if data.get("data_base64") is None:
        return data.get("data")
    try:
        raw = base64.b64decode(data["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidEvent("not base64", path=("data_base64",)) from None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return data["data_base64"]
