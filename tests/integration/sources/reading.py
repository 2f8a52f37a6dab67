"""A server in the process of a test that reads sources, and what came of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.process.roles import Role
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.errors import BusUnavailable

__all__ = ["Reading", "forget_what_is_stored", "reading"]


class Reading:
    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def events(self, name: str = "*") -> list[dict[str, Any]]:
        """The events of sources, oldest first."""
        answer = (await self.client.get("/api/events", params={"limit": 1000, "event": name})).raise_for_status().json()
        found = answer["items"] if isinstance(answer, dict) else answer
        return [event for event in reversed(found) if str(event.get("source", "")).startswith("source:")]

    async def names(self) -> list[str]:
        return [event["event"] for event in await self.events()]

    async def come(self, count: int, *, within_s: float = 30.0) -> list[dict[str, Any]]:
        """The events, once there are `count`."""

        async def there() -> bool:
            return len(await self.events()) >= count

        await until(there, within_s=within_s)
        return await self.events()

    async def source(self, name: str) -> dict[str, Any]:
        """What `/api/sources` says of a source."""
        found = (await self.client.get("/api/sources")).raise_for_status().json()
        return next(each for each in found if each["kind"] != "webhook" and each["name"] == name)

    async def becomes(self, name: str, state: str, *words: str, within_s: float = 60.0) -> dict[str, Any]:
        """The source, once it has this state, and its problems these words."""
        seen: dict[str, Any] = {}

        async def is_so() -> bool:
            seen.update(await self.source(name))
            problems = " ".join(seen["problems"])
            return seen["state"] == state and all(word in problems for word in words)

        await until(is_so, within_s=within_s, what=f"{state} {words}")
        return seen

    async def aside(self, count: int = 1) -> list[dict[str, Any]]:
        """The messages that are kept aside, newest first, once there are so many."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            found[:] = (await self.client.get("/api/sources/refused")).raise_for_status().json()
            return len(found) == count

        await until(there)
        return found

    async def resend(self, **asked: str) -> dict[str, Any]:
        answer = await self.client.post("/api/sources/resend", params=asked)
        report: dict[str, Any] = answer.raise_for_status().json()
        return report

    async def metric(self, line: str) -> float | None:
        text = (await self.client.get("/metrics")).text
        for each in text.splitlines():
            if each.startswith(line + " "):
                return float(each.rpartition(" ")[2])
        return None


@asynccontextmanager
async def reading(
    folder: Path, rules: str, *, roles: tuple[Role, ...] = tuple(Role), **settings: Any
) -> AsyncIterator[Reading]:
    """A server on these rules, ready, with its data in `folder`; what is there already is kept."""
    file = folder / "rules.yaml"
    file.write_text(rules)
    found = load_settings({"data_dir": folder / "data", "port": 0, **settings})
    async with (
        Server(found, file, roles=roles) as server,
        plain_async_client(base_url=server.address) as client,
    ):
        yield Reading(server, client)


def forget_what_is_stored(monkeypatch: pytest.MonkeyPatch, *, back: Callable[[], bool]) -> list[str]:
    """Let the bus be away for what sources remember until then; gives the parts that were not stored."""
    lost: list[str] = []
    save = SourceState.save

    async def save_or_not(state: SourceState, part: str, value: Any) -> None:
        if not back():
            lost.append(part)
            raise BusUnavailable("away for the test")
        await save(state, part, value)

    monkeypatch.setattr(SourceState, "save", save_or_not)
    return lost
