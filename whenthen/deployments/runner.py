"""Prefect's `deployments.runner`: a deployment as an object."""

from whenthen.flows.deploying.deployment_values import (
    RunnerDeployment,
)
from whenthen.flows.deploying.serving import (
    adeploy,
    deploy,
)

__all__ = [
    "RunnerDeployment",
    "adeploy",
    "deploy",
]
