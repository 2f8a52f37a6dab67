"""Three servers, R3 streams: killing any one of them, leaders included, loses nothing, doubles nothing, stops nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nats.js.errors
import pytest

from tests.integration.conftest import NatsServer, eventually
from tests.integration.counting import CountingEvaluator
from tests.patience import limit
from tests.ports import free_ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import ENGINE, StreamSettings, check_server, ensure_streams
from whenthen.engine.evaluation.nats_log import nats_shard_loop
from whenthen.engine.execution.executor import ExecutionSettings, Executor
from whenthen.engine.rule_sets import Revision, RevisionHow, RevisionStore, RevisionTaken
from whenthen.rules import SourceFile
from whenthen.schemas.errors import BusUnavailable, SetupError
from whenthen.schemas.events import new_event
from whenthen.schemas.firings import ActionTask

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    routes = free_ports(3)
    urls = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    servers = [
        NatsServer(
            tmp_path / f"n{number}",
            extra=f"server_name: n{number}\ncluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{urls}] }}",
        )
        for number, port in enumerate(routes)
    ]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


async def prepared(bus: Bus) -> None:
    """The streams exist; a young cluster takes a while to elect its leader."""
    async with asyncio.timeout(limit(40)):
        while True:
            try:
                await check_server(bus.nc)
                await ensure_streams(bus.js, StreamSettings(replicas=3))
                return
            except (SetupError, nats.js.errors.Error, nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.2)


@pytest.mark.takes(27)
async def test_killing_each_server_in_turn_loses_nothing_and_doubles_nothing(cluster: list[NatsServer]) -> None:
    bus = Bus([server.url for server in cluster])
    await bus.connect()
    await prepared(bus)
    sent: Counter[str] = Counter()
    performed: Counter[str] = Counter()
    stop = False

    async def produce(key: str) -> None:
        while not stop:
            one = new_event("order.created", resource={"id": key}, now=datetime.now(UTC), source="test")
            while True:
                try:
                    await bus.publish(one)
                    break
                except BusUnavailable:
                    await asyncio.sleep(0.02)
            sent[key] += 1
            await asyncio.sleep(0.005)

    async def perform(task: ActionTask) -> None:
        performed[task.key] += 1

    loop = nats_shard_loop(bus, 0, CountingEvaluator())
    executor = Executor(bus, perform, settings=ExecutionSettings(ack_wait_s=3.0))
    running = [asyncio.create_task(loop.run()), asyncio.create_task(executor.run())]
    producers = [asyncio.create_task(produce(f"k{number}")) for number in range(4)]
    for server in cluster:
        before, acted = loop.committed, len(performed)
        await eventually(lambda before=before: loop.committed > before + 100)  # type: ignore[misc]
        server.kill()
        before, acted = loop.committed, len(performed)
        await eventually(lambda before=before: loop.committed > before + 50, within_s=30)  # type: ignore[misc]
        await eventually(lambda acted=acted: len(performed) > acted + 20, within_s=30)  # type: ignore[misc]
        server.start()
    stop = True
    await asyncio.gather(*producers)
    expected = {f"{key}-{n}.0" for key, count in sent.items() for n in range(3, count + 1, 3)}
    await eventually(lambda: set(performed) >= expected, within_s=30)
    loop.stop()
    executor.stop()
    await asyncio.wait_for(asyncio.gather(*running), limit(30))
    assert set(performed) == expected
    stored = (await bus.js.stream_info(ENGINE, subjects_filter="engine.firing.>")).state.subjects or {}
    assert {subject.split(".")[3] + ".0" for subject in stored} == expected
    await bus.close()


@pytest.mark.takes(15)
async def test_of_those_that_publish_rules_at_once_one_wins_while_texts_are_deleted(cluster: list[NatsServer]) -> None:
    """Each record is stored under the expectation of the last one of all, which a leader checks before the copies agree."""
    buses = [Bus(server.url) for server in cluster]
    for bus in buses:
        await bus.connect()
    await prepared(buses[0])
    stores = [RevisionStore(bus) for bus in buses]
    won: Counter[int] = Counter()
    done = False

    async def publish(name: str, store: RevisionStore) -> None:
        for turn in range(8):
            text = f"# {name} {turn}".encode()
            while True:
                revision = Revision(number=0, digest=f"{name}{turn}", who=name, host="h", how=RevisionHow.APPLY)
                try:
                    file = SourceFile(name="a.yaml", raw=text)
                    found = await store.publish(revision, [file], after=await store.current())
                    won[found.number] += 1
                    break
                except (RevisionTaken, BusUnavailable):
                    await asyncio.sleep(0.05)

    async def collect() -> None:
        while not done:
            try:
                await stores[2].collect_texts()
            except BusUnavailable:
                await asyncio.sleep(0.05)

    collecting = asyncio.create_task(collect())
    try:
        await asyncio.gather(publish("one", stores[0]), publish("two", stores[1]))
    finally:
        done = True
        await collecting
    assert set(won.values()) == {1}
    # one whose answer was lost was published all the same, and its publisher then published it again
    kept = await stores[0].revisions()
    assert [each.number for each in kept] == list(range(len(kept), 0, -1))
    assert won.keys() <= {each.number for each in kept}
    for each in kept:
        (file,) = await stores[0].files(each)
        assert file.raw.startswith(f"# {each.who} ".encode())
    for bus in buses:
        await bus.close()
