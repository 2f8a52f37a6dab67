"""A `Server` in the process of a test, and how it is asked."""

from __future__ import annotations

from typing import Any

import httpx

from whenthen.engine.process.server import Server

__all__ = ["RunningServer"]


class RunningServer:
    """A server of a test, by its HTTP address."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def get(self, path: str) -> Any:
        return (await self.client.get(path)).raise_for_status().json()

    async def metrics(self) -> str:
        return (await self.client.get("/metrics")).text

    def names(self) -> list[str]:
        """The automations in force."""
        return sorted(self.server.rule_registry.now.automations)
