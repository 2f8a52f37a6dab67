"""The brokers of the benchmark `sources`: each is filled, read by its own client, and asked for what is left.

Those of the tests: Debian's programs, the mock cluster of librdkafka, which lives in this process, and moto's server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.integration.sources.aws import REGION, Cloud, cloud
from tests.integration.sources.brokers import Program, mosquitto, rabbitmq, redis
from tests.integration.sources.kafka import PARTITIONS, Cluster
from tests.postgres import find_programs, postgres
from whenthen.engine.bus.connection import Bus
from whenthen.engine.sources import outbox_sql

__all__ = ["BROKERS", "KEY", "Broker", "open_broker"]

BROKERS = ("nats", "redis", "rabbitmq", "mqtt", "postgres", "kafka", "sqs")
KEY = "a-key"  #: both of SQS
AT_ONCE = 100  #: messages that a bare consumer has and has not acknowledged, as ours
Took = Callable[[int], None]


def body(number: int) -> bytes:
    return b'{"n": %d, "customer": "c-4711", "total": 129.5, "items": ["a", "b", "c"]}' % number


class Broker(ABC):
    """A broker that is up, with the queue `orders`."""

    read: dict[str, Any]  #: how a source reads it
    most = 1_000_000  #: messages that are worth the time

    @abstractmethod
    async def fill(self, count: int) -> None:
        """Put messages there."""

    @abstractmethod
    async def consume(self, took: Took) -> None:
        """Read with the broker's own client, and acknowledge, until it is cancelled."""

    @abstractmethod
    async def left(self) -> int:
        """The messages that are not acknowledged."""


class Nats(Broker):
    def __init__(self, bus: Bus, url: str) -> None:
        self._bus = bus
        self.read = {"type": "nats", "url": url, "stream": "ORDERS", "existing": "report"}

    async def fill(self, count: int) -> None:
        with contextlib.suppress(Exception):
            await self._bus.js.delete_stream("ORDERS")
        await self._bus.js.add_stream(name="ORDERS", subjects=["orders"])
        for number in range(count):
            await self._bus.nc.publish("orders", body(number))
            if number % 500 == 0:
                await self._bus.nc.flush(timeout=60)
        while (await self._bus.js.stream_info("ORDERS")).state.messages < count:
            await asyncio.sleep(0.05)

    async def consume(self, took: Took) -> None:
        pull = await self._bus.js.pull_subscribe("orders", "whenthen-orders", stream="ORDERS")
        try:
            while True:
                messages = await pull.fetch(AT_ONCE, timeout=60)
                for message in messages:
                    await message.ack()
                took(len(messages))
        finally:
            await pull.unsubscribe()

    async def left(self) -> int:
        info = await self._bus.js.consumer_info("ORDERS", "whenthen-orders")
        return int((info.num_pending or 0) + (info.num_ack_pending or 0))


class Redis(Broker):
    def __init__(self, program: Program) -> None:
        self._port = program.port
        url = f"redis://127.0.0.1:{program.port}"
        self.read = {"type": "redis", "url": url, "stream": "orders", "existing": "report"}

    def _client(self) -> Any:
        import redis.asyncio

        return redis.asyncio.Redis(port=self._port)

    async def fill(self, count: int) -> None:
        async with self._client() as client:
            await client.delete("orders")
            for begin in range(0, count, 1000):
                async with client.pipeline(transaction=False) as pipe:
                    for number in range(begin, min(begin + 1000, count)):
                        pipe.xadd("orders", {"n": number, "customer": "c-4711", "total": 129.5})
                    await pipe.execute()

    async def consume(self, took: Took) -> None:
        async with self._client() as client:
            await client.xgroup_create("orders", "whenthen", id="0")
            while True:
                found = await client.xreadgroup("whenthen", "bare", {"orders": ">"}, count=AT_ONCE, block=1000)
                for _, entries in found:
                    await client.xack("orders", "whenthen", *(number for number, _ in entries))
                    took(len(entries))

    async def left(self) -> int:
        async with self._client() as client:
            (group,) = await client.xinfo_groups("orders")
            return int(group["pending"] + (group["lag"] or 0))


