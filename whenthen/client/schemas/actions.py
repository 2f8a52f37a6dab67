"""Prefect's `client.schemas.actions`: schedules of deployments."""

from whenthen.flows.deploying.schedule_values import (
    DeploymentScheduleCreate,
)

__all__ = [
    "DeploymentScheduleCreate",
]
