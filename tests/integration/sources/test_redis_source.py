"""A stream of Redis as a source: a real server that is killed, and what was acknowledged there is stored here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from faststream.redis import RedisBroker

from tests.integration.sources.brokers import Program
from tests.integration.sources.brokers import redis as redis_server
from tests.integration.sources.reading import reading
from tests.patience import until

pytestmark = [pytest.mark.anyio, pytest.mark.requires("redis-server")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    made = redis_server(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


async def add(port: int, *fields: dict[Any, Any]) -> None:
    async with redis.asyncio.Redis(port=port) as client:
        for each in fields:
            await client.xadd("orders", each)


async def test_a_stream_is_read_over_restarts_of_both_sides(tmp_path: Path, server: Program) -> None:
    text = f"""
sources:
  - name: orders
    read: {{type: redis, url: "redis://127.0.0.1:{server.port}", stream: orders, existing: report}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}", at: $.message.id}}}}
"""
    await add(server.port, *({"n": number} for number in range(40)))
    async with reading(tmp_path, text) as here:
        await here.come(40)
        await add(server.port, {"other": "x"}, {"n": 40}, {b"\xff": b"\xfe"}, {"__data__": b"\x89BIN\xff"})
        await here.come(41)
        assert {each["field"] for each in await here.aside(3)} >= {"map.resource.id"}
        assert await here.metric('whenthen_events_refused_total{reason="invalid_input",source="source:orders"}') == 2.0
        await add(
            server.port, {"n": 43, "data": '{"n": 1000}', "headers": "{}"}
        )  # fields like others, however they are called
        async with RedisBroker(f"redis://127.0.0.1:{server.port}") as theirs:
            await theirs.publish({"n": 44}, stream="orders", headers={"kind": "test"})
        [plain, packed] = (await here.come(43))[41:]
        assert plain["payload"] == {"n": "43", "data": '{"n": 1000}', "headers": "{}"}
        assert packed["payload"] == {"n": 44}

        async def all_acknowledged() -> bool:
            async with redis.asyncio.Redis(port=server.port) as client:
                (group,) = await client.xinfo_groups("orders")
                return bool(group["pending"] == 0)

        await until(all_acknowledged)
        server.kill()
        server.start()
        await add(server.port, {"n": 41})
        await here.come(44, within_s=60)
    await add(server.port, {"n": 42})
    async with reading(tmp_path, text) as here:
        events = await here.come(45)
        assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(45))
