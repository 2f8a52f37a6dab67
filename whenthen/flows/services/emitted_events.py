"""`emit_event`: an event of user code, checked and given to the reporter. As in Prefect, a wrong event ends no run: it is logged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from whenthen.flows.argument_kinds import checked_arguments
from whenthen.flows.clock import utc_now
from whenthen.flows.execution.reporter import REPORTER, SILENT
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.execution.run_records import new_id
from whenthen.flows.reporting.script_events import SCRIPT_EVENTS

__all__ = ["Event", "RelatedResource", "Resource", "emit_event"]

MAX_LABELS = 500  #: of one resource, and resources of one event
#: events further apart are not said to follow each other: they need no help to be put in order
TIGHT_TIMING = timedelta(minutes=5)


class Resource(dict[str, str]):
    """Labels of what an event is about. `id` and `prefect.resource.id` are one label, as are `name` and `role`."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__(labels)
        for key, value in self.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise ValueError(f"labels of a resource are texts; found {key!r:.60}: {value!r:.60}")
        if len(self) > MAX_LABELS:
            raise ValueError(f"a resource has {len(self)} labels; the most are {MAX_LABELS}")
        if not self.label("id"):
            raise ValueError('a resource needs the label "prefect.resource.id", or "id", that is not empty')

    def label(self, name: str) -> str | None:
        """`id`, `name` or `role`, however it is written."""
        return self.get(f"prefect.resource.{name}", self.get(name))

    @property
    def id(self) -> str:
        return self.label("id") or ""

    @property
    def name(self) -> str | None:
        return self.label("name")


class RelatedResource(Resource):
    """Labels of something that an event has to do with."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__(labels)
        if not self.label("role"):
            raise ValueError('a related resource needs the label "prefect.resource.role", or "role", that is not empty')

    @property
    def role(self) -> str:
        return self.label("role") or ""


class Event:
    """Something that happened."""

    __slots__ = ("event", "follows", "id", "occurred", "payload", "related", "resource")

    def __init__(
        self,
        *,
        event: str,
        resource: Mapping[str, str],
        occurred: datetime | None = None,
        related: Iterable[Mapping[str, str]] = (),
        payload: Mapping[str, Any] | None = None,
        id: UUID | None = None,
        follows: UUID | None = None,
    ) -> None:
        if not isinstance(event, str):
            raise ValueError(f"the name of an event is a text; found {event!r:.60}")
        self.event = event
        self.resource = Resource(resource)
        self.related = [one if isinstance(one, RelatedResource) else RelatedResource(one) for one in related]
        if len(self.related) > MAX_LABELS:
            raise ValueError(f"an event has {len(self.related)} related resources; the most are {MAX_LABELS}")
        if payload is not None and not isinstance(payload, Mapping):
            raise ValueError(f"the payload of an event is a mapping; found {payload!r:.60}")
        self.payload = dict(payload or {})
        if occurred is not None and occurred.tzinfo is None:
            occurred = occurred.replace(tzinfo=UTC)
        self.occurred = occurred or utc_now()
        self.id = id or new_id()
        self.follows = follows

    @property
    def involved_resources(self) -> list[Resource]:
        return [self.resource, *self.related]

    def find_resource_label(self, label: str) -> str | None:
        """A label of the resource; `related:<role>:<label>` is that of the first related resource of a role."""
        kind, _, rest = label.partition(":")
        role, _, name = rest.rpartition(":")
        if kind == "related" and role:
            return next((one.get(name) for one in self.related if one.role == role), None)
        return self.resource.get(label)

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The event as a mapping; with `mode="json"` ids and times are texts."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        shown |= {"resource": dict(self.resource), "related": [dict(one) for one in self.related]}
        if mode == "json":
            shown |= {"id": str(self.id), "occurred": self.occurred.isoformat()}
            shown["follows"] = None if self.follows is None else str(self.follows)
        return shown

    def __repr__(self) -> str:
        return f"Event(event={self.event!r}, resource={dict(self.resource)!r:.200}, id={str(self.id)!r})"


@checked_arguments()
def emit_event(
    event: str,
    resource: Mapping[str, str],
    occurred: datetime | None = None,
    related: Iterable[Mapping[str, str]] | None = None,
    payload: Mapping[str, Any] | Any = None,
    id: UUID | None = None,
    follows: Event | None = None,
) -> Event | None:
    """Tell that something happened: in a run of a worker its worker, in any other program the server at `WHENTHEN_URL`, if that is set. Never waits.

    In a coroutine it is called as it is, without `await`. `payload` may be a pydantic model.

    `follows` is kept where the two events lie less than 5 minutes apart. Gives the event; None, and a line in the log, when it is not valid.

    Raises:
        ArgumentError: there is no argument of that name; no event that is not valid raises.
    """
    try:
        if payload is not None and not isinstance(payload, Mapping) and hasattr(payload, "model_dump"):
            payload = payload.model_dump(mode="json")
        made = Event(event=event, resource=resource, occurred=occurred, related=related or (), payload=payload, id=id)
        if follows is not None and abs(made.occurred - follows.occurred) < TIGHT_TIMING:
            made.follows = follows.id
        reporter = REPORTER.get()
        if reporter is SILENT:
            SCRIPT_EVENTS.add(made)
        else:
            reporter.event(made)
    except Exception as error:
        engine_logger().error("event %r was not emitted: %s", event, error)
        return None
    return made
