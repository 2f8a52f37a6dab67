"""A queue of RabbitMQ as a source: a real server that is killed, and what was acknowledged there is stored here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aio_pika
import aio_pika.exceptions
import pytest

from tests.integration.sources.brokers import Program, rabbitmq
from tests.integration.sources.reading import reading
from tests.patience import until

pytestmark = [pytest.mark.anyio, pytest.mark.requires("rabbitmq-server")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    made = rabbitmq(tmp_path / "rabbitmq")
    made.start()
    yield made
    made.kill()


async def publish(url: str, *numbers: int, body: bytes | None = None) -> int:
    """Publish and give how many messages the queue has."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("orders", durable=True)
        for number in numbers:
            message = aio_pika.Message(
                body or b'{"n": %d}' % number,
                message_id=f"order-{number}",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await channel.default_exchange.publish(message, routing_key="orders")
        return (await channel.declare_queue("orders", durable=True)).declaration_result.message_count or 0


@pytest.mark.takes(60)
async def test_a_queue_is_read_over_restarts_of_both_sides(tmp_path: Path, server: Program) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{server.port}/"
    text = f"""
sources:
  - name: orders
    read: {{type: rabbitmq, url: "{url}", queue: orders}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}", key: $.message.routing_key}}}}
"""
    async with reading(tmp_path, text) as here:

        async def in_trouble() -> bool:  # the queue is not there yet
            return await here.metric('whenthen_source_reading{source="orders"}') == 0.0

        await until(in_trouble)
        await publish(url, *range(40))
        events = await here.come(40, within_s=60)
        assert events[0]["resource"]["key"] == "orders"
        assert {each["id"] for each in events} == {f"source:orders/order-{number}" for number in range(40)}
        await publish(url, 1000, body=b"poison")
        await publish(url, 40)
        await here.come(41)
        (kept,) = await here.aside()
        assert (kept["source"], kept["reason"], kept["shape"]) == (
            "source:orders",
            "invalid_json",
            "no JSON: text of 6",
        )
        server.kill()
        server.start()

        async def published() -> bool:  # it listens for a while before it lets anybody in
            try:
                return await publish(url, 41) >= 0
            except (aio_pika.exceptions.AMQPError, OSError):
                return False

        await until(published, within_s=60)
        await here.come(42, within_s=90)
    await publish(url, 42)
    async with reading(tmp_path, text) as here:
        events = await here.come(43)
        assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(43))

        async def nothing_left() -> bool:
            return await publish(url) == 0

        await until(nothing_left)
