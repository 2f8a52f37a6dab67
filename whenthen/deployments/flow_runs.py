"""Prefect's `deployments.flow_runs`."""

from whenthen.flows.services.other_runs import (
    arun_deployment,
    run_deployment,
)

__all__ = [
    "arun_deployment",
    "run_deployment",
]
