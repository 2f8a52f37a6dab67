"""A broker that goes while a source connects to it, logs in, asks or reads: the source is in trouble and says why, and nothing is left behind.

Each broker is a real one, behind a proxy that ends the connections after so many bytes of answers: at each place of a start at which the
broker has sent something, and in the middle of it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.sources.aws import REGION, cloud
from tests.integration.sources.brokers import mosquitto, running_rabbitmq
from tests.integration.sources.brokers import redis as redis_server
from tests.integration.sources.cut_proxy import CutProxy, cut_proxy
from tests.integration.sources.kafka import cluster
from tests.integration.sources.test_rabbitmq_source import publish as publish_rabbit
from tests.patience import limit, until
from tests.postgres import postgres
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Ack
from whenthen.engine.metrics import Metrics
from whenthen.engine.sources.edges.broker_edges import MqttEdge, RabbitEdge, RedisEdge
from whenthen.engine.sources.edges.kafka_edge import KafkaEdge
from whenthen.engine.sources.edges.nats_edge import NatsEdge
from whenthen.engine.sources.edges.postgres_edge import PostgresEdge, outbox_sql
from whenthen.engine.sources.edges.sqs_edge import SqsEdge
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.event_sources import (
    KafkaReading,
    MqttReading,
    NatsReading,
    PostgresReading,
    RabbitReading,
    RedisReading,
    Source,
    SqsReading,
)
from whenthen.schemas.events import Event
from whenthen.sources.readings import SourceMessage, SourceTranslator

pytestmark = [pytest.mark.anyio, pytest.mark.takes(20)]

PLACES = 16  #: at most, at which the start of a source is cut
QUIET_PLACES = 6  #: and at which the broker says nothing more; to leave it may take a while


class Edge(Protocol):
    async def run(self, intake: MessageIntake) -> None: ...


@dataclass
class Untold:
    """What the event loop was told that nobody looked at, and the tasks that were there `before`."""

    errors: list[Mapping[str, Any]] = field(default_factory=list)
    before: set[asyncio.Task[Any]] = field(default_factory=set)

    async def nothing(self, where: str) -> None:
        """Wait until all that a source has started is gone; nothing of it may be an error that nobody looked at."""

        async def gone() -> bool:
            await asyncio.sleep(0)
            return not self.left()

        with suppress(AssertionError):
            await until(gone)
        assert self.left() == [], where
        gc.collect()  # an error that nobody looked at is told once its task or future goes
        await asyncio.sleep(0)
        assert self.errors == [], where

    def left(self) -> list[str]:
        ours = ("cut_proxy.py", "asyncio/streams.py")
        tasks = asyncio.all_tasks() - self.before
        return [repr(task) for task in tasks if not any(each in repr(task) for each in ours)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources look often whether their brokers are there."""
    edges = "whenthen.engine.sources.edges"
    monkeypatch.setattr(f"{edges}.broker_edges.PING_EVERY_S", 0.05)
    monkeypatch.setattr(f"{edges}.kafka_edge.LOOK_EVERY_S", 0.5)


@pytest.fixture
async def untold() -> AsyncIterator[Untold]:
    loop = asyncio.get_running_loop()
    before, made = loop.get_exception_handler(), Untold()
    loop.set_exception_handler(lambda _, context: made.errors.append(context))
    yield made
    loop.set_exception_handler(before)


def intake() -> MessageIntake:
    read: Any = {"type": "nats", "url": "nats://nowhere:4222", "subject": "a.>"}

    async def publish(event: Event) -> Ack:
        return Ack(seq=1, duplicate=False)

    async def keep(source: str, message: SourceMessage, error: WhenthenError) -> None:
        pass

    translator = SourceTranslator(Source.model_validate({"name": "orders", "read": read}))
    return MessageIntake(translator, publish, metrics=Metrics(version="0", roles=("source",)), keep_aside=keep)


