"""One attempt of one action: what it is about, what its templates see, and what comes out of it.

`perform` builds a `Call` for each attempt and gives it to the action's compiled `Handler`, which `deployment_actions`,
`flow_runs.flow_run_actions`, `automation_actions`, `send_notification`, `emit_event` and `http.call_webhook` provide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from whenthen.actions.flow_runs.fetched_variables import FETCHED
from whenthen.actions.http.try_records import TryRecord
from whenthen.actions.page_addresses import URL_OF, url_of
from whenthen.actions.ports import Ports
from whenthen.schemas.firings import ActionTask, Firing
from whenthen.schemas.trace_context import child_trace

__all__ = [
    "EVENT_FIELDS",
    "VARIABLES",
    "ActionResult",
    "Call",
    "Handler",
    "action_trace",
    "automation_id",
    "lineage",
    "links",
    "variables_of",
]

#: the variables of every template of an action; JSONPath sees them too, beside the fields of the event
VARIABLES = frozenset({"event", "events", "firing", "automation", "key"}) | FETCHED
#: the fields of an event's wire form; `$.event` is its name, as `$` is the event
EVENT_FIELDS = frozenset(
    ("id", "event", "occurred", "received", "source", "resource", "related", "payload", "follows", "lineage", "trace")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What a successful attempt did."""

    details: dict[str, Any] = field(default_factory=dict)  #: for people and rules: `status`, `flow_run`, ...
    related: tuple[dict[str, str], ...] = ()  #: the resources that it touched, with their roles
    sent: Mapping[str, Any] | None = None  #: what was sent and what came back, as `TryRecord.shown`


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt of one action."""

    task: ActionTask
    firing: Firing
    event: dict[str, Any] | None  #: the triggering event; None when time fired
    events: list[dict[str, Any]]  #: all contributing events, oldest first
    ports: Ports
    now: datetime
    fetched: Mapping[str, Any] = field(default_factory=dict)  #: those of `FETCHED` that the action's templates name
    record: TryRecord = field(default_factory=TryRecord)  #: what the attempt sends and receives, for people

    @property
    def key(self) -> str:
        """The idempotency key."""
        return key_of(self.task)

    @property
    def trace(self) -> dict[str, str]:
        """The trace that the action sends on; its parent is the action."""
        return action_trace(self.task)

    @property
    def context(self) -> dict[str, Any]:
        """What Jinja sees."""
        variables = variables_of(self.firing, self.events, lambda: self.ports.public_url)
        return {"event": self.event, **variables, **self.fetched}

    @property
    def root(self) -> dict[str, Any]:
        """What JSONPath sees as `$`: the fields of the event, and the variables beside them."""
        context = self.context
        event = context.pop("event")
        del context[URL_OF]
        return {**(event or {}), **context}


class Handler(Protocol):
    """A compiled action: everything that can be decided when a rule is loaded is decided."""

    async def run(self, call: Call) -> ActionResult:
        """Do it once.

        Raises:
            ActionError: it did not work; says whether another attempt may.
            RenderError: a value is missing or wrong for this event.
            NotFound, Conflict, BusUnavailable, InvalidEvent: from the ports.
        """


def key_of(task: ActionTask) -> str:
    """The idempotency key of a task; one that was redriven under a new one has it beside its own."""
    return str(task.extra.get("key") or task.key)


def action_trace(task: ActionTask) -> dict[str, str]:
    """The trace of the firing with the action as parent: each attempt of it, and whatever it causes, is below the same one."""
    return child_trace(task.firing.current_trace, key_of(task))


def describe_firing(firing: Firing) -> dict[str, Any]:
    """The `firing` variable."""
    return {
        "id": firing.id,
        "automation": firing.automation,
        "state": str(firing.state),
        "at": firing.at,
        "key": firing.key,
        "total": firing.total,
        "depth": firing.depth,
        "automations": list(firing.automations),
        "trace": firing.current_trace,
    }


def variables_of(firing: Firing, events: list[dict[str, Any]], public_url: Callable[[], str | None]) -> dict[str, Any]:
    """Every variable but `event`; `public_url` says where the pages are, once that is needed."""
    return {
        "events": events,
        "firing": describe_firing(firing),
        "automation": firing.automation,
        "key": firing.key,
        URL_OF: lambda thing: url_of(public_url(), thing),
    }


def automation_id(name: str) -> str:
    """The resource id of an automation."""
    return f"whenthen.automation.{name}"


def lineage(firing: Firing) -> dict[str, Any]:
    """What marks an event or a run as caused by `firing`, so that loops end."""
    return {"depth": firing.depth, "firing": firing.id, "automations": list(firing.automations)}


def links(firing: Firing, event: dict[str, Any] | None) -> list[dict[str, str]]:
    """Related resources that lead back: to the firing and to the event that set it off."""
    found = [{"id": f"whenthen.firing.{firing.id}", "role": "firing"}]
    if event is not None:
        found.append({"id": f"whenthen.event.{event['id']}", "role": "triggering-event", "name": event["event"]})
    return found
