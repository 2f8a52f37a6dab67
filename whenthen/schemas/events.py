"""What an event is, how it travels, and how one that comes from outside is checked.

On the wire an event is a JSON object:

    {"id": "github/72d3162e", "event": "github.push", "occurred": "2026-01-31T08:00:00.000000Z",
     "received": "2026-01-31T08:00:00.100000Z", "source": "webhook:github",
     "resource": {"id": "github.repository.acme/app", "ref": "refs/heads/main"},
     "related": [{"id": "github.user.ada", "role": "sender"}],
     "payload": {...}, "follows": null, "lineage": {"depth": 1, "firing": "...", "automations": ["load"]},
     "trace": {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01"}}

`lineage` and `trace` are there only when there is one.

`Event` wraps the decoded object as it is: the evaluator handles tens of thousands a second and reads a few fields of
each. Whatever is in the `EVENTS` stream went through `read_event` first, so `Event` does not check again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from whenthen.schemas.base import CONTROL
from whenthen.schemas.errors import FieldPath, InvalidEvent, ReservedName, near_names
from whenthen.schemas.times import format_time, parse_time, parse_us

__all__ = [
    "RESERVED_NAMES",
    "Event",
    "EventLimits",
    "SeenEvent",
    "check_outside",
    "decode_event",
    "is_reserved_name",
    "new_event",
    "read_event",
]

#: beginnings of the names of the engine's own events; one from outside has none of them unless its way in allows it
RESERVED_NAMES = ("flow-run.", "task-run.", "deployment.", "work-pool.", "automation.")

FIELDS = ("id", "event", "occurred", "resource", "related", "payload", "follows")
_FIELDS = frozenset(FIELDS)
#: ids of the engine's own events: of a flow run's states, of what actions did or emitted, of stopped loops
_OWN_ID = re.compile(r"[0-9a-f]{32}-[0-9]+|(?:emitted-)?[0-9a-f]{32}\.[0-9]+(?:\..*)?|loop-[0-9a-f]{32}")
_ABSENT: Any = object()  # a field that is not there, which is not the same as null


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLimits:
    """How large one event may be, and how far its time may be off."""

    name_chars: int = 256
    id_chars: int = 256
    labels: int = 256  #: of one resource
    label_chars: int = 4096  #: of one label's value
    related: int = 256
    ahead: timedelta = timedelta(hours=1)  #: how far `occurred` may lie ahead of the clock


_LIMITS: Final = EventLimits()


class Event:
    """One event, read-only. `data` is the decoded wire form; treat it as frozen."""

    __slots__ = ("_time_us", "_variables", "data", "seq")

    def __init__(self, data: dict[str, Any], seq: int = 0) -> None:
        self.data = data
        self.seq = seq  #: position in the EVENTS stream; 0 when there is none
        self._time_us: int | None = None
        self._variables: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return self.data["id"]  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        return self.data["event"]  # type: ignore[no-any-return]

    @property
    def resource(self) -> dict[str, str]:
        return self.data["resource"]  # type: ignore[no-any-return]

    @property
    def related(self) -> list[dict[str, str]]:
        return self.data.get("related") or []

    @property
    def payload(self) -> Any:
        return self.data.get("payload")

    @property
    def follows(self) -> str | None:
        return self.data.get("follows")

    @property
    def occurred(self) -> datetime:
        return datetime.fromisoformat(self.data["occurred"])

    @property
    def depth(self) -> int:
        """How many firings lie between this event and one from outside."""
        lineage = self.data.get("lineage")
        return lineage["depth"] if lineage else 0

    @property
    def time_us(self) -> int:
        """When it counts, in microseconds: `occurred`, but never later than `received`.

        A producer whose clock runs ahead can so not push its key's windows into the future.
        """
        us = self._time_us
        if us is None:
            occurred = self.data["occurred"]
            received = self.data.get("received")
            if received is None or received == occurred:
                us = parse_us(occurred)
            elif len(occurred) == len(received) == 27:  # both as `format_time` writes them
                us = parse_us(min(occurred, received))
            else:
                us = min(parse_us(occurred), parse_us(received))
            self._time_us = us
        return us

    @property
    def came(self) -> dict[str, Any]:
        """The wire form without what a trigger computed."""
        return self.data

    @property
    def computed(self) -> dict[str, str] | None:
        """The labels that a trigger computed of the event; None where it computes none."""
        return None

    @property
    def variables(self) -> dict[str, Any]:
        """What a condition sees: `event`, with `occurred` and `received` as timestamps."""
        variables = self._variables
        if variables is None:
            event = dict(self.data)
            event["occurred"] = datetime.fromisoformat(event["occurred"])
            if event.get("received") is not None:
                event["received"] = datetime.fromisoformat(event["received"])
            event.setdefault("related", [])
            event.setdefault("payload", {})
            variables = self._variables = {"event": event}
        return variables

    def encode(self) -> bytes:
        """The wire form as JSON bytes."""
        return orjson.dumps(self.data)

    def __repr__(self) -> str:
        return f"Event({self.data.get('event')!r}, id={self.data.get('id')!r})"


class SeenEvent(Event):
    """An event as a trigger with `let` sees it: the computed labels are among those of its resource, and hide others."""

    __slots__ = ("_came", "_computed")

    def __init__(self, event: Event, computed: dict[str, str]) -> None:
        super().__init__({**event.data, "resource": {**event.data["resource"], **computed}}, event.seq)
        self._time_us = event.time_us
        self._came = event
        self._computed = computed

    @property
    def came(self) -> dict[str, Any]:
        return self._came.data

    @property
    def computed(self) -> dict[str, str] | None:
        return self._computed

    @property
    def variables(self) -> dict[str, Any]:
        if self._variables is None:
            before = self._came.variables["event"]
            self._variables = {"event": {**before, "resource": self.data["resource"]}}
        return self._variables


def decode_event(data: bytes, seq: int = 0) -> Event:
    """Read a message of the `EVENTS` stream. It was checked before it was published."""
    return Event(orjson.loads(data), seq)


def new_event(
    name: str,
    *,
    resource: dict[str, str],
    now: datetime,
    source: str,
    related: list[dict[str, str]] | None = None,
    payload: Any = None,
    occurred: datetime | None = None,
    id: str | None = None,
    follows: str | None = None,
    lineage: dict[str, Any] | None = None,
    trace: dict[str, str] | None = None,
    limits: EventLimits | None = None,
) -> Event:
    """Build a checked event from values. `now` becomes `received` and, where none is given, `occurred`.

    Raises:
        InvalidEvent: a value is out of its limits; the error names the field.
    """
    limits = limits or _LIMITS
    if name is None:
        raise InvalidEvent("missing; give the event's name, such as order.created", path=("event",))
    _check_text(("event",), name, limits.name_chars)
    if id is None:
        id = _random_id()
    _check_text(("id",), id, limits.id_chars)
    if resource is _ABSENT:
        raise InvalidEvent('missing; name what it happened to: {"id": "..."}', path=("resource",))
    if related is None:
        related = []
    if not isinstance(related, list):
        raise InvalidEvent(f"a list of resources, found {_kind(related)}", path=("related",))
    if len(related) > limits.related:
        raise InvalidEvent(f"{len(related)} resources; at most {limits.related} are allowed", path=("related",))
    if follows is not None:
        _check_text(("follows",), follows, limits.id_chars)
    resource = _labels(("resource",), resource, limits)
    received = format_time(now)
    checked = {
        "id": id,
        "event": name,
        "occurred": received if occurred is None else format_time(_occurred(occurred, now, limits)),
        "received": received,
        "source": source,
        "resource": resource,
        "related": [_labels(("related", index), item, limits) for index, item in enumerate(related)] if related else [],
        "payload": {} if payload is None else payload,
        "follows": follows,
    }
    if lineage is not None:
        checked["lineage"] = lineage
    if trace is not None:
        checked["trace"] = trace
    return Event(checked)


def read_event(
    data: Any,
    *,
    now: datetime,
    source: str,
    lineage: dict[str, Any] | None = None,
    trace: dict[str, str] | None = None,
    limits: EventLimits | None = None,
) -> Event:
    """Check one event from outside, native form, and complete it: id, `occurred`, `received`, `source`.

    Raises:
        InvalidEvent: with the path of the field, what was found, and the remedy.
    """
    if not isinstance(data, dict):
        raise InvalidEvent(f"an event is a JSON object, found {_kind(data)}", path=("event",))
    if not _FIELDS.issuperset(data):
        field = next(field for field in data if field not in _FIELDS)
        near = near_names(str(field), FIELDS)
        hint = f'; did you mean "{near[0]}"?' if near else f"; the fields are {', '.join(FIELDS)}"
        raise InvalidEvent("unknown field" + hint, path=(str(field)[:80],))
    name: Any = data.get("event")
    return new_event(
        name,
        resource=data.get("resource", _ABSENT),
        now=now,
        source=source,
        related=data.get("related"),
        payload=data.get("payload"),
        occurred=data.get("occurred"),
        id=data.get("id"),
        follows=data.get("follows"),
        lineage=lineage,
        trace=trace,
        limits=limits,
    )


def is_reserved_name(name: str) -> bool:
    """Whether only the engine's own events are called so."""
    return name.startswith(RESERVED_NAMES)


