"""The lines that a run's process sends, read as the work of a stranger. Pure.

One JSON object a line, at most `MAX_LINE_BYTES`. The first of a connection is a `Hello`. Meaning: docs/deployments.md, "What a run tells
its worker".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from whenthen.runs.reports.task_runs import STATE_TYPES, TaskRunMove
from whenthen.schemas.base import MAX_DEPTH, is_deeper_than
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.times import format_time

__all__ = [
    "MAX_LINE_BYTES",
    "PROTOCOLS",
    "BadReport",
    "Dropped",
    "Hello",
    "Kept",
    "LogReport",
    "Report",
    "Request",
    "ToldArtifact",
    "ToldEvent",
    "read_hello",
    "read_report_line",
    "read_request",
]

MAX_LINE_BYTES: Final = 1 << 20
PROTOCOLS: Final = frozenset({1})  #: that this worker speaks
MAX_TEXT_CHARS: Final = 70_000  #: of one logged text
MAX_MESSAGE_CHARS: Final = 4_000
MAX_NAME_CHARS: Final = 500
MAX_TAGS: Final = 50
MAX_CLOSED: Final = 10_000  #: files that one greeting names
_ID = re.compile(r"[0-9a-f]{32}")
_SENT = re.compile(r"[0-9]{1,10}-[0-9a-f]{8}-[0-9]{6,}\.sent")
_FILE = re.compile(r"[0-9]{1,10}-[0-9a-f]{8}-[0-9]{6,}\.jsonl")


class BadReport(WhenthenError):
    """A line is none of the protocol."""

    reason = "bad_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """How a connection begins."""

    protocol: int
    token: str
    asks: bool  #: whether one request follows, and not reports
    closed: tuple[str, ...]  #: files with reports that go before those of the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """What a run logged. The text may have several lines."""

    at: str
    level: int
    text: str
    name: str  #: of the task run; empty for that of a flow


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldEvent:
    """What `emit_event` was called with: fields of an event, not checked yet."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldArtifact:
    """An artifact, or one that was updated."""

    id: str
    key: str
    kind: str
    description: str
    data: Any
    metadata: dict[str, str]
    task_run: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Lines of the log that were left out, since nobody read them in time."""

    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What came before is in this file, too, which may go when it is stored."""

    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run asks for."""

    kind: str
    body: dict[str, Any]


Report = TaskRunMove | LogReport | ToldEvent | ToldArtifact | Dropped | Kept


def read_hello(line: bytes) -> Hello:
    """
    Raises:
        BadReport: it is none.
    """
    fields = _fields(line)
    if fields.get("type") != "hello":
        raise BadReport("the first line is no greeting")
    protocol, token, closed = fields.get("protocol"), fields.get("token"), fields.get("closed", [])
    if not isinstance(protocol, int) or not isinstance(token, str) or not isinstance(closed, list):
        raise BadReport("the greeting lacks its protocol or its token")
    names = tuple(name for name in closed[:MAX_CLOSED] if isinstance(name, str) and _FILE.fullmatch(name))
    return Hello(protocol=protocol, token=token, asks=fields.get("for") == "requests", closed=names)


def read_request(line: bytes) -> Request:
    """
    Raises:
        BadReport: it is none.
    """
    fields = _fields(line)
    kind, body = fields.get("kind"), fields.get("body")
    if fields.get("type") != "request" or not isinstance(kind, str) or not isinstance(body, dict):
        raise BadReport("the line is no request")
    return Request(kind=kind[:MAX_NAME_CHARS], body=body)


def read_report_line(line: bytes, *, attempt: int) -> Report:
    """
    Raises:
        BadReport: it is none of the protocol; says why.
    """
    fields = _fields(line)
    kind = fields.get("type")
    if kind == "state":
        return _move(fields, attempt)
    if kind == "log":
        level = fields.get("level")
        return LogReport(
            at=_time(fields),
            level=level if isinstance(level, int) and 0 <= level <= 1000 else 0,
            text=_text(fields, "text", MAX_TEXT_CHARS),
            name=_text(fields, "name", MAX_NAME_CHARS),
        )
    if kind == "event" and isinstance(fields.get("event"), dict):
        return ToldEvent(fields=fields["event"])
    if kind == "artifact":
        return ToldArtifact(
            id=_id(fields, "id"),
            key=_text(fields, "key", MAX_NAME_CHARS),
            kind=_text(fields, "kind", MAX_NAME_CHARS),
            description=_text(fields, "description", MAX_MESSAGE_CHARS),
            data=fields.get("data"),
            metadata=_texts(fields, "metadata"),
            task_run=_id(fields, "task_run") if fields.get("task_run") else "",
            at=_time(fields),
        )
    if kind == "kept" and isinstance(fields.get("file"), str) and _SENT.fullmatch(fields["file"]):
        return Kept(file=fields["file"])
    if kind == "dropped" and isinstance(fields.get("lines"), int):
        return Dropped(lines=max(0, min(fields["lines"], 1 << 53)))
    raise BadReport(f"a line of type {str(kind)[:80]!r} is not of this protocol, or lacks what it needs")


def _move(fields: dict[str, Any], attempt: int) -> TaskRunMove:
    number, state, tries, tags = fields.get("n"), fields.get("state"), fields.get("try"), fields.get("tags")
    if not isinstance(number, int) or not 0 < number < 1 << 53 or state not in STATE_TYPES:
        raise BadReport("a state has no number, or a type that is not known")
    return TaskRunMove(
        id=_id(fields, "id"),
        n=number,
        state=state,
        state_name=_text(fields, "state_name", MAX_NAME_CHARS) or state.capitalize(),
        at=_time(fields),
        message=_text(fields, "message", MAX_MESSAGE_CHARS),
        tries=tries if isinstance(tries, int) and 0 <= tries < 1 << 31 else 0,
        attempt=attempt,
        kind="flow" if fields.get("kind") == "flow" else "task",
        name=_text(fields, "name", MAX_NAME_CHARS),
        of=_text(fields, "of", MAX_NAME_CHARS),
        parent=_id(fields, "parent") if fields.get("parent") else "",
        tags=tuple(str(tag)[:MAX_NAME_CHARS] for tag in tags[:MAX_TAGS]) if isinstance(tags, list) else (),
    )


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        fields = _of_halved_pairs(line)
        if fields is None:
            raise BadReport(f"a line is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadReport("a line is no object")
    # what has fewer brackets is not that deep, which most lines are told from that alone
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and is_deeper_than(fields, MAX_DEPTH):
        raise BadReport(f"a line is nested more than {MAX_DEPTH} deep")
    return fields


def _of_halved_pairs(line: bytes) -> Any:
    """A line with texts that have half of a surrogate pair, as Python makes of a file's name that is no UTF-8: a question mark stands for
    that. None for what is no JSON for another reason."""
    if b"\\ud" not in line and b"\\uD" not in line:
        return None
    try:
        return orjson.loads(json.dumps(json.loads(line), ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _id(fields: dict[str, Any], name: str) -> str:
    found = fields.get(name)
    if not isinstance(found, str) or _ID.fullmatch(found) is None:
        raise BadReport(f"{name} is no id")
    return found


def _text(fields: dict[str, Any], name: str, most: int) -> str:
    found = fields.get(name)
    return found[:most] if isinstance(found, str) else ""


def _texts(fields: dict[str, Any], name: str) -> dict[str, str]:
    found = fields.get(name)
    pairs = list(found.items())[:MAX_TAGS] if isinstance(found, dict) else []
    return {key[:MAX_NAME_CHARS]: str(value)[:MAX_NAME_CHARS] for key, value in pairs}


def _time(fields: dict[str, Any]) -> str:
    try:
        found = datetime.fromisoformat(str(fields.get("at")))
        if found.tzinfo is None:
            raise ValueError
        return format_time(found)
    except (ValueError, OverflowError):
        raise BadReport("a time is none, or has no offset") from None
