"""Prefect's `client.orchestration`: runs and deployments of a server."""

from whenthen.flows.services.orchestration_client import (
    AsyncClient as PrefectClient,
    SyncClient as SyncPrefectClient,
    get_client,
)

__all__ = [
    "PrefectClient",
    "SyncPrefectClient",
    "get_client",
]
