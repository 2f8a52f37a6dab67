"""Events that name a predecessor, against a real server: across a restart, and when the rules did not ask for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.conftest import eventually
from tests.integration.test_evaluation import ids, running
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.evaluation.nats_log import nats_shard_loop
from whenthen.engine.evaluation.recent_ids import recent_ids
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

pytestmark = pytest.mark.anyio

RULE = Automation.model_validate({"name": "shipped", "trigger": {"expect": "order.shipped"}})


def event(name: str, id: str, follows: str | None = None) -> Event:
    return new_event(name, id=id, follows=follows, resource={"id": "o"}, now=datetime.now(UTC), source="test")


def shard(bus: Bus) -> ShardLoop:
    return nats_shard_loop(bus, 0, Evaluator(RuleSet.compile([RULE]), follows_wait=timedelta(hours=1)))


async def firings(bus: Bus, wanted: int) -> None:
    """Wait until there are as many firings as that."""
    async with asyncio.timeout(limit(20)):
        while len(await ids(bus, "firing")) != wanted:
            await asyncio.sleep(0.02)


async def test_a_predecessor_that_no_rule_asks_for_is_known(bus: Bus) -> None:
    async with running(shard(bus)) as _:
        await bus.publish(event("order.created", "odd id % 1"))
        await bus.publish(event("order.shipped", "s-1", follows="odd id % 1"))
        await firings(bus, 1)


async def test_a_predecessor_from_before_a_restart_is_known(bus: Bus) -> None:
    first = shard(bus)
    async with running(first):
        ack = await bus.publish(event("order.shipped", "s-1"))
        await eventually(lambda: first.committed >= ack.seq)
    async with running(shard(bus)):
        await bus.publish(event("order.shipped", "s-2", follows="s-1"))
        await firings(bus, 2)


async def test_a_follower_waits_for_what_has_not_come(bus: Bus) -> None:
    loop = shard(bus)
    async with running(loop):
        ack = await bus.publish(event("order.shipped", "s-2", follows="c-1"))
        await eventually(lambda: loop.committed >= ack.seq)
        assert await ids(bus, "firing") == []
        await bus.publish(event("order.created", "c-1"))
        await firings(bus, 1)


async def test_recent_ids_end_before_the_given_position(bus: Bus) -> None:
    for number in range(12):
        ack = await bus.publish(event("x", f"e-{number}"))
    found = await recent_ids(bus.client, since_us=0, before=ack.seq)
    assert [name for name, _ in found] == [f"e-{number}" for number in range(11)]
