"""Prefect's filters of runs and deployments, as far as a server here can be asked: which runs and deployments `get_client` reads.

A filter becomes what the server is asked for, where it can, and a test of what it gives. A field that is not here raises by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from whenthen.flows.services.server_objects import KnownDeployment, KnownFlowRun
from whenthen.flows.states.state import StateType
from whenthen.flows.unsupported import not_supported

__all__ = [
    "DeploymentFilter",
    "DeploymentFilterId",
    "DeploymentFilterName",
    "DeploymentFilterTags",
    "FlowRunFilter",
    "FlowRunFilterDeploymentId",
    "FlowRunFilterExpectedStartTime",
    "FlowRunFilterId",
    "FlowRunFilterStartTime",
    "FlowRunFilterState",
    "FlowRunFilterStateName",
    "FlowRunFilterStateType",
    "FlowRunFilterTags",
    "asked_of",
    "deployment_fits",
    "run_fits",
]

FILTERS = "get_client(): filters"


class _Strict:
    """A filter whose fields are given by name; one that is not here is refused by name."""

    def __new__(cls, *args: Any, **given: Any) -> Any:
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]  # each is a dataclass
        for name in given:
            if name not in known:
                not_supported(FILTERS, f"{cls.__name__}({name}=...); it has {', '.join(known)}")
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class _Among(_Strict):
    any_: list[Any] | None = None
    not_any_: list[Any] | None = None

    def admits(self, value: Any) -> bool:
        """Whether the value is one of those that are asked for."""
        texts = [None if found is None else {_text(one) for one in found} for found in (self.any_, self.not_any_)]
        return (texts[0] is None or _text(value) in texts[0]) and (texts[1] is None or _text(value) not in texts[1])


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterId(_Among):
    """By the ids of runs."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterDeploymentId(_Among):
    """By the names of their deployments."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterStateName(_Among):
    """By the names of their states, such as Completed or TimedOut."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterStateType(_Among):
    """By the types of their states."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterState(_Strict):
    """By their states."""

    name: FlowRunFilterStateName | None = None
    type: FlowRunFilterStateType | None = None


@dataclass(frozen=True, kw_only=True)
class _Tags(_Strict):
    all_: list[str] | None = None
    any_: list[str] | None = None

    def admits(self, tags: list[str]) -> bool:
        """Whether the tags are those that are asked for."""
        return (self.all_ is None or set(self.all_) <= set(tags)) and (
            self.any_ is None or not set(self.any_).isdisjoint(tags)
        )


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterTags(_Tags):
    """By their tags."""


@dataclass(frozen=True, kw_only=True)
class DeploymentFilterTags(_Tags):
    """By their tags."""


@dataclass(frozen=True, kw_only=True)
class _Times(_Strict):
    before_: datetime | None = None
    after_: datetime | None = None

    def admits(self, at: datetime | None) -> bool:
        """Whether there is a time, and it lies between those that are asked for."""
        if at is None:
            return self.before_ is None and self.after_ is None
        return (self.before_ is None or at <= self.before_) and (self.after_ is None or at >= self.after_)


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterStartTime(_Times):
    """By when they started."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilterExpectedStartTime(_Times):
    """By when they were to start."""


@dataclass(frozen=True, kw_only=True)
class FlowRunFilter(_Strict):
    """Which runs are asked for."""

    id: FlowRunFilterId | None = None
    deployment_id: FlowRunFilterDeploymentId | None = None
    state: FlowRunFilterState | None = None
    tags: FlowRunFilterTags | None = None
    start_time: FlowRunFilterStartTime | None = None
    expected_start_time: FlowRunFilterExpectedStartTime | None = None

    def admits(self, run: KnownFlowRun) -> bool:
        """Whether the run is one of those that are asked for."""
        state = self.state or FlowRunFilterState()
        tests: list[tuple[Any, Any]] = [
            (self.id, run.id),
            (self.deployment_id, run.deployment_id),
            (state.name, run.state_name),
            (state.type, run.state_type),
            (self.tags, run.tags),
            (self.start_time, run.start_time),
            (self.expected_start_time, run.expected_start_time),
        ]
        return all(one is None or one.admits(value) for one, value in tests)


@dataclass(frozen=True, kw_only=True)
class DeploymentFilterId(_Among):
    """By their names, which are their ids."""


@dataclass(frozen=True, kw_only=True)
class DeploymentFilterName(_Among):
    """By their names."""

    like_: str | None = None

    def admits(self, value: Any) -> bool:
        part = (self.like_ or "").strip("%").lower()
        return part in str(value).lower() and super().admits(value)


@dataclass(frozen=True, kw_only=True)
class DeploymentFilter(_Strict):
    """Which deployments are asked for, or those of which runs."""

    id: DeploymentFilterId | None = None
    name: DeploymentFilterName | None = None
    tags: DeploymentFilterTags | None = None

    def admits(self, deployment: KnownDeployment) -> bool:
        """Whether the deployment is one of those that are asked for."""
        return self.admits_name(deployment.name) and (self.tags is None or self.tags.admits(deployment.tags))

    def admits_name(self, name: str) -> bool:
        """Whether it may be of this name."""
        return all(one is None or one.admits(name) for one in (self.id, self.name))


def asked_of(run: FlowRunFilter | None, deployment: DeploymentFilter | None) -> dict[str, str]:
    """What a server is asked for, so that it does not give all runs: one deployment, one state."""
    found = {}
    named = (None if run is None else run.deployment_id, *((deployment.id, deployment.name) if deployment else ()))
    for one in named:
        if one is not None and one.any_ is not None and len(one.any_) == 1:
            found["deployment"] = _text(one.any_[0])
    names = run.state.name if run is not None and run.state is not None else None
    if names is not None and names.any_ is not None and len(names.any_) == 1:
        found["state"] = _text(names.any_[0])
    return found


def run_fits(run: FlowRunFilter | None, deployment: DeploymentFilter | None) -> Callable[[KnownFlowRun], bool]:
    """Whether a run is one of those that are asked for."""
    if deployment is not None and deployment.tags is not None:
        not_supported(
            FILTERS, "deployment_filter=DeploymentFilter(tags=...) of runs; runs have the tags of their deployment"
        )

    def fits(one: KnownFlowRun) -> bool:
        return (run is None or run.admits(one)) and (deployment is None or deployment.admits_name(one.deployment_id))

    return fits


def deployment_fits(wanted: DeploymentFilter | None) -> Callable[[KnownDeployment], bool]:
    """Whether a deployment is one of those that are asked for."""
    return lambda one: wanted is None or wanted.admits(one)


def _text(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    return value.value if isinstance(value, StateType) else str(value)
