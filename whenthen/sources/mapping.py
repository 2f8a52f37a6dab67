"""A webhook's `map`, compiled: how one request becomes events.

Called by `sources.translator`. Meaning: docs/sources.md, "Mapping".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from whenthen.conditions import Condition, compile_condition
from whenthen.schemas.base import CONTROL
from whenthen.schemas.errors import (
    FieldPath,
    InvalidEvent,
    InvalidInput,
    InvalidTemplate,
    RenderError,
    WhenthenError,
    error_text,
)
from whenthen.schemas.events import (
    Event,
    EventLimits,
    is_reserved_name,
    new_event,
)
from whenthen.schemas.times import read_time
from whenthen.schemas.webhooks import EventMapping
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import legal_name
from whenthen.sources.requests import Request, decode_body, is_text, kind_of
from whenthen.templates import Path, Value, compile_path, compile_value, scalar_text

__all__ = [
    "CompiledMapping",
    "HandshakeAnswer",
    "SourceLimits",
    "Translation",
    "checked_condition",
    "delivery_event_id",
    "digest_of",
    "ids_of",
    "items_of",
    "label_text",
    "reject",
    "time_of",
]

_EACH: FieldPath = ("map", "each")
#: characters of an event's id
MAX_ID = 256
_PARSE_TIME = (
    'another form is read with a filter, such as {{ body.at | parse_time("%d/%m/%Y %H:%M", "Europe/Berlin") }}'
)
_GROWTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits:
    """How much one request may become."""

    events: int = 1000  #: of one request
    bytes: int = 16_000_000  #: of all its events together, or four times its body if that is more
    event: EventLimits = field(default_factory=EventLimits)

    def bytes_of(self, request: Request) -> int:
        """How much all events of a request may take together."""
        return max(self.bytes, _GROWTH * len(request.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeAnswer:
    """What a handshake is answered with, beside events and refusals."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, kw_only=True)
class Translation:
    """What a request became. `dropped` says for each thing that became no event why; both may be empty."""

    events: list[Event] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    extra_bytes: int = 0  #: of the events of a mapping that may repeat parts of the body, so far as they were counted
    answer: HandshakeAnswer | None = None  #: of a request that is no event and waits for it
    confirm: str | None = None  #: the address that confirms a subscription, of a verified request that asks for that
    confirms: bool = False  #: whether the webhook wants it confirmed


