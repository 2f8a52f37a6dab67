"""Prefect's `deployments.runner`: a deployment as an object."""

from whenthen.flows.deploying.deployment_values import (
    RunnerDeployment,
)
from whenthen.flows.deploying.given_deployments import (
    adeploy,
    deploy,
)

__all__ = [
    "RunnerDeployment",
    "adeploy",
    "deploy",
]
