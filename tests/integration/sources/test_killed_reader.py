"""A server that is killed while it reads: nothing that was acknowledged upstream is missing, and nothing comes twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import orjson
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.served import Served
from tests.patience import eventually, until

pytestmark = pytest.mark.anyio

MESSAGES = 900


@pytest.mark.takes(30)
async def test_each_message_is_one_event_whoever_is_killed(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    for number in range(MESSAGES):
        await js.publish("orders.new", orjson.dumps({"n": number}))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(f"""
sources:
  - name: orders
    read: {{type: nats, url: "{nats_server.url}", stream: ORDERS, existing: report}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}"}}}}
""")

    async def acknowledged() -> int:
        try:
            info = await js.consumer_info("ORDERS", "whenthen-orders")
        except nats.js.errors.NotFoundError:
            return 0
        return info.ack_floor.stream_seq if info.ack_floor else 0

    served = Served(tmp_path)
    try:
        for share in (1, 400):

            async def some_are(share: int = share) -> bool:
                return await acknowledged() >= share

            await until(some_are, within_s=60, every_s=0.001)
            await asyncio.to_thread(served.kill)
            served = Served(tmp_path)

        async def all_are() -> bool:
            return await acknowledged() == MESSAGES

        await until(all_are, within_s=90)

        await asyncio.to_thread(served.wait_until_ready)

        def ids() -> list[str]:
            return [each["resource"]["id"] for each in served.get("/api/events?limit=1000&event=order.placed")]

        await asyncio.to_thread(eventually, lambda: len(ids()) >= MESSAGES)
        assert sorted(ids()) == sorted(f"order.{number}" for number in range(MESSAGES))
    finally:
        await asyncio.to_thread(served.kill)
        await theirs.close()
