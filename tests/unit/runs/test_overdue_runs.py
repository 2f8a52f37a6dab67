"""Runs that should have ended within a time of their start."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.deployment_set import DeploymentSet
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.run_states import new_run, transition
from whenthen.runs.schedules import OverdueRuns
from whenthen.runs.stores import Stored
from whenthen.schemas.deployments import Deployment, RunState
from whenthen.schemas.events import Event

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class House:
    def __init__(self, expected: Any) -> None:
        self.now = NOON
        self.stores = memory_stores()
        self.deployments = DeploymentSet([Deployment(name="d", command=["true"], expect_completion=expected)])
        self.published: list[Event] = []

    async def publish(self, event: Event) -> None:
        self.published.append(event)

    async def at(self, hours: float) -> set[str]:
        """The ids of what two processes publish."""
        self.now = NOON + hours * HOUR
        watches = [OverdueRuns(self.stores, self.deployments, self.publish, clock=lambda: self.now) for _ in range(2)]
        for watch in watches:
            await watch.look()
        found = await asyncio.gather(*(watch.step() for watch in watches))
        return {event.id for events in found for event in events}

    async def begun(self, key: str, hours: float = 0) -> Stored:
        run = new_run(self.deployments.current()["d"], key=key, parameters={}, now=NOON)
        stored = await self.stores.runs.create(run)
        return await self.enters(stored, hours, RunState.PENDING, RunState.RUNNING)

    async def enters(self, stored: Stored, hours: float, *states: RunState) -> Stored:
        for state in states:
            changed = transition(stored.run, state, NOON + hours * HOUR)
            stored = await self.stores.runs.update(changed, stored.version)
        return stored


async def test_a_run_that_goes_on_too_long_is_one_event() -> None:
    house = House({"within": "2h"})
    await house.at(0)
    run = await house.begun("a")
    assert await house.at(1.9) == set()
    assert len(await house.at(2)) == 1
    event = house.published[0]
    assert event.name == "deployment.late"
    assert event.payload["flow_run"] == run.run.id
    assert (event.payload["expected_by"][:16], event.payload["state"]) == ("2026-03-01T14:00", "Running")
    assert {"id": f"whenthen.flow-run.{run.run.id}", "role": "flow-run"}.items() <= event.related[0].items()
    assert await house.at(3) == set()


async def test_the_time_counts_from_the_first_attempt_and_while_it_waits_for_somebody() -> None:
    house = House({"within": "2h"})
    await house.at(0)
    run = await house.begun("a")
    await house.enters(
        run, 1, RunState.RETRYING, RunState.PENDING, RunState.RUNNING, RunState.PAUSED, RunState.SUSPENDED
    )
    assert len(await house.at(2.5)) == 1
    assert house.published[0].payload["state"] == "Suspended"


async def test_what_ended_in_time_and_what_was_over_before_anybody_asked_is_not_late() -> None:
    house = House({"within": "2h"})
    ended = await house.begun("a")
    await house.enters(ended, 1, RunState.FAILED)
    await house.begun("b")
    assert await house.at(5) == set()
    assert await house.at(6) == set()


async def test_a_process_that_has_not_read_the_runs_yet_passes_none() -> None:
    house = House({"within": "2h"})
    await house.at(0)
    await house.begun("a")
    house.now = NOON + 3 * HOUR
    assert await OverdueRuns(house.stores, house.deployments, house.publish, clock=lambda: house.now).step() == []
    assert len(await house.at(3)) == 1


def test_an_expectation_says_something() -> None:
    both = Deployment(name="d", command=["true"], expect_completion={"by": "06:00 Europe/Paris", "within": "2h"})
    assert both.expectation is not None
    assert both.expectation.times is not None
    for wrong in ({}, {"within": "0s"}, {"by": "25:00"}, {"within": "2h", "b": "06:00"}):
        with pytest.raises(ValueError, match=r"nothing is expected|time of the day|Extra inputs|extra"):
            Deployment(name="d", command=["true"], expect_completion=wrong)