class Rabbit(Broker):
    def __init__(self, program: Program) -> None:
        self._url = f"amqp://guest:guest@127.0.0.1:{program.port}/"
        self.read = {"type": "rabbitmq", "url": self._url, "queue": "orders"}

    async def _queue(self, connection: Any) -> tuple[Any, Any]:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=AT_ONCE)
        return channel, await channel.declare_queue("orders", durable=True)

    async def fill(self, count: int) -> None:
        import aio_pika

        async with await aio_pika.connect(self._url) as connection:
            channel, _ = await self._queue(connection)
            for begin in range(0, count, 500):
                await asyncio.gather(
                    *(
                        channel.default_exchange.publish(aio_pika.Message(body(number)), routing_key="orders")
                        for number in range(begin, min(begin + 500, count))
                    )
                )

    async def consume(self, took: Took) -> None:
        import aio_pika

        async with await aio_pika.connect(self._url) as connection:
            _, queue = await self._queue(connection)

            async def take(message: Any) -> None:
                await message.ack()
                took(1)

            await queue.consume(take)
            await asyncio.Event().wait()

    async def left(self) -> int:
        """Without those that somebody reads, which count again once they do not."""
        import aio_pika

        async with await aio_pika.connect(self._url) as connection:
            _, queue = await self._queue(connection)
            return int(queue.declaration_result.message_count or 0)


class Mqtt(Broker):
    """A session is opened before the messages are sent, and keeps them."""

    def __init__(self, program: Program) -> None:
        self._port = program.port
        self.read = {"type": "mqtt", "url": f"mqtt://127.0.0.1:{program.port}", "topic": "orders"}

    def _session(self) -> Any:
        import zmqtt

        return zmqtt.create_client("127.0.0.1", self._port, client_id="whenthen-orders", clean_session=False)

    async def fill(self, count: int) -> None:
        import zmqtt

        with contextlib.suppress(zmqtt.MQTTDisconnectedError):
            async with self._session() as client, client.subscribe("orders", qos=zmqtt.QoS.AT_LEAST_ONCE):
                await client.disconnect()  # first, as the end of the subscription would end what the session keeps
        async with zmqtt.create_client("127.0.0.1", self._port) as client:
            for begin in range(0, count, AT_ONCE):
                await asyncio.gather(
                    *(
                        client.publish("orders", body(number), qos=zmqtt.QoS.AT_LEAST_ONCE)
                        for number in range(begin, min(begin + AT_ONCE, count))
                    )
                )

    async def consume(self, took: Took) -> None:
        import zmqtt

        async with (
            self._session() as client,
            client.subscribe("orders", qos=zmqtt.QoS.AT_LEAST_ONCE) as subscription,
        ):
            async for _ in subscription:
                took(1)

    async def left(self) -> int:
        return 0  # the broker does not say


class Postgres(Broker):
    def __init__(self, url: str) -> None:
        self._url = url
        self.read = {"type": "postgres", "url": url, "outbox": "outbox"}

    async def _connect(self) -> Any:
        import psycopg

        return await psycopg.AsyncConnection.connect(self._url, autocommit=True)

    async def fill(self, count: int) -> None:
        async with await self._connect() as connection:
            await connection.execute(outbox_sql("outbox"))
            await connection.execute(
                "insert into outbox (body) select jsonb_build_object('n', n, 'customer', 'c-4711') "
                f"from generate_series(0, {count - 1}) n"
            )

    async def consume(self, took: Took) -> None:
        async with await self._connect() as connection:
            while True:
                found = await connection.execute(f"select id, body::text from outbox order by id limit {AT_ONCE}")
                rows = await found.fetchall()
                if not rows:
                    await asyncio.sleep(0.1)
                    continue
                await connection.execute("delete from outbox where id = any(%s)", ([row[0] for row in rows],))
                took(len(rows))

    async def left(self) -> int:
        async with await self._connect() as connection:
            row = await (await connection.execute("select count(*) from outbox")).fetchone()
            return int(row[0])


