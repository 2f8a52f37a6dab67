"""A server that is killed while it reads: nothing that was acknowledged upstream is missing, and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import httpx
import nats
import orjson
import psycopg
import pytest
import redis.asyncio
import zmqtt
from aiohttp import web

from tests.integration.conftest import NatsServer
from tests.integration.served import Served
from tests.integration.sources.aws import REGION, Cloud, cloud
from tests.integration.sources.brokers import mosquitto, running_rabbitmq
from tests.integration.sources.brokers import redis as redis_server
from tests.integration.sources.kafka import cluster
from tests.patience import eventually, until
from tests.plain_http import plain_async_client
from tests.postgres import postgres
from whenthen.engine.sources.edges.postgres_edge import outbox_sql

pytestmark = pytest.mark.anyio

MESSAGES = 900


def mapped(folder: Path, read: str, more: str = "") -> None:
    """The rules of a server in `folder`, which reads orders."""
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(f"""
sources:
  - name: orders
    read: {{{read}}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}"}}{more}}}
""")


async def each_is_one_event(
    folder: Path, acknowledged: Callable[[], Awaitable[int]] | None, count: int, kill_at: Sequence[int]
) -> None:
    """Kill the server each time so many messages are acknowledged, and compare the events when all are; of a broker that does not say
    what is, when there are so many events.
    """
    served = Served(folder)

    async def stored() -> int:
        try:
            return len(await asyncio.to_thread(served.get, "/api/events?limit=1000&event=order.placed"))
        except httpx.HTTPError:  # it does not listen yet
            return 0

    look = acknowledged or stored
    try:
        for share in kill_at:

            async def some_are(share: int = share) -> bool:
                return await look() >= share

            await until(some_are, within_s=60, every_s=0.001)
            await asyncio.to_thread(served.kill)
            served = Served(folder)

        async def all_are() -> bool:
            return await look() == count

        await until(all_are, within_s=90)
        await asyncio.to_thread(served.wait_until_ready)

        def ids() -> list[str]:
            return [each["resource"]["id"] for each in served.get("/api/events?limit=1000&event=order.placed")]

        await asyncio.to_thread(eventually, lambda: len(ids()) >= count)
        assert sorted(ids()) == sorted(f"order.{number}" for number in range(count))
    finally:
        await asyncio.to_thread(served.kill)


@pytest.mark.takes(30)
async def test_each_message_is_one_event_whoever_is_killed(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    for number in range(MESSAGES):
        await js.publish("orders.new", orjson.dumps({"n": number}))
    mapped(tmp_path, f'type: nats, url: "{nats_server.url}", stream: ORDERS, existing: report')

    async def acknowledged() -> int:
        try:
            info = await js.consumer_info("ORDERS", "whenthen-orders")
        except nats.js.errors.NotFoundError:
            return 0
        return info.ack_floor.stream_seq if info.ack_floor else 0

    await each_is_one_event(tmp_path, acknowledged, MESSAGES, (1, 400))
    await theirs.close()


@pytest.mark.takes(60)
async def test_each_message_of_kafka_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    with cluster() as kafka:
        kafka.orders(*range(MESSAGES))
        mapped(tmp_path, f"type: kafka, servers: {kafka.servers}, topic: orders, existing: report")

        async def committed() -> int:
            return await asyncio.to_thread(kafka.committed, "whenthen", "orders")

        await each_is_one_event(tmp_path, committed, MESSAGES, (1,))


@asynccontextmanager
async def hides_shortly(aws: Cloud) -> AsyncIterator[str]:
    """The address of a server in front of moto's that hides messages for three seconds, whatever their reader asks for."""

    async def handle(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        if asked.get("VisibilityTimeout"):
            asked["VisibilityTimeout"] = 3
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        answer = await client.post(aws.url, headers=headers, content=json.dumps(asked))
        return web.Response(body=answer.content, status=answer.status_code, content_type="application/x-amz-json-1.0")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    async with plain_async_client() as client:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.takes(30)
async def test_each_message_of_sqs_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    count = 200
    (tmp_path / "key").write_text("a-key")
    with cloud(tmp_path / "aws") as aws:
        aws.queue("orders")
        aws.send("orders", *(f'{{"n": {number}}}' for number in range(count)))
        async with hides_shortly(aws) as url:
            queue = aws.address("orders").replace(aws.url, url)
            key = f"access_key: 'file:{tmp_path}/key', secret_key: 'file:{tmp_path}/key'"
            mapped(tmp_path, f"type: sqs, queue: '{queue}', region: {REGION}, {key}")

            async def deleted() -> int:
                return count - sum(await asyncio.to_thread(aws.held, "orders"))

            await each_is_one_event(tmp_path, deleted, count, (1,))


@pytest.mark.takes(60)
@pytest.mark.requires("redis-server")
async def test_each_message_of_redis_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    server.start()
    try:
        async with redis.asyncio.Redis(port=server.port) as client:
            for number in range(MESSAGES):
                await client.xadd("orders", {"n": number})
            mapped(tmp_path, f"type: redis, url: 'redis://127.0.0.1:{server.port}', stream: orders, existing: report")

            async def acknowledged() -> int:
                groups = await client.xinfo_groups("orders")
                return sum((group["entries-read"] or 0) - group["pending"] for group in groups)

            # what the killed one had taken is another's after 30 s
            await each_is_one_event(tmp_path, acknowledged, MESSAGES, (1,))
    finally:
        server.kill()


@pytest.mark.takes(60)
@pytest.mark.requires("rabbitmq-server")
async def test_each_message_of_rabbitmq_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    with running_rabbitmq(tmp_path / "rabbitmq") as server:
        url = f"amqp://guest:guest@127.0.0.1:{server.port}/"
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("orders", durable=True)
            for number in range(MESSAGES):
                message = aio_pika.Message(b'{"n": %d}' % number, message_id=str(number))
                await channel.default_exchange.publish(message, routing_key="orders")
            mapped(tmp_path, f"type: rabbitmq, url: '{url}', queue: orders")

            async def given() -> int:
                """Acknowledged, and up to 100 that somebody has and has not acknowledged."""
                queue = await channel.declare_queue("orders", passive=True)
                return MESSAGES - (queue.declaration_result.message_count or 0)

            def unacknowledged() -> str:
                words = ("-q", "list_queues", "--no-table-headers", "messages")
                return server.run("/usr/lib/rabbitmq/bin/rabbitmqctl", *words).strip()

            async def acknowledged() -> int:
                taken = await given()
                if taken == MESSAGES and await asyncio.to_thread(unacknowledged) != "0":
                    return MESSAGES - 1
                return taken

            await each_is_one_event(tmp_path, acknowledged, MESSAGES, (300,))


@pytest.mark.takes(60)
@pytest.mark.requires("mosquitto")
async def test_each_message_of_mqtt_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    server = mosquitto(tmp_path / "mosquitto", much=True)
    server.start()
    try:
        # the session of the source, which keeps what comes while nobody reads
        async with zmqtt.create_client(
            "127.0.0.1", server.port, client_id="whenthen-orders", clean_session=False
        ) as session:
            subscription = session.subscribe("orders", qos=zmqtt.QoS.AT_LEAST_ONCE)
            await subscription.start()
            await subscription.detach()
        async with zmqtt.create_client("127.0.0.1", server.port, keepalive=0) as client:
            for number in range(MESSAGES):
                await client.publish("orders", b'{"n": %d}' % number, qos=zmqtt.QoS.AT_LEAST_ONCE)
            mapped(
                tmp_path,
                f"type: mqtt, url: 'mqtt://127.0.0.1:{server.port}', topic: orders",
                ', id: "{{ body.n }}"',
            )
            await each_is_one_event(tmp_path, None, MESSAGES, (100,))
    finally:
        server.kill()


@pytest.mark.takes(60)
@pytest.mark.requires("postgresql")
async def test_each_row_of_postgresql_is_one_event_whoever_is_killed(tmp_path: Path) -> None:
    with postgres() as database:
        url = database.database("shop")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(outbox_sql("outbox"))
            await connection.execute(
                f"insert into outbox (body) select jsonb_build_object('n', n) from generate_series(0, {MESSAGES - 1}) n"
            )
            mapped(tmp_path, f"type: postgres, url: '{url}', outbox: outbox")

            async def deleted() -> int:
                row = await (await connection.execute("select count(*) from outbox")).fetchone()
                assert row is not None
                return MESSAGES - int(row[0])

            await each_is_one_event(tmp_path, deleted, MESSAGES, (1, 400))