@asynccontextmanager
async def read_by(edge: Edge) -> AsyncIterator[asyncio.Future[None]]:
    """An edge that reads, until it fails or is stopped."""
    taken = intake()
    task = asyncio.ensure_future(edge.run(taken))

    async def reads() -> bool:
        if task.done():
            task.result()
        return taken.watch.state == "reading"

    try:
        await until(reads, within_s=60)
        yield task
    finally:
        await end_task(task)


async def breaks(
    proxy: CutProxy, edge: Callable[[], Edge], untold: Untold, *, hurry: Callable[[], None] = lambda: None
) -> list[str]:
    """Have the broker go at each place of a start, and while it is read; what the source said each time. After `hurry` no source begins to
    read any more.
    """
    untold.before = asyncio.all_tasks()
    proxy.arm(None)
    async with read_by(edge()):
        places = list(proxy.places)
    await untold.nothing("a source that is stopped")
    found = []
    for reset in (False, True):
        proxy.arm(None, reset=reset)
        async with read_by(edge()) as task:
            proxy.cut()
            with pytest.raises(SourceTrouble) as raised:
                async with asyncio.timeout(limit(60)):
                    await task
        found.append(str(raised.value))
        await untold.nothing(f"while it is read: {found[-1]}")
    hurry()
    for number, most in enumerate(spread(places)):
        proxy.arm(most, reset=number % 2 == 1)
        found.append(await trouble(edge(), proxy))
        await untold.nothing(f"after {most} bytes of {places}: {found[-1]}")
    for most in spread(places, QUIET_PLACES):  # and when it is stopped while it waits there for an answer
        proxy.arm(most, quiet=True)
        await stop_when_silent(edge(), proxy)
        await untold.nothing(f"stopped after {most} bytes")
    return found


async def trouble(edge: Edge, proxy: CutProxy) -> str:
    with pytest.raises(SourceTrouble) as raised:
        async with asyncio.timeout(limit(60)):
            await edge.run(intake())
    assert proxy.is_cut
    return str(raised.value)


async def stop_when_silent(edge: Edge, proxy: CutProxy) -> None:
    task = asyncio.ensure_future(edge.run(intake()))

    async def is_there() -> bool:
        return proxy.is_cut or task.done()

    await until(is_there)
    await end_task(task)
    with suppress(SourceTrouble, asyncio.CancelledError):
        task.result()