class CompiledMapping:
    """An `EventMapping` whose templates and condition are compiled.

    Its events come from `source`, and their ids begin with `ids`; both are those of the webhook `name` unless they are given. `extra` are
    further variables, which `translate` is given with each request. With `by_content` the id of an event for which none is mapped
    is that of its item, so that the same item is the same event whenever it comes.

    Raises:
        InvalidInput: a template, path or condition is wrong; its path is like `("map", "resource", "id")`.
    """

    def __init__(
        self,
        name: str,
        mapping: EventMapping,
        *,
        limits: SourceLimits,
        allow_reserved_names: bool = False,
        source: str = "",
        ids: str = "",
        extra: tuple[str, ...] = (),
        by_content: bool = False,
    ) -> None:
        if not allow_reserved_names and is_reserved_name(mapping.event):
            raise InvalidInput(
                f"events of the engine's own begin with {mapping.event.partition('.')[0]}.; use another name, or say "
                "`allow_reserved_names: true` beside `map`",
                path=("map", "event"),
            )
        self._name = name
        self._source = source or f"webhook:{name}"
        self._ids = ids or name
        self._by_content = by_content
        self._limits = limits
        known = ("body", "headers", "query", "method", "name", *extra) + (("item",) if mapping.each is not None else ())

        def value(spec: Any, field: str) -> Value:
            return compile_value(spec, known=known, known_steps=known, path=("map", field))

        self._reads_json = mapping.body == "json"
        self._each = _compile_each(mapping.each, known)
        self._when = None
        if mapping.when is not None:
            self._when = checked_condition(mapping.when, ("map", "when"), (*known, "now"))
        self._event = value(mapping.event, "event")
        self._event_is_made = bool(self._event.names_used or self._event.steps_used or self._event.reads_root)
        self._resource = value(mapping.resource, "resource")
        self._related = value(mapping.related, "related")
        whole = "$.body" if mapping.each is None else "$.item"
        self._payload = value(mapping.payload if "payload" in mapping.model_fields_set else whole, "payload")
        self._parts = _count_texts(mapping.payload)
        self._occurred = None if mapping.occurred is None else value(mapping.occurred, "occurred")
        self._id = None if mapping.id is None else value(mapping.id, "id")
        self._id_of_item = self._id is not None and "item" in self._id.names_used | self._id.steps_used

    def translate(
        self,
        request: Request,
        now: datetime,
        signed_at: str | None = None,
        *,
        delivery: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Translation:
        """The events of one request, in the order of its items. `signed_at` is the time that was signed with its body:
        where no `id` is mapped, the two together make the same request the same events, as does `delivery`.

        Raises:
            InvalidInput: the request does not fit the mapping; names the field.
        """
        body = decode_json(request.body) if self._reads_json else decode_body(request)
        if not isinstance(body, (dict, list)) and (self._reads_json or not is_text(request)):
            raise InvalidEvent(f"a JSON object or list is expected, found {kind_of(body)}", path=("body",))
        context = {
            "body": body,
            "headers": request.headers,
            "query": dict(request.query),
            "method": request.method,
            "name": self._name,
            **(extra or {}),
        }
        result = Translation()
        most = self._limits.bytes_of(request)
        if signed_at is not None and self._id is None:
            delivery = digest_of(signed_at.encode() + b"." + request.body)
        if self._each is None:
            self._translate_item(context, None, now, delivery, result)
            if result.events and self._parts * len(request.body) > most:
                self._count(result.events[0], most, result)
            return result
        items = items_of(self._each, context, limits=self._limits, where=_EACH)
        if not items:
            result.dropped.append(error_text(_EACH, f"{self._each.text} is an empty list"))
        for index, item in enumerate(items):
            made = len(result.events)
            self._translate_item({**context, "item": item}, index, now, delivery, result)
            if len(result.events) > made:
                self._count(result.events[-1], most, result)
        return result

    def _translate_item(
        self, context: dict[str, Any], index: int | None, now: datetime, delivery: str | None, result: Translation
    ) -> None:
        where: FieldPath = () if index is None else ("items", index)
        if self._when is not None:
            reason = reject(self._when, {**context, "now": now})
            if reason is not None:
                result.dropped.append(error_text((*where, "map", "when"), reason))
                return
        try:
            event = new_event(
                self._event_name(context),
                resource=_labels(self._resource.render(context), ("map", "resource")),
                related=self._related_labels(context),
                payload=self._payload.render(context),
                occurred=self._time(context),
                id=self._event_id(context, index, delivery),
                now=now,
                source=self._source,
                limits=self._limits.event,
            )
        except InvalidEvent as error:
            raise error.below(*where) from None
        except RenderError as error:
            raise InvalidInput(error.detail, path=(*where, *error.path)) from None
        result.events.append(event)

    def _related_labels(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        found = self._related.render(context)
        if not isinstance(found, list):
            raise InvalidEvent(f"a list of objects is expected, found {kind_of(found)}", path=("map", "related"))
        return [_labels(item, ("map", "related", place)) for place, item in enumerate(found)]

    def _time(self, context: Mapping[str, Any]) -> datetime | None:
        if self._occurred is None:
            return None
        try:
            return time_of(self._occurred.render(context), ("map", "occurred"))
        except InvalidEvent as error:
            raise InvalidEvent(f"{error.detail}; {_PARSE_TIME}", path=error.path) from None

    def _event_name(self, context: Mapping[str, Any]) -> str:
        """The event's name. What comes out of a request is made legal, as its sender would not send it otherwise; what the
        author wrote is not, and refused where it is wrong.
        """
        name = self._event.render(context)
        if not isinstance(name, str):
            raise InvalidEvent(f"text is expected, found {kind_of(name)}", path=("map", "event"))
        if not name.strip():
            raise InvalidEvent(
                "empty; begin the name with a word of your own, such as shop.{{ body.kind }}", path=("map", "event")
            )
        if not self._event_is_made or (name.isprintable() and len(name) <= self._limits.event.name_chars):
            return name
        return legal_name(name, self._limits.event.name_chars)

    def _count(self, event: Event, most: int, result: Translation) -> None:
        """Count the bytes of an event, part by part: they are made here for the first time, and may be many.

        Raises:
            InvalidInput: the events of the request take more than `most`.
        """
        payload = event.data.get("payload")
        for part in payload.values() if isinstance(payload, dict) else (payload,):
            result.extra_bytes += len(orjson.dumps(part))
            if result.extra_bytes > most:
                raise InvalidInput(
                    f"the payloads of this request's events take more than {most} bytes; "
                    "take what each event needs, such as $.item, and not the whole body",
                    path=("map", "payload"),
                )

    def _event_id(self, context: dict[str, Any], index: int | None, signed: str | None) -> str | None:
        if self._id is None:
            if self._by_content:
                content = context["body"] if index is None else context["item"]
                return delivery_event_id(self._ids, digest_of(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)))
            if signed is None:
                return None
            return delivery_event_id(self._ids, signed if index is None else f"{signed}-{index}")
        delivery = label_text(self._id.render(context), ("map", "id"))
        if not delivery:
            raise InvalidEvent("empty; a redelivery could not be told from a new event", path=("map", "id"))
        if index is not None and not self._id_of_item:
            delivery = f"{delivery}-{index}"
        return delivery_event_id(self._ids, delivery)


def items_of(
    each: Path, context: dict[str, Any], *, limits: SourceLimits, where: FieldPath, one: bool = False
) -> list[Any]:
    """The items of a request, one event for each. With `one` an object counts as a list of itself alone.

    Raises:
        InvalidInput: the path `each` finds no list, or one that is too long; the error's path starts with `where`.
    """
    try:
        items = each.one(context)
    except RenderError as error:
        raise InvalidInput(error.detail, path=(*where, *error.path)) from None
    if one and isinstance(items, dict):
        return [items]
    if not isinstance(items, list):
        raise InvalidInput(f"{each.text} is {kind_of(items)}; a list is expected", path=where)
    if len(items) > limits.events:
        raise InvalidInput(f"{len(items)} items; at most {limits.events} are allowed in a request", path=where)
    return items


def _count_texts(spec: Any) -> int:
    """How many texts a payload is written with: each may stand for the whole body."""
    if isinstance(spec, dict):
        return sum(map(_count_texts, spec.values()))
    if isinstance(spec, list):
        return sum(map(_count_texts, spec))
    return int(isinstance(spec, str))


def checked_condition(text: str, path: FieldPath, known: Collection[str]) -> Condition:
    """The compiled condition.

    Raises:
        InvalidInput: it does not compile; the path starts with `path`.
    """
    try:
        return compile_condition(text, variables=known)
    except WhenthenError as error:
        raise error.below(*path) from None


def reject(condition: Condition, variables: Mapping[str, Any]) -> str | None:
    """Why the condition does not let these variables pass; None when it does. One that fails does not hold."""
    try:
        return None if condition.holds(variables) else "does not hold"
    except WhenthenError as error:
        return str(error)


def delivery_event_id(name: str, delivery: str) -> str:
    """The event id of a delivery: `<webhook>/<delivery>`, or a digest of the delivery where that is no legal id.

    No name has a slash, so two webhooks never make one id; nor has an id of the engine's own.
    """
    event_id = f"{name}/{delivery}"
    if len(event_id) > MAX_ID or CONTROL.search(event_id):
        return f"{name}/{digest_of(delivery.encode(errors='surrogatepass'))}"
    return event_id


def ids_of(shared: str | None, own: str) -> str:
    """What the ids of a webhook's or a source's events begin with: its own, or what it shares with others that bring the same."""
    return own if shared is None else f"ids:{shared}"


def digest_of(data: bytes) -> str:
    """A short name of some bytes, for ids that are made of them."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def label_text(value: Any, path: FieldPath) -> str:
    """A label's text: text as it is, numbers and booleans as JSON writes them.

    Raises:
        InvalidEvent: null, a list or an object.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return scalar_text(value)
    raise InvalidEvent(f"text is expected, found {kind_of(value)}; name one value of it", path=path)


def _compile_each(text: str | None, known: Collection[str]) -> Path | None:
    if text is None:
        return None
    try:
        path = compile_path(text)
        compile_value(text, known_steps=[name for name in known if name != "item"])
    except InvalidTemplate as error:
        raise error.below(*_EACH) from None
    return path


def _labels(rendered: Any, path: FieldPath) -> dict[str, str]:
    if not isinstance(rendered, dict):
        raise InvalidEvent(f"an object of labels is expected, found {kind_of(rendered)}", path=path)
    # most values are text already, and need neither the call nor their path
    return {
        label: value if type(value) is str else label_text(value, (*path, label)) for label, value in rendered.items()
    }


def time_of(value: Any, path: FieldPath) -> datetime:
    """The time in a request, in every form that has one meaning only; see `read_time`.

    Raises:
        InvalidEvent: it is none; the message has the remedy.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidEvent(
            f"a time is expected, found {kind_of(value)}; leave the field out to use the arrival", path=path
        )
    try:
        return read_time(value)
    except ValueError as error:
        raise InvalidEvent(str(error), path=path) from None
