"""Tries of an action that no projector saw are in the history once one runs: the events of the failed ones tell of them."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from tests.integration.conftest import NatsServer, bus, nats_server
from tests.integration.engine.projection.test_projection import projecting
from tests.integration.test_execution import ask, emptied, executing, firing, task
from tests.patience import until
from tests.postgres import postgres
from whenthen.actions import ActionResult
from whenthen.actions.outcome_events import executed_event, failed_event
from whenthen.actions.secrets import Redactor
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_pages import newest
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.execution.dead_letters import DeadLetters
from whenthen.history import Database, HistoryReader
from whenthen.history.history_tables import tallies, tries
from whenthen.schemas.errors import ActionError
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(15)]

FIRING = "0123456789abcdef0123456789abcdef"
ACTION = f"{FIRING}.0"


async def perform(one: ActionTask) -> ActionResult:
    if one.attempt <= 5:
        raise ActionError(f"HTTP 50{one.attempt}")
    return ActionResult(details={"status": 200})


def describe(one: ActionTask, result: Any, duration: timedelta, retry_in: timedelta | None) -> Event:
    now, redactor = datetime.now(UTC), Redactor()
    if isinstance(result, ActionError):
        return failed_event(one, result, now=now, duration=duration, redactor=redactor, retry_in=retry_in)
    return executed_event(one, result, now=now, duration=duration, redactor=redactor)


async def fail_five_times_and_be_done(bus: Bus) -> list[tuple[int, str, str, str]]:
    """Gives the tries, as the events tell of them."""
    letters = DeadLetters(bus.client)
    await ask(bus, task(FIRING, retry={"attempts": 5, "delay": "10ms", "jitter": 0}, of=firing(FIRING)))
    async with executing(bus, perform, describe=describe):
        await until(letters.letters)
        await letters.redrive(ACTION)
        await until(lambda: told(bus, 6))
        await emptied(bus)
    return sorted(
        (
            each["payload"]["attempt"],
            "executed" if "final" not in each["payload"] else "dead" if each["payload"]["final"] else "retrying",
            each["occurred"],
            each["payload"].get("message", ""),
        )
        for each in await told(bus, 6)
    )


async def told(bus: Bus, count: int) -> list[dict[str, Any]]:
    """The events of the action's tries, once there are so many."""
    found = await newest(bus.client, EVENTS, "events.>", limit=100, pick=lambda kept: orjson.loads(kept.data))
    return list(found) if len(found) == count else []


def everything(database: Database) -> tuple[list[Any], list[Any]]:
    with database.reading() as connection:
        rows = sorted(map(tuple, connection.execute(sa.select(tries))))
        return rows, sorted(map(tuple, connection.execute(sa.select(tallies).where(tallies.c.kind == "actions"))))


async def listed(database: Database, expected: list[tuple[int, str, str, str]]) -> None:
    """Wait until the history has these tries."""

    async def there() -> bool:
        found = await asyncio.to_thread(HistoryReader(database).tries, ACTION)
        return [(each["attempt"], each["state"], each["at"], each["error"]) for each in found] == expected

    await until(there, what=f"the tries {expected}")


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.requires("postgresql"))])
@pytest.mark.takes(20)
async def test_a_projector_that_starts_afterwards_lists_each_try_and_a_second_one_doubles_none(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, kind: str
) -> None:
    expected = await fail_five_times_and_be_done(bus)
    assert [each[:2] for each in expected] == [*((n, "retrying") for n in range(1, 5)), (5, "dead"), (6, "executed")]
    assert [each[3] for each in expected] == [*(f"HTTP 50{n}" for n in range(1, 6)), ""]
    with contextlib.ExitStack() as cleanup:
        where: list[Path | str] = [tmp_path / "first.db", tmp_path / "second.db"]
        if kind == "postgresql":
            cluster = cleanup.enter_context(postgres())
            where = [cluster.database("first"), cluster.database("second")]
        first, beside, second = (
            cleanup.enter_context(contextlib.closing(Database(each))) for each in (where[0], where[0], where[1])
        )
        async with projecting(bus, first), projecting(bus, beside):
            await listed(first, expected)
        async with projecting(bus, second):  # the first one is lost
            await listed(second, expected)
        assert everything(second) == everything(first)
        assert sum(row[-1] for row in everything(first)[1] if row[1] == 0) == 6
