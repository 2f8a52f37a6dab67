"""A server that is killed while it reads: nothing that was acknowledged upstream is missing, and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import orjson
import pytest
from aiohttp import web

from tests.integration.conftest import NatsServer
from tests.integration.served import Served
from tests.integration.sources.aws import REGION, Cloud, cloud
from tests.integration.sources.kafka import cluster
from tests.patience import eventually, until
from tests.plain_http import plain_async_client

pytestmark = pytest.mark.anyio

MESSAGES = 900


def mapped(folder: Path, read: str) -> None:
    """The rules of a server in `folder`, which reads orders."""
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(f"""
sources:
  - name: orders
    read: {{{read}}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}"}}}}
""")


async def each_is_one_event(
    folder: Path, acknowledged: Callable[[], Awaitable[int]], count: int, kill_at: Sequence[int]
) -> None:
    """Kill the server each time so many messages are acknowledged, and compare the events when all are."""
    served = Served(folder)
    try:
        for share in kill_at:

            async def some_are(share: int = share) -> bool:
                return await acknowledged() >= share

            await until(some_are, within_s=60, every_s=0.001)
            await asyncio.to_thread(served.kill)
            served = Served(folder)

        async def all_are() -> bool:
            return await acknowledged() == count

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
