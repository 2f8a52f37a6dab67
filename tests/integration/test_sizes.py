"""Sizes beyond a message, a commit and the stream, on servers with the limits that they come with: nothing stops, and the firings
are those of a replay."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.oracle import read_stream
from tests.integration.conftest import NatsServer, eventually
from tests.plain_http import plain_async_client
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import (
    ENGINE,
    StreamSettings,
    check_server,
    ensure_streams,
)
from whenthen.engine.evaluation.nats_log import nats_shard_loop
from whenthen.engine.process.roles import Role
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import SetupError
from whenthen.schemas.events import decode_event, new_event
from whenthen.triggers import Evaluator, RuleSet

pytestmark = pytest.mark.anyio

RULES = [
    {"name": "many", "trigger": {"expect": "order.*", "threshold": 9000, "within": "1h"}},
    {"name": "burst", "trigger": {"expect": "order.*", "collect": {"events": 8000, "wait": "1h"}}},
    {
        "name": "keys",
        "trigger": {"expect": "order.*", "threshold": 3, "within": "1h", "for_each": ["$.payload.group"]},
    },
    {
        "name": "chain",
        "trigger": {
            "type": "sequence",
            "within": "1h",
            "triggers": [{"expect": "order.created", "threshold": 4000, "within": "1h"}, {"expect": "order.shipped"}],
        },
    },
    {"name": "each", "trigger": {"expect": "order.shipped"}, "actions": ["do-nothing"]},
]


@pytest.fixture
def stock_server(tmp_path: Path) -> Iterator[NatsServer]:
    """With NATS's own limit of a message."""
    server = NatsServer(tmp_path / "nats", extra="max_payload: 1048576")
    server.start()
    yield server
    server.stop()


def evaluator() -> Evaluator:
    return Evaluator(RuleSet.compile([Automation.model_validate(rule) for rule in RULES]))


async def firings_of_a_replay(bus: Bus) -> set[str]:
    """What the stored events make fire."""
    replaying = evaluator()
    found: set[str] = set()
    async for stored in read_stream(bus, "EVENTS", "events.>"):
        outcome = replaying.process(decode_event(stored.data, stored.seq), stored.time_us)
        found |= {firing.id for firing in outcome.firings}
    return found


async def test_windows_beyond_a_message_of_a_stock_server_stop_nothing(stock_server: NatsServer) -> None:
    bus = Bus(stock_server.url)
    await bus.connect()
    try:
        await check_server(bus.nc)
        await ensure_streams(bus.js, StreamSettings())
        assert bus.nc.max_payload == 1 << 20

        def event(number: int) -> Any:
            return new_event(
                "order.shipped" if number % 2500 == 2499 else "order.created",
                id=f"{'i' * 150}-{number}",
                resource={"id": "r"},
                payload={"group": f"{'long' * 5000}{number // 3}"} if number < 300 else {"group": "one"},
                now=datetime.now(UTC),
                source="test",
            )

        async def publish(first: int, last: int) -> None:
            for start in range(first, last, 500):
                await asyncio.gather(*(bus.publish(event(number)) for number in range(start, start + 500)))

        async def evaluate_to(seq: int) -> int:
            loop = nats_shard_loop(bus, 0, evaluator())
            task = asyncio.create_task(loop.run())
            await eventually(lambda: task.done() or loop.committed >= seq, within_s=90)
            loop.stop()
            await task
            return loop.committed

        await publish(0, 7500)
        assert await evaluate_to(7500) == 7500
        subjects = (await bus.js.stream_info(ENGINE, subjects_filter="engine.shard.0.part.>")).state.subjects or {}
        assert subjects, "a window is larger than a message, in parts"
        await publish(7500, 10_000)
        assert await evaluate_to(10_000) == 10_000, "loaded again by another process, it goes on"
        fired = {stored.subject.rsplit(".", 1)[1] async for stored in read_stream(bus, ENGINE, "engine.firing.>")}
        assert fired == await firings_of_a_replay(bus)
        assert len(fired) > 100
    finally:
        await bus.close()


async def test_a_server_that_takes_too_little_in_a_message_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", extra="max_payload: 65536")
    server.start()
    bus = Bus(server.url)
    try:
        await bus.connect()
        with pytest.raises(SetupError, match=r"max_payload 524288 or more \(found 65536\); set max_payload"):
            await check_server(bus.nc)
    finally:
        await bus.close()
        server.stop()


async def test_a_body_limit_that_no_event_can_reach_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0, "body_limit": 9_000_000})
    with pytest.raises(SetupError, match="body_limit is 9000000 bytes, and the NATS server takes 8372224 of an event"):
        async with Server(settings, tmp_path / "rules"):
            pass


def test_an_engine_that_holds_less_than_eight_commits_is_refused() -> None:
    with pytest.raises(SetupError, match="--engine-bytes: 4000000 bytes hold less than eight commits; set 32MiB"):
        load_settings({"engine_bytes": "4MB"})


EACH = "automations:\n  - {name: each, trigger: {expect: order.created}, actions: [do-nothing]}\n"


async def sent(client: httpx.AsyncClient, first: int, last: int) -> None:
    """Events of 60 KB."""
    for number in range(first, last, 10):
        body = [
            {"id": f"o-{n}", "event": "order.created", "resource": {"id": "r"}, "payload": "x" * 60_000}
            for n in range(number, number + 10)
        ]
        assert (await client.post("/api/events", json=body)).status_code == 202


async def test_a_small_engine_stream_makes_room_for_each_commit(tmp_path: Path) -> None:
    """300 firings of 120 KB through 12 MB, with maintenance too slow to help."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(EACH)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0}).model_copy(update={"engine_bytes": 12_000_000})
    async with Server(settings, tmp_path / "rules") as server, plain_async_client(base_url=server.address) as client:
        await sent(client, 0, 300)
        value = server.metrics.registry.get_sample_value
        labels = {"automation": "each", "type": "do-nothing", "outcome": "executed"}
        await eventually(lambda: value("whenthen_actions_total", labels) == 300, within_s=90)
        assert (await client.get("/readyz")).status_code == 200
        await eventually(lambda: value("whenthen_evaluation_lag_messages", {"shard": "0"}) == 0)
        assert (await server.bus.js.stream_info(ENGINE)).state.bytes <= 12_000_000


async def test_an_engine_stream_full_of_tasks_that_wait_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(EACH)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0}).model_copy(update={"engine_bytes": 6_000_000})
    roles = (Role.EVALUATOR, Role.API)  # nobody performs the tasks
    async with (
        Server(settings, tmp_path / "rules", roles=roles) as server,
        plain_async_client(base_url=server.address) as client,
    ):
        await sent(client, 0, 150)
        value = server.metrics.registry.get_sample_value
        await eventually(lambda: value("whenthen_stream_stuck", {"stream": ENGINE}) == 1, within_s=60)
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "room in stream ENGINE, which is full" in answer.json()["missing"]
        await eventually(lambda: (value("whenthen_evaluation_lag_messages", {"shard": "0"}) or 0) > 0)
        stream = (await server.bus.js.stream_info(ENGINE)).config
        await server.bus.js.update_stream(dataclasses.replace(stream, max_bytes=60_000_000))
        await eventually(lambda: value("whenthen_automation_fired_total", {"automation": "each"}) == 150)
        await eventually(lambda: value("whenthen_stream_stuck", {"stream": ENGINE}) == 0)
        assert (await client.get("/readyz")).status_code == 200
