"""Messages that are large, empty, deep or no text: kept aside by each broker's source, acknowledged there, and in the way of no other."""

from __future__ import annotations

import json
from pathlib import Path

import aio_pika
import psycopg
import pytest
import redis.asyncio
import zmqtt

from tests.integration.sources.brokers import mosquitto, running_rabbitmq
from tests.integration.sources.brokers import redis as redis_server
from tests.integration.sources.reading import Reading, reading
from tests.patience import until
from tests.postgres import postgres
from whenthen.engine.sources.edges.postgres_edge import outbox_sql

pytestmark = [pytest.mark.anyio, pytest.mark.takes(30)]

MAP = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}"}, id: "{{ body.n }}"}'
LARGE = 7_000_000  #: bytes: more than a record of a refused message may have
DEEP = b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = (
    b"", b"\x00\xff\xfe", DEEP, b'{"n": 1e999}', b'{"n": NaN}', b'{"n": {"$ref": "#"}}', b"null", b"[]", b'"' + b"x" * LARGE + b'"',
)  # fmt: skip


def rules(read: str) -> str:
    return f"sources:\n  - {{name: orders, read: {{{read}}}, {MAP}}}\n"


async def the_good_one_came(here: Reading, refused: int) -> None:
    """Wait until all were refused and the last one, which is well, is an event."""
    events = await here.come(1, within_s=60)
    assert [each["resource"]["id"] for each in events] == ["order.1"]
    kept = await here.aside(refused)
    assert {each["source"] for each in kept} == {"source:orders"}
    assert [each["whole"] for each in kept].count(False) == 1  # the large one
    assert (await here.becomes("orders", "reading"))["problems"] == []


@pytest.mark.requires("redis-server")
async def test_redis(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "redis")
    server.start()
    fields = (
        {"": ""}, {"n": ""}, {b"\xff": b"\x00"}, {"__data__": DEEP}, {"__data__": ""}, {f"f{number}": "x" for number in range(5000)},
        {"x": b"x" * LARGE}, {"n": "1"},
    )  # fmt: skip
    try:
        async with redis.asyncio.Redis(port=server.port) as client:
            for each in fields:
                await client.xadd("orders", dict(each))
            text = rules(f"type: redis, url: 'redis://127.0.0.1:{server.port}', stream: orders, existing: report")
            async with reading(tmp_path, text) as here:
                await the_good_one_came(here, len(fields) - 1)

                async def all_acknowledged() -> bool:
                    (group,) = await client.xinfo_groups("orders")
                    return bool(group["pending"] == 0)

                await until(all_acknowledged)
    finally:
        server.kill()


@pytest.mark.requires("rabbitmq-server")
async def test_rabbitmq(tmp_path: Path) -> None:
    with running_rabbitmq(tmp_path / "rabbitmq") as server:
        url = f"amqp://guest:guest@127.0.0.1:{server.port}/"
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("orders", durable=True)
            odd = {"nested": {"list": [1, {"deep": None}]}, "bytes": bytearray(b"\xff"), "text": "x" * 1000}
            for body in (*BODIES, b'{"n": 1}'):
                message = aio_pika.Message(body, headers=odd, message_id="x\n" * 100 + str(hash(body)))
                await channel.default_exchange.publish(message, routing_key="orders")
            async with reading(tmp_path, rules(f"type: rabbitmq, url: '{url}', queue: orders")) as here:
                await the_good_one_came(here, len(BODIES))
            queue = await channel.declare_queue("orders", passive=True)
            assert queue.declaration_result.message_count == 0


@pytest.mark.requires("mosquitto")
async def test_mqtt(tmp_path: Path) -> None:
    server = mosquitto(tmp_path / "mosquitto", much=True)
    server.start()
    try:
        text = rules(f"type: mqtt, url: 'mqtt://127.0.0.1:{server.port}', topic: 'orders/#'")
        async with (
            reading(tmp_path, text) as here,
            zmqtt.create_client("127.0.0.1", server.port, keepalive=0) as client,
        ):
            await here.becomes("orders", "reading")
            for body in (*BODIES, b'{"n": 1}'):
                await client.publish("orders/a//b", body, qos=zmqtt.QoS.AT_LEAST_ONCE)
            await the_good_one_came(here, len(BODIES))
    finally:
        server.kill()


@pytest.mark.requires("postgresql")
async def test_postgresql(tmp_path: Path) -> None:
    bodies = [
        "null", "[]", '{"n": null}', '{"n": 1e100000}', json.dumps({"n": json.loads("[" * 150 + "]" * 150)}),
        json.dumps({"x": "x" * LARGE}), '{"n": 1}',
    ]  # fmt: skip
    with postgres() as database:
        url = database.database("shop")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(outbox_sql("outbox"))
            for body in bodies:
                await connection.execute("insert into outbox (body, headers) values (%s::jsonb, '[1]')", (body,))
            async with reading(tmp_path, rules(f"type: postgres, url: '{url}', outbox: outbox")) as here:
                await the_good_one_came(here, len(bodies) - 1)

                async def all_deleted() -> bool:
                    return await (await connection.execute("select 1 from outbox")).fetchone() is None

                await until(all_deleted)
