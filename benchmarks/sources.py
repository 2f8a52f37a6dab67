"""Events a second from each broker to JetStream's acknowledgement, beside a bare consumer of the same broker.

    python -m benchmarks.sources [--messages 10000] [--rounds 3] [BROKER ...]

Ours is the role `source` without the rest of the server: what a broker holds is read, mapped to events, stored, and acknowledged upstream.
The bare consumer is the broker's own client, in a process like ours, which reads and acknowledges as many messages and does nothing with
them. Both are measured from the first message to the last; rounds alternate, medians count. Of the brokers those are measured that are
installed; Kafka's is the mock cluster of librdkafka, which lives in this process and takes its share of it, and SQS is left out: moto's
server takes longer than any reader.

Checked: the stream holds one event for each message, with the right number in it, and upstream nothing is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks._shared import bed, folder, machine, main_loop
from tests.integration.sources.brokers import Program, mosquitto, rabbitmq, redis
from tests.integration.sources.kafka import PARTITIONS, Cluster
from tests.postgres import find_programs, postgres
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.metrics import Metrics
from whenthen.engine.sources import SourceRunner, outbox_sql
from whenthen.schemas.event_sources import Source
from whenthen.schemas.events import Event
from whenthen.sources.readings import SourceTranslator

__all__ = ["main"]

AT_ONCE = 100  #: messages that a bare consumer has and has not acknowledged, as ours
MAP = {"event": "order.placed", "resource": {"id": "order.{{ body.n }}"}, "id": "$.body.n"}
WAIT_S = 180.0
Took = Callable[[int], None]


def body(number: int) -> bytes:
    return b'{"n": %d, "customer": "c-4711", "total": 129.5, "items": ["a", "b", "c"]}' % number


class Meter:
    """When the first and the last of `count` messages came."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._began = 0.0
        self.rate = 0.0
        self.done = asyncio.Event()

    def took(self, count: int = 1) -> None:
        if not self._seen:
            self._began = time.perf_counter()
        self._seen += count
        if self._seen >= self._count and not self.done.is_set():
            self.rate = (self._seen - 1) / (time.perf_counter() - self._began)
            self.done.set()


class Broker(ABC):
    """A broker that is up, with the queue `orders`."""

    read: dict[str, Any]  #: how a source reads it

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
        while True:
            messages = await pull.fetch(AT_ONCE, timeout=60)
            for message in messages:
                await message.ack()
            took(len(messages))

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
                    for number, _ in entries:
                        await client.xack("orders", "whenthen", number)
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
        import aio_pika

        async with await aio_pika.connect(self._url) as connection:
            _, queue = await self._queue(connection)
            return int(queue.declaration_result.message_count or 0)


