"""CloudEvents 1.0, in structured and binary mode, as events in their native form, before they are checked. Pure.

| CloudEvent | event |
| --- | --- |
| `type` | `event` |
| `source` and `id` | `id`: `<source>#<id>`, the pair that the specification calls unique, or a digest of the two |
| `subject`, else `source` | `resource.id` |
| `source`, `subject`, text extensions | labels of the resource |
| `time` | `occurred` |
| `data`, or `data_base64` decoded | `payload` |
| `traceparent`, `tracestate` | `trace`, see `trace_of_cloudevent` |

Called by the HTTP edge and by `replay`. Specification: CloudEvents 1.0.2, JSON event format and HTTP protocol binding.
Meaning: docs/sources.md, "CloudEvents".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from whenthen.schemas.base import CONTROL
from whenthen.schemas.errors import FieldPath, InvalidEvent
from whenthen.schemas.events import EventLimits
from whenthen.schemas.times import format_time, read_time
from whenthen.schemas.trace_context import TRACE_HEADERS, read_trace
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import Labels
from whenthen.sources.requests import Request

__all__ = [
    "cloudevent_of_message",
    "event_of_cloudevent",
    "is_binary_cloudevent",
    "is_cloudevent",
    "trace_of_cloudevent",
]

_KNOWN = frozenset(
    (
        *("specversion", "id", "source", "type", "subject", "time", "data", "data_base64"),
        *("datacontenttype", "dataschema", *TRACE_HEADERS),
    )
)
_REQUIRED = ("id", "source", "type")
_PREFIX = b"ce-"
#: either header says that a request is a CloudEvent in binary mode; all of `_REQUIRED` are asked for after that
_MARKS = (b"ce-specversion", b"ce-type")
#: media types whose data is text, beside `text/*` and `+xml`
_TEXT_TYPES = frozenset(
    (
        *("application/xml", "application/yaml", "application/x-yaml", "application/toml", "application/javascript"),
        *("application/x-www-form-urlencoded", "application/x-ndjson", "application/jsonl", "application/sql"),
    )
)
_MAX_ID = EventLimits().id_chars
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def is_cloudevent(data: Any) -> bool:
    """Whether an object says that it is a CloudEvent."""
    return isinstance(data, dict) and "specversion" in data


def is_binary_cloudevent(headers: Iterable[tuple[bytes, bytes]], media_type: str) -> bool:
    """Whether a request with these headers, names in lower case, is a CloudEvent in binary mode."""
    return not media_type.startswith("application/cloudevents") and any(name in _MARKS for name, _ in headers)


def cloudevent_of_message(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> dict[str, Any]:
    """A CloudEvent in binary mode as a structured one: attributes from `ce-` headers, `body` decoded as its type says.

    Raises:
        InvalidEvent: a header or the body can not be decoded; names it.
        UnsupportedMediaType: text in a character set that is not read.
    """
    found: dict[str, Any] = {}
    content_type = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name.startswith(_PREFIX) and len(name) > len(_PREFIX):
            attribute = name[len(_PREFIX) :].decode("latin-1")
            if attribute in ("data", "data_base64"):
                continue  # no attributes: the data is the body
            text = _attribute(value, f"ce-{attribute}")
            if found.setdefault(attribute, text) != text:
                raise InvalidEvent("given twice, with different values", path=("headers", f"ce-{attribute}"))
    if content_type is not None:
        found["datacontenttype"] = content_type
    if body:
        found["data"] = _decoded(body, content_type, ("body",))
    return found


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
    labels = Labels(subject or source)
    labels.put("source", source)
    labels.put("subject", subject)
    for name, value in data.items():
        if name not in _KNOWN and isinstance(value, (str, int, bool)):
            labels.put(name, value)
    event: dict[str, Any] = {
        "event": data["type"],
        "id": _event_id(source, data["id"]),
        "resource": labels.done(),
        "payload": _payload(data),
    }
    if data.get("time") is not None:
        try:
            event["occurred"] = format_time(read_time(data["time"]))
        except ValueError as error:
            raise InvalidEvent(str(error), path=("time",)) from None
    return event


def trace_of_cloudevent(data: Any) -> dict[str, str] | None:
    """The trace of the distributed tracing extension; None without one, or with one that is malformed."""
    if not isinstance(data, dict) or not isinstance(data.get("traceparent"), str):
        return None
    state = data.get("tracestate")
    return read_trace([data["traceparent"]], [state] if isinstance(state, str) else [])


def _event_id(source: str, id: str) -> str:
    """`<source>#<id>`, or a digest of the two where that is no legal id, or could be that of another source and id.

    A digest has no `#`, so it is never taken for the other form.
    """
    event_id = f"{source}#{id}"
    if len(event_id) <= _MAX_ID and "#" not in source and not CONTROL.search(event_id):
        return event_id
    pair = f"{len(source)}:{source}#{id}".encode(errors="surrogatepass")
    return f"cloudevent:{hashlib.blake2b(pair, digest_size=20).hexdigest()}"


def _payload(data: Mapping[str, Any]) -> Any:
    if data.get("data_base64") is None:
        return data.get("data")
    if data.get("data") is not None:
        raise InvalidEvent("given beside data; a CloudEvent has one of the two", path=("data_base64",))
    content_type = data.get("datacontenttype")
    try:
        raw = base64.b64decode(data["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidEvent("not base64", path=("data_base64",)) from None
    return _decoded(raw, content_type if isinstance(content_type, str) else None, ("data_base64",))


def _decoded(raw: bytes, content_type: str | None, path: FieldPath) -> Any:
    """Data by its media type: JSON as its value, text as text, and everything else as base64.

    Without a type it is JSON, or else text, or else base64.
    """
    request = Request(headers={"content-type": content_type or ""}, body=raw)
    kind = request.media_type
    if not kind:
        try:
            return decode_json(raw, path)
        except InvalidEvent:
            return _text(raw, "utf-8", default=base64.b64encode(raw).decode())
    subtype = kind.partition("/")[2]
    if subtype == "json" or subtype.endswith("+json"):
        return decode_json(raw, path)
    if kind.startswith("text/") or subtype.endswith("+xml") or kind in _TEXT_TYPES:
        text = _text(raw, request.charset, default=None)
        if text is None:
            raise InvalidEvent(f"not {request.charset.upper()}, though its type is {kind[:80]}", path=path)
        return text
    return base64.b64encode(raw).decode()


def _text(raw: bytes, charset: str, *, default: Any) -> Any:
    try:
        return raw.decode(charset)
    except UnicodeDecodeError:
        return default


def _attribute(value: bytes, header: str) -> str:
    """The text of a header: quotes are taken away and percent-encoding is decoded once, as the HTTP binding says."""
    plain = value.strip(b" \t")
    if quoted := _QUOTED.fullmatch(plain):
        plain = _ESCAPED.sub(rb"\1", quoted[1])
    try:
        return unquote_to_bytes(plain).decode()
    except UnicodeDecodeError:
        raise InvalidEvent("not UTF-8 after percent-decoding", path=("headers", header)) from None
