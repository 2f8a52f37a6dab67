"""In-memory ports, and what a test needs to perform one action."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from whenthen.actions import (
    ActionResult,
    compile_action,
    open_http_client,
    perform,
    read_action,
)
from whenthen.actions.ports import (
    Automations,
    EventSink,
    Notifiers,
    Orchestrator,
    Ports,
)
from whenthen.actions.secrets import Redactor, Secrets
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.errors import NotFound
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing, FiringState

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
EVENT: dict[str, Any] = {
    "id": "e-1",
    "event": "s3.file.uploaded",
    "occurred": "2026-01-31T07:59:59.000000Z",
    "received": "2026-01-31T08:00:00.000000Z",
    "source": "webhook:s3",
    "resource": {"id": "s3://raw/incoming/a.csv", "bucket": "raw", "key": "incoming/a.csv"},
    "related": [],
    "payload": {"size": 1024, "ratio": 0.5, "fresh": True, "nothing": None, "tags": ["a", "b"], "to": "example.org"},
    "follows": None,
}
RUN_EVENT: dict[str, Any] = {
    **EVENT,
    "id": "e-2",
    "event": "flow-run.Failed",
    "resource": {"id": "whenthen.flow-run.r-17", "name": "loader", "deployment": "loader", "state": "Failed"},
    "related": [
        {"id": "whenthen.deployment.loader", "role": "deployment", "name": "loader"},
        {"id": "whenthen.work-pool.default", "role": "work-pool"},
    ],
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class FakeOrchestrator:
    deployments: set[str] = field(default_factory=lambda: {"loader"})
    runs: dict[str, FlowRun] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    failure: Exception | None = None

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
    ) -> FlowRun:
        self._known(name)
        self.calls.append(("run", name, delay))
        if key not in self.runs:
            self.runs[key] = FlowRun(
                id=f"run-{len(self.runs) + 1}",
                deployment=name,
                work_pool="default",
                state=RunState.SCHEDULED,
                parameters=parameters,
                key=key,
                created="",
                scheduled_for="",
                changed="",
                lineage=lineage,
                trace=trace,
                related=tuple(related),
                triggered_by=triggered_by,
            )
        return self.runs[key]

    async def pause_deployment(self, name: str) -> None:
        self._known(name)
        self.calls.append(("pause", name))

    async def resume_deployment(self, name: str) -> None:
        self._known(name)
        self.calls.append(("resume", name))

    async def pause_schedule(self, deployment: str, schedule: str) -> None:
        self._known(deployment)
        self.calls.append(("pause", deployment, schedule))

    async def resume_schedule(self, deployment: str, schedule: str) -> None:
        self._known(deployment)
        self.calls.append(("resume", deployment, schedule))

    async def pause_work_pool(self, name: str) -> None:
        self.calls.append(("pause-pool", name))

    async def resume_work_pool(self, name: str) -> None:
        self.calls.append(("resume-pool", name))

    async def retry_flow_run(self, run_id: str, *, key: str, triggered_by: str) -> FlowRun:
        self.calls.append(("retry", run_id, key, triggered_by))
        return await self.run_deployment(
            "loader", {}, key=key, delay=timedelta(0), lineage={}, trace={}, related=[], triggered_by=triggered_by
        )

    async def cancel_flow_run(self, run_id: str) -> None:
        self.calls.append(("cancel", run_id))

    async def suspend_flow_run(self, run_id: str, *, timeout_s: float | None, by: str) -> FlowRun:
        self.calls.append(("suspend", run_id, timeout_s, by))
        return self._run(run_id, RunState.SUSPENDED)

    async def resume_flow_run(self, run_id: str, given: Any, *, key: str, by: str) -> FlowRun:
        self.calls.append(("resume-run", run_id, given, key, by))
        return self._run(run_id, RunState.RUNNING)

    async def change_flow_run_state(self, run_id: str, state: str, *, message: str, by: str) -> None:
        self.calls.append(("state", run_id, state, message, by))

    async def delete_flow_run(self, run_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.calls.append(("delete", run_id))

    async def describe_flow_run(self, run_id: str, *, log_tail: int) -> dict[str, Any]:
        self.calls.append(("describe-run", run_id, log_tail))
        tail = {"log_tail": "first\nlast"} if log_tail else {}
        return {"id": run_id, "name": f"loader-{run_id}", "state": "Failed", "parameters": {"n": 1}, **tail}

    async def describe_deployment(self, name: str) -> dict[str, Any]:
        self._known(name)
        return {"name": name, "tags": ["nightly"], "description": "Loads."}

    async def describe_work_pool(self, name: str) -> dict[str, Any]:
        return {"name": name, "limit": 3, "paused": True}

    def _run(self, run_id: str, state: RunState) -> FlowRun:
        return FlowRun(
            id=run_id,
            deployment="loader",
            work_pool="default",
            state=state,
            parameters={},
            key=run_id,
            created="",
            scheduled_for="",
            changed="",
        )

    def _known(self, name: str) -> None:
        if self.failure is not None:
            raise self.failure
        if name not in self.deployments:
            raise NotFound(f"no deployment {name!r}")


@dataclass
class FakeEventSink:
    events: list[Event] = field(default_factory=list)

    async def publish(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class FakeAutomations:
    paused: set[str] = field(default_factory=set)
    said: dict[str, tuple[datetime | None, str, str]] = field(default_factory=dict)

    async def pause(self, name: str, *, until: datetime | None = None, reason: str = "", by: str = "") -> None:
        self.paused.add(name)
        self.said[name] = (until, reason, by)

    async def resume(self, name: str) -> None:
        self.paused.discard(name)


@dataclass
class FakeNotifiers:
    known: dict[str, list[str]] = field(default_factory=dict)

    def urls(self, name: str) -> Sequence[str]:
        if name not in self.known:
            raise NotFound(f"no notifier {name!r}")
        return self.known[name]


@dataclass
class World:
    """Everything around an action, and `perform` for one try of one."""

    ports: Ports
    orchestrator: FakeOrchestrator
    sink: FakeEventSink
    automations: FakeAutomations
    notifiers: FakeNotifiers
    environ: dict[str, str]

    async def perform(
        self,
        action: dict[str, Any],
        *,
        event: dict[str, Any] | None = EVENT,
        events: list[dict[str, Any]] | None = None,
        ports: Ports | None = None,
    ) -> ActionResult:
        task = new_task(action, event)
        return await perform(
            task,
            compile_action(read_action(action)),
            firing=task.firing,
            event=event,
            events=events if events is not None else [event] if event else [],
            ports=ports or self.ports,
            now=NOW,
        )


def new_task(action: dict[str, Any], event: dict[str, Any] | None = EVENT, *, attempt: int = 1) -> ActionTask:
    firing = Firing(
        id="f-1",
        automation="load-new-csv",
        state=FiringState.TRIGGERED,
        at="2026-01-31T08:00:00.000000Z",
        key={"bucket": "raw"},
        event=event,
        depth=2,
        automations=("first", "load-new-csv"),
        trace=None if event is None else event.get("trace"),
    )
    return ActionTask(key="f-1.0", index=0, firing=firing, action=action, attempt=attempt)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    orchestrator: Orchestrator = FakeOrchestrator()
    sink: EventSink = FakeEventSink()
    automations: Automations = FakeAutomations()
    notifiers: Notifiers = FakeNotifiers()
    environ: dict[str, str] = {}
    redactor = Redactor()
    async with open_http_client() as pool:
        ports = Ports(
            orchestrator=orchestrator,
            events=sink,
            automations=automations,
            notifiers=notifiers,
            resolve_secret=Secrets(redactor, environ).resolve,
            redactor=redactor,
            http=pool,
        )
        yield World(ports, orchestrator, sink, automations, notifiers, environ)  # type: ignore[arg-type]


@pytest.fixture
def task() -> Callable[..., ActionTask]:
    return new_task


@pytest.fixture
def run_event() -> dict[str, Any]:
    return copy.deepcopy(RUN_EVENT)


@pytest.fixture
def now() -> datetime:
    return NOW
