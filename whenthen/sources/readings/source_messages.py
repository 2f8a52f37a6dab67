"""One source, compiled when rules are loaded: turns its messages into events.

Called by `engine.sources`, which has the connections. Pure: takes the message and `now`. Meaning: docs/sources.md, "Brokers and folders".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from whenthen.schemas.base import same_json
from whenthen.schemas.errors import InvalidEvent
from whenthen.schemas.event_sources import FolderReading, PollReading, Source
from whenthen.schemas.events import check_outside, read_event
from whenthen.schemas.providers import Provider
from whenthen.schemas.webhooks import EventMapping, Webhook
from whenthen.sources.cloud import unwrap
from whenthen.sources.cloudevents import (
    cloudevent_of_message,
    event_of_cloudevent,
    is_binary_cloudevent,
    is_cloudevent,
    trace_of_cloudevent,
)
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.mapping import CompiledMapping, SourceLimits, Translation, delivery_event_id, ids_of
from whenthen.sources.provider_files import find_provider
from whenthen.sources.requests import Request
from whenthen.sources.translator import WebhookTranslator

__all__ = ["SourceMessage", "SourceTranslator"]

#: what is known of a file that changed
_FILE = EventMapping(
    event="file.{{ body.change }}",
    resource={
        "id": "file.{{ body.folder }}/{{ body.path }}",
        "path": "$.body.path",
        "name": "$.body.name",
        "folder": "$.body.folder",
        "host": "$.body.host",
    },
)
#: an entry of a feed
_ENTRY = EventMapping(
    each="$.body.entries",
    event="feed.entry",
    resource={"id": "feed.{{ name }}", "entry": "$.item.id", "link": "$.item.link"},
    id="$.item.id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMessage:
    """What a source read at one time.

    `delivery` is the same whenever the same message is read again; None where the broker has no such thing, and then a message that
    comes again is another event unless the mapping has an `id`. `about` says where it is from, as the mapping's `message`. What is
    `asked` for is asked for again, so that nothing is lost of one that does not fit.
    """

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    asked: bool = False


class SourceTranslator:
    """Turns the messages of one source into events. `providers` are those of the rules, by name.

    Raises:
        InvalidInput: a template, path or condition is wrong; names the field.
    """

    def __init__(
        self,
        source: Source,
        *,
        limits: SourceLimits | None = None,
        providers: Mapping[str, Provider] | None = None,
    ) -> None:
        self.model = source
        self.name = source.name
        self.label = f"source:{source.name}"  #: of its events, and in metrics
        self._limits = limits or SourceLimits()
        self._ids = ids_of(source.ids, self.label)
        self._reserved_names = source.allow_reserved_names
        mapping = source.map
        if mapping is None and isinstance(source.read, FolderReading):
            mapping = _FILE
        elif mapping is None and isinstance(source.read, PollReading):
            mapping = _ENTRY
        self._preset: WebhookTranslator | None = None
        self._provider: Provider | None = None
        if source.preset is not None:
            self._provider = find_provider(source.preset, providers)
            self._preset = WebhookTranslator(
                _as_webhook(source),
                resolve_secret=_no_secret,
                limits=self._limits,
                providers=providers,
                source=self.label,
                ids=self._ids,
            )
        self._mapping: CompiledMapping | None = None
        if mapping is not None:
            self._mapping = CompiledMapping(
                source.name,
                mapping,
                limits=self._limits,
                allow_reserved_names=source.allow_reserved_names,
                source=self.label,
                ids=self._ids,
                extra=("message",),
                by_content=isinstance(source.read, PollReading),
            )

    def reads_as(self, other: SourceTranslator) -> bool:
        """Whether both read the same and make the same of it."""
        return same_json(self.model, other.model) and same_json(self._provider, other._provider)

    def translate(self, message: SourceMessage, now: datetime) -> Translation:
        """The events of a message, and for whatever was dropped the reason.

        Raises:
            InvalidInput: it does not fit; names the field.
            UnsupportedMediaType: its content type is not read.
            ReservedName: an event would be called like one of the engine's own.
        """
        request = Request.of(method="MESSAGE", headers=message.headers, body=message.body)
        delivery = message.delivery
        if self.model.envelope is not None:
            inside = unwrap(request, self.model.envelope)
            if isinstance(inside, str):
                return Translation(dropped=[inside])
            request, named = inside
            delivery = named or delivery
        if self._preset is not None:
            result = self._preset.read(request, now, delivery)
        elif self._mapping is not None:
            result = self._mapping.translate(request, now, delivery=delivery, extra={"message": dict(message.about)})
        else:
            result = self._read_events(request, delivery, now)
        for event in result.events:
            check_outside(event, reserved_names=self._reserved_names)
        return result

    def _read_events(self, request: Request, delivery: str | None, now: datetime) -> Translation:
        """Events as `POST /api/events` takes them, and CloudEvents in each of their forms."""
        headers = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in request.headers.items()]
        if is_binary_cloudevent(headers, request.media_type):
            found: Any = cloudevent_of_message(headers, request.body)
        else:
            found = decode_json(request.body)
        items = found if isinstance(found, list) else [found]
        if len(items) > self._limits.events:
            raise InvalidEvent(f"{len(items)} events in one message; at most {self._limits.events} are taken")
        result = Translation()
        for index, item in enumerate(items):
            try:
                trace = trace_of_cloudevent(item)
                data = event_of_cloudevent(item) if is_cloudevent(item) else item
                if isinstance(data, dict) and data.get("id") is None and delivery is not None:
                    place = delivery if found is item else f"{delivery}-{index}"
                    data = {**data, "id": delivery_event_id(self._ids, place)}
                event = read_event(data, now=now, source=self.label, trace=trace, limits=self._limits.event)
            except InvalidEvent as error:
                raise error.below(index) if isinstance(found, list) else error from None
            result.events.append(event)
        return result


def _as_webhook(source: Source) -> Webhook:
    """The preset of a source, with what the source adds to it; its broker has proven who may write there."""
    return Webhook(
        name=source.name,
        preset=source.preset,
        verify="none",
        when=source.when,
        each=source.each,
        labels=source.labels,
        related=source.related,
        allow_reserved_names=source.allow_reserved_names,
    )


def _no_secret(reference: str) -> str:
    raise NotImplementedError(f"{reference}: messages are verified by nobody")
