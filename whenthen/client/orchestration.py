"""Prefect's `client.orchestration`: runs and deployments of a server."""

from whenthen.flows.services.orchestration_client import (
    AsyncClient as PrefectClient,
)
from whenthen.flows.services.orchestration_client import (
    SyncClient as SyncPrefectClient,
)
from whenthen.flows.services.orchestration_client import (
    get_client,
)

__all__ = [
    "PrefectClient",
    "SyncPrefectClient",
    "get_client",
]