class Mqtt(Broker):
    """Messages come while they are read: a broker of MQTT keeps few of them."""

    def __init__(self, program: Program) -> None:
        self._port = program.port
        self._sent: asyncio.Task[None] | None = None
        self.read = {"type": "mqtt", "url": f"mqtt://127.0.0.1:{program.port}", "topic": "orders"}

    async def fill(self, count: int) -> None:
        import zmqtt

        async def send() -> None:
            async with zmqtt.create_client("127.0.0.1", self._port) as client:
                for begin in range(0, count, AT_ONCE):
                    await asyncio.gather(
                        *(
                            client.publish("orders", body(number), qos=zmqtt.QoS.AT_LEAST_ONCE)
                            for number in range(begin, min(begin + AT_ONCE, count))
                        )
                    )

        await send()

    async def consume(self, took: Took) -> None:
        import zmqtt

        async with (
            zmqtt.create_client("127.0.0.1", self._port, client_id="whenthen-orders", clean_session=False) as client,
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


# -- the measurement


async def _ours(bus: Bus, broker: Broker, count: int) -> float:
    """Read with a source; what is stored is checked and removed."""
    before = (await bus.js.stream_info("EVENTS")).state.last_seq
    meter = Meter(count)
    source = Source.model_validate({"name": "orders", "read": broker.read, "map": MAP})
    translator = SourceTranslator(source)

    async def publish(event: Event) -> Ack:
        ack = await bus.publish(event)
        meter.took()
        return ack

    async def keep_aside(*found: Any) -> None:
        raise SystemExit(f"a message became no event: {found}")

    runner = SourceRunner(
        bus,
        lambda: {"orders": translator},
        publish=publish,
        resolve_secret=os.environ.__getitem__,
        metrics=Metrics(),
        keep_aside=keep_aside,
    )
    await _until_done(runner.run(), meter, broker)
    info = await bus.js.stream_info("EVENTS")
    numbers = set()
    for seq in range(before + 1, info.state.last_seq + 1):
        numbers.add(orjson.loads((await bus.js.get_msg("EVENTS", seq)).data or b"")["payload"]["n"])
    if (
        len(numbers) != count
        or info.state.last_seq - before != count
        or {int(each) for each in numbers} != set(range(count))
    ):
        raise SystemExit(
            f"{count} messages became {info.state.last_seq - before} events, {len(numbers)} different ones"
        )
    await bus.js.purge_stream("EVENTS")
    return meter.rate


async def _bare(broker: Broker, count: int) -> float:
    meter = Meter(count)
    await _until_done(broker.consume(meter.took), meter, broker)
    return meter.rate


async def _until_done(work: Awaitable[None], meter: Meter, broker: Broker) -> None:
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(WAIT_S):
            waited = asyncio.ensure_future(meter.done.wait())
            await asyncio.wait({task, waited}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            while await broker.left():
                await asyncio.sleep(0.1)
    finally:
        await end_task(task)


async def compare(broker: Broker, bus: Bus, count: int, rounds: int) -> dict[str, Any]:
    ours: list[float] = []
    bare: list[float] = []
    for number in range(rounds + 1):
        size = count if number else min(count, 500)  # the first round warms up
        found = []
        for consume in (_bare_of(broker, size), _ours_of(broker, bus, size)):
            await broker.fill(size)
            found.append(await consume())
        if number:
            bare.append(found[0])
            ours.append(found[1])
    return {
        "events_per_s": round(statistics.median(ours)),
        "bare_per_s": round(statistics.median(bare)),
        "share": round(statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True)), 2),
    }


def _bare_of(broker: Broker, size: int) -> Callable[[], Awaitable[float]]:
    return lambda: _bare(broker, size)


def _ours_of(broker: Broker, bus: Bus, size: int) -> Callable[[], Awaitable[float]]:
    return lambda: _ours(bus, broker, size)


@contextlib.contextmanager
def _running(program: Program) -> Any:
    program.start()
    try:
        yield program
    finally:
        program.kill()


async def measure(count: int, rounds: int, wanted: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with bed() as bus:
        with folder() as scratch:
            for name in wanted:
                with contextlib.ExitStack() as stack:
                    broker = _broker(name, scratch, stack, bus)
                    if broker is not None:
                        figures[name] = await compare(broker, bus, count, rounds)
    return {"benchmark": "sources", **machine(), "messages": count, "rounds": rounds, "figures": figures}


def _broker(name: str, scratch: Path, stack: contextlib.ExitStack, bus: Bus) -> Broker | None:
    """None where it is not installed."""
    if name == "nats":
        return Nats(bus, str(bus.nc.connected_url.geturl()))
    if name == "redis":
        return Redis(stack.enter_context(_running(redis(scratch / name)))) if shutil.which("redis-server") else None
    if name == "rabbitmq":
        found = shutil.which("rabbitmq-server") or os.access("/usr/sbin/rabbitmq-server", os.X_OK)
        return Rabbit(stack.enter_context(_running(rabbitmq(scratch / name)))) if found else None
    if name == "postgres":
        return Postgres(stack.enter_context(postgres()).database("shop")) if find_programs() else None
    if name == "kafka":
        cluster = Cluster()
        stack.callback(cluster.close)
        return Kafka(cluster)
    found = shutil.which("mosquitto") or os.access("/usr/sbin/mosquitto", os.X_OK)
    return Mqtt(stack.enter_context(_running(mosquitto(scratch / name)))) if found else None


BROKERS = ("nats", "redis", "rabbitmq", "mqtt", "postgres", "kafka")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers", nargs="*", default=list(BROKERS), metavar="BROKER")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(main_loop(measure(given.messages, given.rounds, given.brokers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
