"""A window that was deleted stays deleted, whatever the server finds on its disk after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.oracle import Stored, read_stream
from tests.integration.conftest import NatsServer, eventually
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import until_answered
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.evaluation.commits.commit_messages import LONGEST_PLACE_S
from whenthen.engine.evaluation.nats_log import nats_shard_loop
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import new_event
from whenthen.triggers import Evaluator, RuleSet

pytestmark = pytest.mark.anyio

BURST: dict[str, Any] = {
    "name": "burst",
    "trigger": {"expect": "started", "for_each": ["id"], "collect": {"wait": "300ms"}},
    "actions": ["do-nothing"],
}
#: moves the clock
OTHER: dict[str, Any] = {
    "name": "other",
    "trigger": {"expect": "other", "threshold": 99, "within": "1h"},
    "actions": ["do-nothing"],
}
RULES = RuleSet.compile([Automation.model_validate(rule) for rule in (BURST, OTHER)])
WINDOW = window_subject(0, RULES.automations["burst"].leaves[0].id, "").rpartition(".")[0] + ".>"


@asynccontextmanager
async def evaluating(bus: Bus) -> AsyncIterator[ShardLoop]:
    loop = nats_shard_loop(bus, 0, Evaluator(RULES))
    task = asyncio.create_task(loop.run())
    await eventually(lambda: loop.ready.is_set() or task.done())
    yield loop
    loop.stop()
    await asyncio.wait_for(task, limit(30))


async def emit(bus: Bus, loop: ShardLoop, name: str) -> None:
    ack = await bus.publish(new_event(name, resource={"id": "a"}, now=datetime.now(UTC), source="test"))
    await eventually(lambda: loop.committed >= ack.seq)


async def messages(bus: Bus, subjects: str) -> list[Stored]:
    return [message async for message in read_stream(bus, ENGINE, subjects)]


async def kept_s(bus: Bus, message: Stored) -> str:
    headers = (await bus.js.get_msg(ENGINE, seq=message.seq)).headers
    return (headers or {})["Nats-TTL"]


async def test_a_window_whose_place_was_lost_fires_no_second_time(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with evaluating(bus) as loop:
        await emit(bus, loop, "started")
        async with asyncio.timeout(limit(20)):
            while not await messages(bus, "engine.firing.>"):
                await asyncio.sleep(0.02)
        await emit(bus, loop, "other")
    (fired,) = await messages(bus, "engine.firing.>")
    (place,) = await messages(bus, WINDOW)
    assert await kept_s(bus, place) == f"{LONGEST_PLACE_S}s"
    await bus.js.delete_msg(ENGINE, place.seq)  # as when its time is over
    assert not await messages(bus, WINDOW)
    nats_server.kill()
    (tmp_path / "nats" / "store" / "jetstream" / "$G" / "streams" / ENGINE / "msgs" / "index.db").unlink(
        missing_ok=True
    )
    nats_server.start()
    async with asyncio.timeout(limit(20)):
        (again,) = await until_answered(lambda: messages(bus, WINDOW), lambda error: None)
    assert again.seq < place.seq, "the server has the open window again"
    async with evaluating(bus) as loop:
        await emit(bus, loop, "other")
    assert [each.seq for each in await messages(bus, "engine.firing.>")] == [fired.seq]
    (deleted,) = await messages(bus, WINDOW)
    assert await kept_s(bus, deleted) == f"{LONGEST_PLACE_S}s"
