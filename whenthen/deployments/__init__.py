"""Prefect's `deployments`: runs of deployments, and giving deployments to a server."""

from whenthen.flows.deploying.given_deployments import (
    deploy,
)
from whenthen.flows.services.other_runs import (
    arun_deployment,
    run_deployment,
)
from whenthen.flows.unsupported import names_of_deployments

__all__ = [
    "arun_deployment",
    "deploy",
    "run_deployment",
]

__getattr__ = names_of_deployments
