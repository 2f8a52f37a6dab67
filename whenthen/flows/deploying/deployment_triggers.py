"""Triggers of deployments as data: the fields of Prefect's, checked when one is made. A server turns them into rules.

Labels stay as they are written: `prefect.resource.id` and `id` are the same label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

__all__ = [
    "AnyTrigger",
    "CompoundTrigger",
    "DeploymentCompoundTrigger",
    "DeploymentEventTrigger",
    "DeploymentMetricTrigger",
    "DeploymentSequenceTrigger",
    "EventTrigger",
    "MetricTrigger",
    "MetricTriggerOperator",
    "MetricTriggerQuery",
    "Posture",
    "SequenceTrigger",
    "read_triggers",
]

Labels = dict[str, str | list[str]]
SHORTEST_PROACTIVE = timedelta(seconds=10)
SHORTEST_RANGE = timedelta(minutes=5)


class Posture(StrEnum):
    Reactive = "Reactive"
    Proactive = "Proactive"
    Metric = "Metric"


class MetricTriggerOperator(Enum):
    LT = "<"
    LTE = "<="
    GT = ">"
    GTE = ">="


class _Trigger(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EventTrigger(_Trigger):
    """Fires on events, or on their absence (`Posture.Proactive`)."""

    type: Literal["event"] = "event"
    match: Labels = {}
    match_related: Labels | list[Labels] = {}
    after: set[str] = set()
    expect: set[str] = set()
    for_each: set[str] = set()
    posture: Posture = Posture.Reactive
    threshold: int = Field(default=1, ge=1)
    within: timedelta = Field(default=timedelta(0), ge=timedelta(0))

    @field_validator("posture")
    @classmethod
    def _not_metric(cls, value: Posture) -> Posture:
        if value is Posture.Metric:
            raise ValueError("posture Metric belongs to a metric trigger; an event trigger is Reactive or Proactive")
        return value

    @model_validator(mode="after")
    def _long_enough(self) -> EventTrigger:
        if self.posture is Posture.Proactive:
            if "within" not in self.model_fields_set or not self.within:
                self.within = SHORTEST_PROACTIVE
            elif self.within < SHORTEST_PROACTIVE:
                raise ValueError("within is at least 10 seconds for a Proactive trigger")
        return self


class MetricTriggerQuery(_Trigger):
    """When a metric lies above or below a threshold."""

    name: Literal["lateness", "duration", "successes"]
    threshold: float
    operator: MetricTriggerOperator
    range: timedelta = Field(default=SHORTEST_RANGE, ge=SHORTEST_RANGE)
    firing_for: timedelta = Field(default=SHORTEST_RANGE, ge=SHORTEST_RANGE)


class MetricTrigger(_Trigger):
    """Fires when a metric of runs crosses a threshold."""

    type: Literal["metric"] = "metric"
    match: Labels = {}
    match_related: Labels | list[Labels] = {}
    posture: Literal[Posture.Metric] = Posture.Metric
    metric: MetricTriggerQuery


class SequenceTrigger(_Trigger):
    """Fires when its triggers have fired in their order."""

    type: Literal["sequence"] = "sequence"
    triggers: list[EventTrigger | MetricTrigger | CompoundTrigger | SequenceTrigger] = Field(min_length=1)
    within: timedelta | None = Field(default=None, ge=timedelta(0))


class CompoundTrigger(_Trigger):
    """Fires when `require` of its triggers have fired."""

    type: Literal["compound"] = "compound"
    triggers: list[EventTrigger | MetricTrigger | CompoundTrigger | SequenceTrigger] = Field(min_length=1)
    within: timedelta | None = Field(default=None, ge=timedelta(0))
    require: int | Literal["any", "all"]

    @model_validator(mode="after")
    def _can_be_met(self) -> CompoundTrigger:
        if isinstance(self.require, int):
            if self.require < 1:
                raise ValueError("require must be at least 1")
            if self.require > len(self.triggers):
                raise ValueError("require must be less than or equal to the number of triggers")
        return self


class _OfDeployment(_Trigger):
    """What a trigger of a deployment has besides."""

    name: str | None = None
    description: str = ""
    enabled: bool = True
    parameters: dict[str, Any] | None = None
    job_variables: dict[str, Any] | None = None
    schedule_after: timedelta = Field(default=timedelta(0), ge=timedelta(0))


class DeploymentEventTrigger(_OfDeployment, EventTrigger):
    """Runs a deployment on events."""


class DeploymentMetricTrigger(_OfDeployment, MetricTrigger):
    """Runs a deployment on a metric."""


class DeploymentSequenceTrigger(_OfDeployment, SequenceTrigger):
    """Runs a deployment when triggers have fired in their order."""


class DeploymentCompoundTrigger(_OfDeployment, CompoundTrigger):
    """Runs a deployment when some or all of its triggers have fired."""


AnyTrigger = DeploymentEventTrigger | DeploymentCompoundTrigger | DeploymentSequenceTrigger | DeploymentMetricTrigger


EVERY: TypeAdapter[AnyTrigger] = TypeAdapter(AnyTrigger)
READERS: dict[str, TypeAdapter[Any]] = {
    "event": TypeAdapter(DeploymentEventTrigger),
    "compound": TypeAdapter(DeploymentCompoundTrigger),
    "sequence": TypeAdapter(DeploymentSequenceTrigger),
    "metric": TypeAdapter(DeploymentMetricTrigger),
}


def read_triggers(given: Iterable[Any], deployment: str) -> list[AnyTrigger]:
    """Triggers of a deployment, from objects or mappings. Those without a name get one.

    Raises:
        ValueError: one can not be understood.
    """
    found: list[AnyTrigger] = []
    for number, one in enumerate(given, 1):
        if isinstance(one, AnyTrigger):
            trigger: AnyTrigger = one.model_copy()
        else:
            value = _fields_of(one)
            reader = READERS.get(str(value.get("type", "event"))) if isinstance(value, Mapping) else None
            trigger = (reader or EVERY).validate_python(value)  # the one for all says what is wrong with it
        trigger.name = trigger.name or f"{deployment}__automation_{number}"
        found.append(trigger)
    return found


def _fields_of(value: Any) -> Any:
    """A trigger without a deployment as a mapping; anything else as it is."""
    if isinstance(value, EventTrigger | MetricTrigger | SequenceTrigger | CompoundTrigger):
        return value.model_dump(exclude_unset=True) | {"type": value.type}
    return value
