"""What `get_client` gives: runs and deployments as the server has them, with the attributes of Prefect's."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from whenthen.flows.clock import utc_now
from whenthen.flows.states.state import State, StateDetails, StateType

__all__ = ["KnownDeployment", "KnownFlowRun", "deployment_of", "flow_run_of"]

#: states of runs at the server, and the type of each
TYPES = {
    "Scheduled": StateType.SCHEDULED,
    "Late": StateType.SCHEDULED,
    "Pending": StateType.PENDING,
    "Running": StateType.RUNNING,
    "Retrying": StateType.SCHEDULED,
    "Paused": StateType.PAUSED,
    "Suspended": StateType.PAUSED,
    "Cancelling": StateType.CANCELLING,
    "Cancelled": StateType.CANCELLED,
    "Completed": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "Crashed": StateType.CRASHED,
    "TimedOut": StateType.FAILED,
}


@dataclass(frozen=True, kw_only=True)
class KnownFlowRun:
    """A run as the server has it. `FlowRun` in Prefect's client."""

    id: UUID
    name: str  #: of its deployment and id: runs of the server have no name of their own
    deployment_id: str  #: the deployment's name, which is its id
    state: State[Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    work_pool_name: str | None = None
    idempotency_key: str | None = None
    run_count: int = 0
    created: datetime | None = None
    expected_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def state_type(self) -> StateType:
        return self.state.type

    @property
    def state_name(self) -> str:
        return self.state.name

    @property
    def total_run_time(self) -> timedelta:
        if self.start_time is None:
            return timedelta()
        return max(timedelta(), (self.end_time or utc_now()) - self.start_time)


@dataclass(frozen=True, kw_only=True)
class KnownDeployment:
    """A deployment as the server has it. `DeploymentResponse` in Prefect's client."""

    id: str  #: the name, which is unique
    name: str
    description: str = ""
    entrypoint: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    work_pool_name: str | None = None
    concurrency_limit: int | None = None
    paused: bool = False  #: whether it has schedules, and all are paused
    schedules: list[dict[str, Any]] = field(default_factory=list)  #: as the server tells of them


def flow_run_of(item: dict[str, Any]) -> KnownFlowRun:
    """A run from an item of `/api/runs`."""
    run_id = UUID(hex=item["id"])
    name = str(item["state"])
    kind = TYPES.get(name, StateType.RUNNING)
    details = StateDetails(flow_run_id=run_id, scheduled_time=_time(item.get("scheduled_for")))
    given: dict[str, Any] = {"data": item.get("result")} if kind is StateType.COMPLETED else {}
    state: State[Any] = State(
        kind,
        name,
        message=item.get("message") or None,
        state_details=details,
        timestamp=_time(item.get("changed")),
        **given,
    )
    return KnownFlowRun(
        id=run_id,
        name=f"{item['deployment']}-{item['id'][:8]}",
        deployment_id=item["deployment"],
        state=state,
        parameters=item.get("parameters") or {},
        tags=list(item.get("tags") or []),
        work_pool_name=item.get("work_pool"),
        idempotency_key=item.get("key"),
        run_count=item.get("attempt") or 0,
        created=_time(item.get("created")),
        expected_start_time=_time(item.get("scheduled_for")),
        start_time=_time(item.get("started")),
        end_time=_time(item.get("ended")),
    )


def deployment_of(item: dict[str, Any]) -> KnownDeployment:
    """A deployment from an item of `/api/deployments`."""
    schedules = list(item.get("schedules") or [])
    return KnownDeployment(
        id=item["name"],
        name=item["name"],
        description=item.get("description") or "",
        entrypoint=item.get("entrypoint") or None,
        parameters=item.get("parameters") or {},
        tags=list(item.get("tags") or []),
        work_pool_name=item.get("work_pool"),
        concurrency_limit=item.get("concurrency_limit") or None,
        paused=bool(schedules) and all(one.get("paused") for one in schedules),
        schedules=schedules,
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
