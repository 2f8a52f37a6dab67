"""What the HTTP API needs from the rest of the process. The wiring implements it; tests have a fake.

Listings are JSON-like mappings, ready to be sent. Every method that names a thing raises `NotFound` when there is none,
and any may raise `BusUnavailable`, which is answered 503.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from whenthen.engine.bus import Ack
from whenthen.schemas import Event
from whenthen.sources import Request, Translation

__all__ = ["Api", "Json", "Page"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a listing: the newest `limit` that fit the filters, older than `before` when it is given."""

    limit: int = 50
    before: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)


class Api(Protocol):
    """Everything that a request can ask for."""

    # in

    async def publish(self, event: Event) -> Ack:
        """Store one event; returns once JetStream acknowledged it. Raises BusUnavailable, InvalidEvent (too large)."""

    def translate(self, webhook: str, request: Request) -> Translation:
        """Verify a request to a webhook and translate it. Raises NotFound, Refused (its `status`), UnsupportedMediaType, InvalidInput."""

    def hook_names(self) -> Collection[str]:
        """Names of the webhooks in force."""

    def cloudevents(self, data: Any) -> list[Json]:
        """One CloudEvent, or a batch, as events in their native form, to be checked like others. Raises InvalidInput."""

    # state of the process

    def ready(self) -> list[str]:
        """What is missing before requests can be served; empty when the process is ready."""

    def metrics(self) -> bytes:
        """Prometheus' text form."""

    async def status(self) -> Json:
        """What runs, on which rules, and the problems of a set that was refused."""

    async def reload_rules(self) -> Json:
        """Read the rules now: `{"taken": bool, "revision": ..., "problems": [...]}`."""

    # lists

    async def list_events(self, page: Page) -> list[Json]:
        """Stored events, newest first. Filters: event (a glob), source, resource."""

    async def get_event(self, event_id: str) -> Json: ...

    async def list_automations(self) -> list[Json]: ...

    async def get_automation(self, name: str) -> Json: ...

    async def list_decisions(self, automation: str, page: Page) -> list[Json]: ...

    async def list_firings(self, page: Page) -> list[Json]:
        """Filters: automation."""

    async def list_deployments(self) -> list[Json]: ...

    async def get_deployment(self, name: str) -> Json: ...

    async def list_runs(self, page: Page) -> list[Json]:
        """Filters: deployment, state, work_pool."""

    async def get_run(self, run_id: str) -> Json: ...

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> Json:
        """`{"lines": [...], "next": n, "done": bool}`."""

    async def list_actions(self, page: Page) -> list[Json]:
        """Filters: automation, type, outcome (`dead` for dead letters)."""

    # changes

    async def pause_automation(self, name: str) -> Json: ...

    async def resume_automation(self, name: str) -> Json: ...

    async def pause_deployment(self, name: str, schedule: str | None) -> Json: ...

    async def resume_deployment(self, name: str, schedule: str | None) -> Json: ...

    async def run_deployment(self, name: str, parameters: Json, *, key: str | None, delay_s: float) -> Json:
        """Start a run; two calls with one key give one run."""

    async def cancel_run(self, run_id: str) -> Json: ...

    async def redrive_action(self, key: str) -> Json:
        """Give a dead action new tries."""
