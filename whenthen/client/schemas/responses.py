"""Prefect's `client.schemas.responses`: deployments as a server has them."""

from whenthen.flows.services.server_objects import (
    KnownDeployment as DeploymentResponse,
)

__all__ = [
    "DeploymentResponse",
]