class Kafka(Broker):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._number = 0
        self._count = 0
        self._group = ""
        self.read = {}

    async def fill(self, count: int) -> None:
        """Each time another topic and group: the mock cluster deletes none."""
        self._number += 1
        self._count = count
        topic = self._group = f"orders-{self._number}"
        self.read = {
            "type": "kafka", "servers": self._cluster.servers, "topic": topic, "group": topic, "existing": "report",
        }  # fmt: skip
        for part in range(PARTITIONS):
            bodies = [body(number) for number in range(part, count, PARTITIONS)]
            for begin in range(0, len(bodies), 1000):
                await asyncio.to_thread(self._cluster.produce, topic, *bodies[begin : begin + 1000], partition=part)

    async def consume(self, took: Took) -> None:
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(
            self._group,
            bootstrap_servers=self._cluster.servers,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            while True:
                found = await consumer.getmany(timeout_ms=1000, max_records=2 * AT_ONCE)
                if found:
                    await consumer.commit()
                    took(sum(map(len, found.values())))
        finally:
            await consumer.stop()

    async def left(self) -> int:
        return self._count - await asyncio.to_thread(self._cluster.committed, self._group, self._group)


class Sqs(Broker):
    """Of moto's server, which takes more time than any reader."""

    most = 200

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        queue = cloud.queue("orders")
        login = {"access_key": "env:KEY", "secret_key": "env:KEY"}
        self.read = {"type": "sqs", "queue": queue, "region": REGION, **login}

    async def fill(self, count: int) -> None:
        for begin in range(0, count, 10):
            entries = [
                {"Id": str(number), "MessageBody": body(number).decode()}
                for number in range(begin, min(begin + 10, count))
            ]
            await asyncio.to_thread(
                self._cloud.client("sqs").send_message_batch, QueueUrl=self.read["queue"], Entries=entries
            )

    async def consume(self, took: Took) -> None:
        from aiobotocore.session import AioSession

        queue = self.read["queue"]
        login = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY}
        async with AioSession().create_client(
            "sqs", region_name=REGION, endpoint_url=self._cloud.url, **login
        ) as client:
            while True:
                found = await client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                entries = [
                    {"Id": str(place), "ReceiptHandle": each["ReceiptHandle"]}
                    for place, each in enumerate(found.get("Messages", ()))
                ]
                if entries:
                    await client.delete_message_batch(QueueUrl=queue, Entries=entries)
                    took(len(entries))

    async def left(self) -> int:
        return sum(await asyncio.to_thread(self._cloud.held, "orders"))


def open_broker(name: str, scratch: Path, stack: contextlib.ExitStack, bus: Bus, url: str) -> Broker | None:
    """None where it is not installed."""
    if name == "nats":
        return Nats(bus, url)
    if name == "redis":
        return Redis(stack.enter_context(_running(redis(scratch / name)))) if shutil.which("redis-server") else None
    if name == "rabbitmq":
        found = shutil.which("rabbitmq-server") or os.access("/usr/sbin/rabbitmq-server", os.X_OK)
        return Rabbit(stack.enter_context(_running(rabbitmq(scratch / name)))) if found else None
    if name == "postgres":
        return Postgres(stack.enter_context(postgres()).database("shop")) if find_programs() else None
    if name == "sqs":
        return Sqs(stack.enter_context(cloud(scratch / name)))
    if name == "kafka":
        cluster = Cluster()
        stack.callback(cluster.close)
        return Kafka(cluster)
    found = shutil.which("mosquitto") or os.access("/usr/sbin/mosquitto", os.X_OK)
    if not found:
        return None
    return Mqtt(stack.enter_context(_running(mosquitto(scratch / name, much=True))))


@contextlib.contextmanager
def _running(program: Program) -> Iterator[Program]:
    program.start()
    try:
        yield program
    finally:
        program.kill()
