"""emit-event: publish an event that carries the lineage of the firing, through the `EventSink` port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whenthen.actions.attempts import ActionResult, Call, automation_id, lineage
from whenthen.actions.fields import (
    Field,
    compile_labels_path,
    compile_text_field,
    compile_text_mapping,
    compile_value_field,
)
from whenthen.schemas.actions import EmitEvent
from whenthen.schemas.base import MAX_MADE_DEPTH, is_deeper_than
from whenthen.schemas.errors import InvalidTemplate, RenderError
from whenthen.schemas.events import Event, is_reserved_name, new_event

__all__ = ["EmitEventHandler"]


@dataclass(frozen=True, slots=True)
class EmitEventHandler:
    """The event's id derives from the idempotency key: a repeated attempt is the same event.

    A rule may emit an event that is called like one of the engine's own when it says so in plain text (`flow-run.{{ x }}`) or
    continues the name of the event that fired it: authors of rules are trusted, other texts of events are not.
    """

    event: Field[str]
    says_reserved: bool  #: the rule itself begins the name with a reserved one
    resource: dict[str, Field[str]] | Field[dict[str, str]] | None
    related: tuple[dict[str, Field[str]], ...]
    payload: Field[Any]

    @classmethod
    def compile(cls, action: EmitEvent) -> EmitEventHandler:
        resource: dict[str, Field[str]] | Field[dict[str, str]] | None = None
        if isinstance(action.resource, str):
            resource = compile_labels_path(action.resource, "resource")
        elif action.resource is not None:
            resource = _resource(action.resource, "resource")
        related = tuple(_resource(labels, "related", index) for index, labels in enumerate(action.related))
        return cls(
            compile_text_field(action.event, "event"),
            is_reserved_name(action.event),
            resource,
            related,
            compile_value_field(action.payload, "payload"),
        )

    async def run(self, call: Call) -> ActionResult:
        event = self.event_of(call)
        await call.ports.events.publish(event)
        return ActionResult(
            details={"event": event.name, "id": event.id},
            related=({"id": f"whenthen.event.{event.id}", "role": "emitted-event", "name": event.name},),
        )

    def event_of(self, call: Call) -> Event:
        """The event that an attempt publishes. Touches no port.

        Raises:
            RenderError, InvalidEvent: it can not be made of the firing.
        """
        name = self.event.render(call)
        echoes = call.event is not None and name.startswith(call.event["event"])
        if is_reserved_name(name) and not self.says_reserved and not echoes:
            raise RenderError(
                f"{name[:80]!r} is the name of an event of the engine's own, and came from outside the rule",
                path=("event",),
            )
        payload = self.payload.render(call)
        if is_deeper_than(payload, MAX_MADE_DEPTH):
            raise RenderError(f"nested more than {MAX_MADE_DEPTH} deep; flatten it", path=("payload",))
        return new_event(
            name,
            resource=self._resource(call),
            related=[{label: field.render(call) for label, field in item.items()} for item in self.related],
            payload=payload,
            id=f"emitted-{call.key}",
            source=f"automation:{call.firing.automation}",
            lineage=lineage(call.firing),
            trace=call.trace,
            now=call.now,
        )

    def _resource(self, call: Call) -> dict[str, str]:
        if isinstance(self.resource, Field):
            return self.resource.render(call)
        if self.resource is not None:
            return {label: field.render(call) for label, field in self.resource.items()}
        if call.event is not None:
            return dict(call.event["resource"])
        name = call.firing.automation
        return {"id": automation_id(name), "name": name}


def _resource(labels: dict[str, str], *path: str | int) -> dict[str, Field[str]]:
    if "id" not in labels:
        raise InvalidTemplate("missing; every resource has an id", path=(*path, "id"))
    return compile_text_mapping(labels, *path)
