"""Prefect's `events`: telling what happened, and starting deployments when it does."""

from whenthen.flows.deploying.deployment_triggers import (
    AnyTrigger as DeploymentTriggerTypes,
)
from whenthen.flows.deploying.deployment_triggers import (
    CompoundTrigger,
    DeploymentCompoundTrigger,
    DeploymentEventTrigger,
    DeploymentMetricTrigger,
    DeploymentSequenceTrigger,
    EventTrigger,
    MetricTrigger,
    MetricTriggerOperator,
    MetricTriggerQuery,
    Posture,
    SequenceTrigger,
)
from whenthen.flows.services.emitted_events import (
    Event,
    RelatedResource,
    Resource,
    emit_event,
)
from whenthen.flows.unsupported import names_of_events

__all__ = [
    "CompoundTrigger",
    "DeploymentCompoundTrigger",
    "DeploymentEventTrigger",
    "DeploymentMetricTrigger",
    "DeploymentSequenceTrigger",
    "DeploymentTriggerTypes",
    "Event",
    "EventTrigger",
    "MetricTrigger",
    "MetricTriggerOperator",
    "MetricTriggerQuery",
    "Posture",
    "RelatedResource",
    "Resource",
    "SequenceTrigger",
    "emit_event",
]

__getattr__ = names_of_events