def check_outside(event: Event, *, reserved_names: bool) -> None:
    """Check that an event from outside does not pass for one of the engine's own, and does not take the id of one, which
    would then be a duplicate and get lost. `reserved_names` says whether it may be called like one.

    Raises:
        ReservedName: names the field.
    """
    if not reserved_names and event.name.startswith(RESERVED_NAMES):
        raise ReservedName(
            f"{event.name[:80]!r} is the name of an event of the engine's own; use another one, or set allow_reserved_names",
            path=("event",),
        )
    if _OWN_ID.fullmatch(event.id):
        raise ReservedName(
            f"{event.id!r} has the form of the engine's own ids; put a word of yours before it", path=("id",)
        )


def _random_id() -> str:
    """A random UUID (version 4) as text; `uuid.uuid4` builds an object on the way, which takes three times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _occurred(value: Any, now: datetime, limits: EventLimits) -> datetime:
    if isinstance(value, str):
        try:
            value = parse_time(value)
        except ValueError as error:
            raise InvalidEvent(str(error), path=("occurred",)) from None
    if not isinstance(value, datetime):
        raise InvalidEvent(f"an RFC 3339 time as text, found {_kind(value)}", path=("occurred",))
    if value.tzinfo is None:
        raise InvalidEvent(
            f"{value.isoformat()} has no time zone; add Z or an offset such as +02:00", path=("occurred",)
        )
    if value.year < 1970:
        raise InvalidEvent(f"{value.isoformat()} lies before 1970; check the producer's clock", path=("occurred",))
    if value > now + limits.ahead:
        raise InvalidEvent(
            f"{value.isoformat()} lies more than {limits.ahead} ahead of {now.isoformat()}; check the producer's clock",
            path=("occurred",),
        )
    return value.astimezone(UTC)


def _labels(path: FieldPath, value: Any, limits: EventLimits) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidEvent(f"a mapping of labels to text, found {_kind(value)}", path=path)
    if "id" not in value:
        raise InvalidEvent("missing; every resource has an id", path=(*path, "id"))
    if len(value) > limits.labels:
        raise InvalidEvent(f"{len(value)} labels; at most {limits.labels} are allowed", path=path)
    for label, text in value.items():
        # what is plainly right is recognised without calls, and without the name of its field
        plain = type(text) is str and text and len(text) <= limits.label_chars and text.isprintable()
        if plain and type(label) is str and label and len(label) <= limits.name_chars:
            continue
        if not isinstance(label, str):
            raise InvalidEvent(f"label names are text, found {_kind(label)}", path=path)
        _check_text((*path, label[:80]), text, limits.label_chars, empty=label != "id")
        if len(label) > limits.name_chars or not label:
            raise InvalidEvent(f"a label's name has 1 to {limits.name_chars} characters", path=path)
    return value


def _check_text(path: FieldPath, value: Any, limit: int, *, empty: bool = False) -> None:
    if type(value) is str and value and len(value) <= limit and value.isprintable():
        return  # nothing printable is a control character: no search is needed
    if not isinstance(value, str):
        raise InvalidEvent(f"text, found {_kind(value)}; write it in quotes", path=path)
    if not value and not empty:
        raise InvalidEvent("empty", path=path)
    if len(value) > limit:
        raise InvalidEvent(f"{len(value)} characters; at most {limit} are allowed", path=path)
    if CONTROL.search(value):
        raise InvalidEvent("has control characters; remove them", path=path)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
