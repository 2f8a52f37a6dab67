"""What actions need from the rest of the process, as protocols. `engine/process` supplies the implementations.

An implementation raises the errors named here and no others on purpose; `perform` turns each into the outcome of the
attempt. `key` is the action's idempotency key: a second call with the same key changes nothing and answers like the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from whenthen.actions.http.outgoing import HttpClient
from whenthen.actions.secrets import Redactor
from whenthen.schemas.events import Event

__all__ = ["Automations", "EventSink", "Notifiers", "Orchestrator", "Ports", "ResolveSecret", "RunRef"]


class RunRef(Protocol):
    """A run, as its orchestrator refers to it."""

    @property
    def id(self) -> str: ...

    @property
    def deployment(self) -> str: ...

    @property
    def state(self) -> str:
        """The orchestrator's own word for it."""

    @property
    def link(self) -> str:
        """Where people see the run: an address, or a path below that of our pages."""


class Orchestrator(Protocol):
    """What runs deployments: the built-in one, or another server behind the same face.

    Every method raises `NotFound` when the named thing does not exist (not tried again) and `Conflict` when another
    writer was faster (tried again). Asking for what already holds is no error: pausing what is paused, cancelling what
    is cancelled or is being cancelled.
    """

    async def run_deployment(
        self,
        name: str,
        parameters: dict[str, Any],
        *,
        key: str,
        delay: timedelta,
        lineage: dict[str, Any],
        trace: dict[str, str],
        related: Sequence[dict[str, str]],
        triggered_by: str,
    ) -> RunRef:
        """Create a run that is due `delay` from now, or return the run that `key` created before.

        `lineage`, `trace` and `related` go onto the run and onto every event about it.
        """

    async def pause_deployment(self, name: str) -> None:
        """Pause all schedules of the deployment."""

    async def resume_deployment(self, name: str) -> None:
        """Resume all schedules of the deployment."""

    async def pause_schedule(self, deployment: str, schedule: str) -> None:
        """Pause one schedule."""

    async def resume_schedule(self, deployment: str, schedule: str) -> None:
        """Resume one schedule."""

    async def pause_work_pool(self, name: str) -> None:
        """Start no more runs of the pool."""

    async def resume_work_pool(self, name: str) -> None:
        """Start the runs that wait in the pool."""

    async def retry_flow_run(self, run_id: str, *, key: str, triggered_by: str) -> RunRef:
        """Start a new run like one that has ended, or return the run that `key` created before. Raises `Conflict`: it has not ended."""

    async def cancel_flow_run(self, run_id: str) -> None:
        """Ask for the run to end. A run that ended by itself in the meantime stays as it is."""

    async def suspend_flow_run(self, run_id: str, *, timeout_s: float | None, by: str) -> RunRef:
        """Halt the run until it is resumed; after `timeout_s` it fails. Raises `Conflict`: it has ended."""

    async def resume_flow_run(self, run_id: str, given: Any, *, key: str, by: str) -> RunRef:
        """Let a halted run go on, with the input `given`. Raises `Conflict`: it is not halted, unless `key` resumed it before;
        `InvalidInput`: the input does not fit."""

    async def change_flow_run_state(self, run_id: str, state: str, *, message: str, by: str) -> None:
        """Put the run into a state. Raises `Conflict`: there is no way from the one that it is in."""

    async def describe_flow_run(self, run_id: str, *, log_tail: int) -> dict[str, Any]:
        """The run as the API has it, with its `name`; with `log_tail` the text of so many of the last lines of its log under that name."""

    async def describe_deployment(self, name: str) -> dict[str, Any]:
        """The deployment as the rules have it."""

    async def describe_work_pool(self, name: str) -> dict[str, Any]:
        """The work pool as the rules have it, and whether it is paused."""

    async def delete_flow_run(self, run_id: str) -> object:
        """Forget a run that has ended. Raises `Conflict`: it has not."""


class EventSink(Protocol):
    """Where emitted events go."""

    async def publish(self, event: Event) -> object:
        """Return once the stream acknowledged `event`. Raises `BusUnavailable`."""


class Automations(Protocol):
    """The runtime flags of automations."""

    async def pause(self, name: str, *, until: datetime | None = None, reason: str = "", by: str = "") -> None:
        """From now on the automation does not fire, before `until` if that is given. What was said of an earlier pause is replaced.
        Raises `NotFound`."""

    async def resume(self, name: str) -> None:
        """The automation fires again. Raises `NotFound`."""


class Notifiers(Protocol):
    """The `notifiers` of the rules."""

    def urls(self, name: str) -> Sequence[str]:
        """Apprise URLs, or references to them, as the rules have them. Raises `NotFound`."""


class ResolveSecret(Protocol):
    """References to their values; see `secrets.Secrets`."""

    def __call__(self, reference: str, *, public: bool = False) -> str:
        """The value now. The redactor learns it unless it is `public`. Raises `NotFound`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything outside that an action may touch."""

    orchestrator: Orchestrator
    events: EventSink
    automations: Automations
    notifiers: Notifiers
    resolve_secret: ResolveSecret
    redactor: Redactor  #: knows every value that `resolve_secret` gave
    http: HttpClient  #: see `outgoing.open_http_client`; shared by all calls
    public_url: str | None = None  #: where the pages are, for `url_of`
