"""Who reads a source that its broker does not share: one process at a time, and another soon after it died."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import SOURCES, StreamSettings, ensure_streams
from whenthen.engine.evaluation import NatsLeaseStore
from whenthen.engine.sources.source_lease import SourceLease

pytestmark = pytest.mark.anyio


class Reader:
    """A process that wants to read one source."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.reading = asyncio.Event()
        self.stopped = 0
        self._lease = SourceLease(NatsLeaseStore(bus, SOURCES), "lease.one", member=name)
        self.task = asyncio.create_task(self._lease.hold(self._work))

    async def _work(self) -> None:
        self.reading.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1
            self.reading.clear()

    async def reads(self, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            await self.reading.wait()


async def connected(server: NatsServer) -> Bus:
    bus = Bus(server.url)
    await bus.connect()
    return bus


async def test_one_reads_and_another_within_five_seconds_when_it_died(nats_server: NatsServer) -> None:
    one_bus, other_bus = await connected(nats_server), await connected(nats_server)
    await ensure_streams(one_bus.js, StreamSettings())
    one = Reader(one_bus, "one")
    await one.reads(limit(10))
    other = Reader(other_bus, "other")
    with pytest.raises(TimeoutError):
        await other.reads(4.0)
    await one_bus.close()  # as a process that died says nothing any more, and gives nothing back
    began = time.monotonic()
    await other.reads(limit(10))
    assert time.monotonic() - began < limit(5)
    other.task.cancel()
    await asyncio.wait({other.task})
    third = Reader(other_bus, "third")  # what is given back is taken at once
    began = time.monotonic()
    await third.reads(limit(5))
    assert time.monotonic() - began < limit(1)
    for reader in (one, third):
        reader.task.cancel()
    await asyncio.wait({one.task, third.task})
    assert not one.reading.is_set()
    await other_bus.close()


async def test_work_that_fails_gives_the_lease_back(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    await ensure_streams(bus.js, StreamSettings())

    async def fail() -> None:
        raise ValueError("as a folder that is not there")

    with pytest.raises(ValueError, match="not there"):
        await SourceLease(NatsLeaseStore(bus, SOURCES), "lease.one", member="one").hold(fail)
    other = Reader(bus, "other")
    await other.reads(limit(1))
    other.task.cancel()
    await asyncio.wait({other.task})
    await bus.close()
