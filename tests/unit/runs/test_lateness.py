"""Deployments that should have completed by a time of the day."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.deployment_set import DeploymentSet
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.run_states import new_run, transition
from whenthen.runs.schedules import LatenessWatch
from whenthen.schemas.deployments import Deployment, RunState
from whenthen.schemas.events import Event

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DUE = datetime(2026, 3, 2, 5, tzinfo=UTC)  #: 06:00 in Paris


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class House:
    def __init__(self, **fields: Any) -> None:
        self.now = NOON
        self.stores = memory_stores()
        self.deployments = DeploymentSet()
        self.edit(**{"expect_completion": "06:00 Europe/Paris", **fields})
        self.published: list[Event] = []

    def edit(self, **fields: Any) -> None:
        self.deployments.replace([Deployment(name="d", command=["true"], **fields)])

    async def publish(self, event: Event) -> None:
        self.published.append(event)

    def watch(self) -> LatenessWatch:
        return LatenessWatch(self.stores, self.deployments, self.publish, clock=lambda: self.now)

    async def at(self, now: datetime) -> set[str]:
        """The ids of what two processes publish."""
        self.now = now
        found = await asyncio.gather(self.watch().step(), self.watch().step())
        return {event.id for events in found for event in events}

    async def ran(self, ended: datetime, *states: RunState) -> None:
        run = new_run(self.deployments.current()["d"], key=f"{ended}", parameters={}, now=ended)
        stored = await self.stores.runs.create(run)
        for state in (RunState.PENDING, RunState.RUNNING, *states):
            stored = await self.stores.runs.update(transition(stored.run, state, ended), stored.version)


async def test_a_day_without_a_completed_run_is_one_event() -> None:
    house = House(tags=["nightly"])
    assert await house.at(NOON) == set()
    assert await house.at(DUE - HOUR) == set()
    assert len(await house.at(DUE)) == 1
    assert await house.at(DUE + HOUR) == set()
    event = house.published[0]
    assert (event.name, event.resource["id"]) == ("deployment.late", "whenthen.deployment.d")
    assert event.payload == {
        "deployment": "d",
        "expected_by": "2026-03-02T05:00:00.000000Z",
        "since": "2026-03-01T05:00:00.000000Z",
    }
    assert len(await house.at(DUE + timedelta(days=2))) == 1  # of two that passed unseen the last


@pytest.mark.parametrize(
    ("ended", "states", "late"),
    [
        (DUE - HOUR, [RunState.COMPLETED], 0),
        (DUE, [RunState.COMPLETED], 0),
        (DUE + timedelta(seconds=1), [RunState.COMPLETED], 1),
        (DUE - timedelta(days=1), [RunState.COMPLETED], 1),
        (DUE - HOUR, [RunState.FAILED], 1),
        (DUE - HOUR, [], 1),
    ],
)
async def test_only_a_run_that_completed_since_the_day_before_counts(
    ended: datetime, states: list[RunState], late: int
) -> None:
    house = House()
    await house.at(NOON)
    await house.ran(ended, *states)
    assert len(await house.at(DUE + timedelta(seconds=2))) == late


async def test_what_was_due_before_it_was_expected_is_not_missed() -> None:
    house = House(expect_completion="11:00")
    await house.at(NOON)
    house.edit(expect_completion="11:30")
    assert await house.at(NOON + timedelta(minutes=1)) == set()
    assert len(await house.at(NOON + 24 * HOUR)) == 1


@pytest.mark.parametrize("text", ["6", "25:00", "06:60", "06:00 Europe/Pari", "daily"])
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time of the day|time zone"):
        Deployment(name="d", command=["true"], expect_completion=text)
