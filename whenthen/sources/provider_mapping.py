"""A provider's data, compiled: how one request of its sender becomes events.

Called by `sources.translator`, which has verified the request. What a payload lacks is left out; what would name the event must be
there. Meaning: docs/sources.md, "Providers".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from whenthen.schemas.errors import FieldPath, InvalidEvent, InvalidInput, RenderError, error_text
from whenthen.schemas.events import Event, is_reserved_name, new_event
from whenthen.schemas.providers import After, Provider
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import Labels, label_of, legal_name, name_part
from whenthen.sources.mapping import (
    SourceLimits,
    Translation,
    checked_condition,
    delivery_event_id,
    digest_of,
    items_of,
    reject,
    time_of,
)
from whenthen.sources.picks import CompiledPick
from whenthen.sources.requests import Request, decode_body, kind_of
from whenthen.templates import Path, compile_path, compile_value

__all__ = ["Additions", "ProviderMapping", "context_of"]

VARIABLES = ("body", "headers", "query", "method", "name")
_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,100}", re.ASCII)  #: of a header that names an event
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)  #: what is a part of a name as it is
_FORM = "application/x-www-form-urlencoded"

Related = Sequence[Mapping[str, Sequence[str | After]]]
CompiledLabels = list[tuple[str, CompiledPick]]
CompiledRelated = tuple[CompiledPick, CompiledLabels]  #: of its id, and of its other labels


def context_of(request: Request, body: Any, name: str) -> dict[str, Any]:
    """What paths and templates see of a request."""
    headers = request.headers
    return {
        "body": body,
        "headers": headers if type(headers) is dict else dict(headers),
        "query": request.query if type(request.query) is dict else dict(request.query),
        "method": request.method,
        "name": name,
    }


class Additions:
    """The labels and related resources that a webhook adds to those of its preset."""

    def __init__(self, labels: Mapping[str, Sequence[str | After]], related: Related, known: Sequence[str]) -> None:
        self._labels = _compile_labels(labels, known, ("labels",))
        self._related = [_compile_related(each, known, ("related", place)) for place, each in enumerate(related)]

    def __bool__(self) -> bool:
        return bool(self._labels or self._related)

    def add_labels(self, labels: Labels, context: dict[str, Any]) -> None:
        _put(self._labels, labels, context)

    def related(self, context: dict[str, Any]) -> list[dict[str, str]]:
        return _related(self._related, context)


class ProviderMapping:
    """A `Provider` whose paths, templates and conditions are compiled, with what a webhook adds to it. `source` and `ids`: see
    `CompiledMapping`.

    Raises:
        InvalidInput: a template, path or condition is wrong; its path is like `("resource", "id")`.
    """

    def __init__(
        self,
        webhook: str,
        provider: Provider,
        *,
        limits: SourceLimits,
        each: str | None = None,
        labels: Mapping[str, Sequence[str | After]] | None = None,
        related: Related = (),
        allow_reserved_names: bool = False,
        source: str = "",
        ids: str = "",
    ) -> None:
        self._name = webhook
        self._source = source or f"webhook:{webhook}"
        self._ids = ids or webhook
        self._title = provider.title or provider.name
        self._limits = limits
        self._reads_json = provider.body == "json"
        self._form = provider.form
        path = each or provider.each
        self._each: Path | None = None if path is None else compile_path(path)
        self._each_is_body = path == "$.body"
        known = VARIABLES if path is None else (*VARIABLES, "item")
        if path is not None:
            compile_value(path, known_steps=VARIABLES, path=("each",))
        self._when = None
        if provider.when is not None:
            self._when = checked_condition(provider.when, ("when",), (*known, "now"))
        self._parts = [CompiledPick(part, known, ("event", place)) for place, part in enumerate(provider.event)]
        self._separators = {ord(mark): "." for mark in provider.separators}
        first = self._parts[0].constant
        if not allow_reserved_names and first is not None and is_reserved_name(f"{first}."):
            raise InvalidInput("names of events of the engine's own begin with this; use another one", path=("event",))
        self._kind = None if provider.kind is None else CompiledPick(provider.kind, known, ("kind",))
        self._id_label = CompiledPick(provider.resource["id"], known, ("resource", "id"))
        rest = {label: pick for label, pick in provider.resource.items() if label != "id"}
        self._labels = _compile_labels(rest, known, ("resource",))
        self._labels_by_kind = {
            kind: _compile_labels(picks, known, ("labels_by_kind", kind))
            for kind, picks in provider.labels_by_kind.items()
        }
        self._related = [
            _compile_related(each, known, ("related", place)) for place, each in enumerate(provider.related)
        ]
        self._additions = Additions(labels or {}, related, known)
        whole = "$.body" if path is None else "$.item"
        self._repeats = path is not None and provider.payload is not None
        self._payload = compile_value(
            whole if provider.payload is None else provider.payload, known=known, known_steps=known, path=("payload",)
        )
        self._occurred = None if provider.occurred is None else CompiledPick(provider.occurred, known, ("occurred",))
        self._id = None if provider.id is None else CompiledPick(provider.id, known, ("id",))
        named = [*self._parts, *([self._id] if self._id is not None else [])]
        self._headers = frozenset(header for pick in named for header in pick.headers)

    def translate(self, request: Request, now: datetime, signed_at: str | None = None) -> Translation:
        """The events of one request, in the order of its items. `signed_at`: see `CompiledMapping.translate`.

        Raises:
            InvalidInput: the request is none of this sender's; names the field.
        """
        for header in request.repeated & self._headers:
            raise InvalidEvent("is there several times; send it once", path=("headers", header))
        body = self._decode(request)
        context = context_of(request, body, self._name)
        signed = None if signed_at is None else digest_of(signed_at.encode() + b"." + request.body)
        result = Translation()
        if self._each is None:
            self._translate_item(context, None, now, signed, result)
            return result
        most = self._limits.bytes_of(request)
        items = items_of(self._each, context, limits=self._limits, where=("each",), one=self._each_is_body)
        if not items:
            result.dropped.append(error_text(("each",), f"{self._each.text} is an empty list"))
        for index, item in enumerate(items):
            context["item"] = item
            made = len(result.events)
            self._translate_item(context, index, now, signed, result)
            if self._repeats and len(result.events) > made:
                result.extra_bytes += len(orjson.dumps(result.events[-1].data.get("payload")))
                if result.extra_bytes > most:
                    raise InvalidInput(
                        f"the payloads of this request's events take more than {most} bytes", path=("payload",)
                    )
        return result

    def _decode(self, request: Request) -> Any:
        if request.method == "GET":
            return {}
        if self._reads_json:
            body = decode_json(request.body)
        else:
            body = decode_body(request)
            if self._form is not None and request.media_type == _FORM:
                body = self._of_form(body)
        if isinstance(body, dict) or (self._each_is_body and isinstance(body, list)):
            return body
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(body)}", path=("body",))

    def _of_form(self, fields: Any) -> Any:
        assert self._form is not None
        field = self._form.field
        document = fields.get(field)
        if document is None and not self._form.required:
            return fields
        if not isinstance(document, str):
            raise InvalidEvent(f"missing; {self._title} sends its JSON in this form field", path=("body", field))
        return decode_json(document.encode(), ("body", field))

    def _translate_item(
        self, context: dict[str, Any], index: int | None, now: datetime, signed: str | None, result: Translation
    ) -> None:
        where: FieldPath = () if index is None else ("items", index)
        if self._when is not None:
            reason = reject(self._when, {**context, "now": now})
            if reason is not None:
                result.dropped.append(error_text((*where, "when"), reason))
                return
        try:
            event = self._event(context, index, now, signed)
        except InvalidEvent as error:
            raise error.below(*where) from None
        except RenderError as error:
            raise InvalidInput(error.detail, path=(*where, *error.path)) from None
        result.events.append(event)

    def _event(self, context: dict[str, Any], index: int | None, now: datetime, signed: str | None) -> Event:
        name = self._event_name(context)
        id_label = label_of(self._id_label.value(context))
        if id_label is None:
            raise InvalidEvent(f"missing; {self._title}'s requests have it", path=self._id_label.path)
        labels = Labels(id_label)
        _put(self._labels, labels, context)
        if self._kind is not None and self._labels_by_kind:
            kind = self._kind.value(context)
            if isinstance(kind, str):
                _put(self._labels_by_kind.get(kind, []), labels, context)
        related = _related(self._related, context)
        if self._additions:
            self._additions.add_labels(labels, context)
            related += self._additions.related(context)
        return new_event(
            name,
            resource=labels.done(),
            related=related[: self._limits.event.related],
            payload=self._payload.render(context),
            occurred=self._time(context),
            id=self._event_id(context, index, signed),
            now=now,
            source=self._source,
            limits=self._limits.event,
        )

    def _time(self, context: dict[str, Any]) -> datetime | None:
        if self._occurred is None:
            return None
        found = self._occurred.value(context)
        return time_of(found, self._occurred.path) if found else None

    def _event_name(self, context: dict[str, Any]) -> str:
        """The parts that are there, with dots between them. The first that is read must be there, and name something."""
        name: list[str] = []
        needed = True
        for pick in self._parts:
            if pick.constant is not None:
                name.append(pick.constant)
                continue
            value = pick.value(context)
            if value is None or value == "":
                if needed:
                    raise InvalidEvent(f"missing; this address is for {self._title}'s webhooks", path=pick.path)
                continue
            if not isinstance(value, str):
                raise InvalidEvent(f"text is expected, found {kind_of(value)}", path=pick.path)
            if needed and pick.headers and not _WORD.fullmatch(value):
                raise InvalidEvent(f"{value[:40]!r} is not the name of an event", path=pick.path)
            if self._separators:
                value = value.translate(self._separators)
            part = value if _PLAIN.fullmatch(value) else name_part(value)
            if part:
                name.append(part)
            elif needed:
                raise InvalidEvent(f"{value[:40]!r} is not the name of an event", path=pick.path)
            needed = False
        return legal_name(".".join(name), self._limits.event.name_chars)

    def _event_id(self, context: dict[str, Any], index: int | None, signed: str | None) -> str | None:
        found = None if self._id is None else label_of(self._id.value(context))
        by_item = found is not None and self._id is not None and "item" in self._id.names
        found = signed if found is None else found
        if found is None:
            return None
        return delivery_event_id(self._ids, found if index is None or by_item else f"{found}-{index}")


def _compile_labels(
    labels: Mapping[str, Sequence[str | After]], known: Sequence[str], where: FieldPath
) -> CompiledLabels:
    return [(label, CompiledPick(pick, known, (*where, label))) for label, pick in labels.items()]


def _put(picks: CompiledLabels, labels: Labels, context: dict[str, Any]) -> None:
    for label, pick in picks:
        value = pick.value(context)
        if value is not None:
            labels.put(label, value)


def _compile_related(
    related: Mapping[str, Sequence[str | After]], known: Sequence[str], where: FieldPath
) -> CompiledRelated:
    rest = {label: pick for label, pick in related.items() if label != "id"}
    return CompiledPick(related["id"], known, (*where, "id")), _compile_labels(rest, known, where)


def _related(compiled: Sequence[CompiledRelated], context: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    for id_pick, picks in compiled:
        value = id_pick.value(context)
        if value is None:  # most of a provider's related objects are not in one request: no call for those
            continue
        id_label = label_of(value)
        if id_label is not None:
            labels = Labels(id_label)
            _put(picks, labels, context)
            found.append(labels.done())
    return found
