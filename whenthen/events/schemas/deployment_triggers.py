"""Prefect's `events.schemas.deployment_triggers`."""

from whenthen.flows.deploying.deployment_triggers import (
    AnyTrigger as DeploymentTriggerTypes,
)
from whenthen.flows.deploying.deployment_triggers import (
    DeploymentCompoundTrigger,
    DeploymentEventTrigger,
    DeploymentMetricTrigger,
    DeploymentSequenceTrigger,
)

__all__ = [
    "DeploymentCompoundTrigger",
    "DeploymentEventTrigger",
    "DeploymentMetricTrigger",
    "DeploymentSequenceTrigger",
    "DeploymentTriggerTypes",
]
