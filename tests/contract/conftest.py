"""The stores of flow runs, twice: in memory, and over a real nats-server from the wheel."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from flow_server import PATIENCE, connect, open_stores

from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.stores import Stores


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "nats"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        yield memory_stores(ack_wait=PATIENCE)
        return
    bus = await connect(request.getfixturevalue("shared_server"))
    yield await open_stores(bus)
    await bus.close()


@pytest.fixture
def unique() -> str:
    """A name that no other test uses: the tests share one server."""
    return "d." + uuid.uuid4().hex


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    async def wait(condition: Callable[[], Awaitable[object]], *, within_s: float = 30.0) -> None:
        until = time.monotonic() + limit(within_s)
        while not await condition():
            assert time.monotonic() < until, "the condition did not come true in time"
            await asyncio.sleep(0.02)

    return wait