def spread(places: list[int], count: int = PLACES) -> list[int]:
    """Before and after each piece of the broker's answers and in the middle of each, so far as those are not more than `count`."""
    found = [0, *(each for one, other in pairwise([0, *places]) for each in ((one + other) // 2, other))]
    found = sorted(set(found))
    if len(found) <= count:
        return found
    return [found[index * (len(found) - 1) // (count - 1)] for index in range(count)]


def plain(reference: str) -> str:
    return reference


@pytest.mark.requires("redis-server")
async def test_redis_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(tmp_path: Path, untold: Untold) -> None:
    server = redis_server(tmp_path / "redis")
    server.start()
    try:
        async with cut_proxy(server.port) as proxy:
            read = RedisReading(type="redis", url=f"redis://127.0.0.1:{proxy.port}", stream="orders")
            said = await breaks(proxy, lambda: RedisEdge(read, resolve_secret=plain, consumer="here"), untold)
    finally:
        server.kill()
    assert all(each.startswith("Redis can not be read: ") for each in said)
    assert not [each for each in said if "Timeout" in each or "does not answer" in each]


@pytest.mark.requires("rabbitmq-server")
async def test_rabbitmq_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(
    tmp_path: Path, untold: Untold
) -> None:
    with running_rabbitmq(tmp_path / "rabbitmq") as server:
        await publish_rabbit(f"amqp://guest:guest@127.0.0.1:{server.port}/", 1)
        async with cut_proxy(server.port) as proxy:
            read = RabbitReading(type="rabbitmq", url=f"amqp://guest:guest@127.0.0.1:{proxy.port}/", queue="orders")
            said = await breaks(proxy, lambda: RabbitEdge(read, resolve_secret=plain), untold)
    assert all(each.startswith("RabbitMQ can not be read: ") for each in said)
    assert not [each for each in said if "Timeout" in each or "does not answer" in each]


@pytest.mark.requires("mosquitto")
async def test_mqtt_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(tmp_path: Path, untold: Untold) -> None:
    server = mosquitto(tmp_path / "mosquitto")
    server.start()
    try:
        async with cut_proxy(server.port) as proxy:
            read = MqttReading(type="mqtt", url=f"mqtt://127.0.0.1:{proxy.port}", topic="gauges/+")
            said = await breaks(proxy, lambda: MqttEdge(read, "gauges", resolve_secret=plain), untold)
    finally:
        server.kill()
    assert all(each.startswith("MQTT can not be read: ") for each in said)
    assert not [each for each in said if "Timeout" in each or "does not answer" in each]


async def test_kafka_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(
    untold: Untold, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurry() -> None:
        monkeypatch.setattr("whenthen.engine.sources.edges.kafka_edge.START_S", 3.0)

    with cluster() as kafka:
        kafka.orders(1)
        (server,) = kafka.servers
        host, _, port = server.rpartition(":")
        async with cut_proxy(int(port)) as proxy:
            proxy.swapped = (host.encode() + int(port).to_bytes(4), host.encode() + proxy.port.to_bytes(4))
            read = KafkaReading(type="kafka", servers=[f"127.0.0.1:{proxy.port}"], topic="orders")
            said = await breaks(proxy, lambda: KafkaEdge(read, "orders", resolve_secret=plain), untold, hurry=hurry)
    assert all(each.startswith("Kafka can not be read: ") for each in said)


async def test_nats_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(tmp_path: Path, untold: Untold) -> None:
    server = NatsServer(tmp_path / "theirs")
    server.start()
    try:
        theirs = await nats.connect(server.url)
        await theirs.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await theirs.close()
        async with cut_proxy(server.port) as proxy:
            read = NatsReading(type="nats", url=f"nats://127.0.0.1:{proxy.port}", stream="ORDERS")
            said = await breaks(proxy, lambda: NatsEdge(read, "orders", resolve_secret=plain), untold)
    finally:
        server.stop()
    assert all(each.lower().startswith("nats") for each in said)


@pytest.mark.requires("postgresql")
async def test_postgres_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(
    tmp_path: Path, untold: Untold
) -> None:
    import psycopg

    with postgres() as cluster:
        url = cluster.database("shop")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(outbox_sql("orders_outbox"))
        name = ".s.PGSQL.5432"
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(cut_proxy(cluster._folder / name, at=tmp_path / name))
            read = PostgresReading(
                type="postgres", url=f"postgresql://whenthen@/shop?host={tmp_path}", outbox="orders_outbox"
            )
            said = await breaks(proxy, lambda: PostgresEdge(read, resolve_secret=plain), untold)
    assert all(each.startswith("PostgreSQL can not be read: ") for each in said)


async def test_sqs_that_goes_at_any_place_leaves_a_trouble_and_nothing_else(
    tmp_path: Path, untold: Untold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("whenthen.engine.sources.edges.sqs_edge.LONG_POLL_S", 1)
    with cloud(tmp_path / "aws") as aws:
        address = await asyncio.to_thread(aws.queue, "orders")
        port = int(aws.url.rpartition(":")[2])
        async with cut_proxy(port) as proxy:
            queue = address.replace(str(port), str(proxy.port))
            read = SqsReading(type="sqs", queue=queue, region=REGION)
            said = await breaks(proxy, lambda: SqsEdge(read, resolve_secret=plain), untold)
    assert all(each.startswith("SQS: ") for each in said)
