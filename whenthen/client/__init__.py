"""Prefect's `client`: runs and deployments of a server."""

from whenthen.flows.services.orchestration_client import (
    get_client,
)

__all__ = [
    "get_client",
]
