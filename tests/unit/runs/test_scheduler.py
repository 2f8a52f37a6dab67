"""Which runs schedules ask for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.deployment_set import DeploymentSet
from whenthen.runs.limits.pause_flags import is_paused
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.schedules.scheduler import Scheduler
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import Deployment, RunState, Schedule

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.now = NOON + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now


class House:
    def __init__(self, **schedule: object) -> None:
        self.clock = Clock()
        self.stores: Stores = memory_stores()
        self.deployments = DeploymentSet()
        self.orchestrator = BuiltInOrchestrator(self.stores, self.deployments, clock=self.clock)
        self.edit(**schedule)

    def edit(self, **schedule: object) -> None:
        self.deployments.replace([Deployment(name="d", command=["true"], schedules=[Schedule(**schedule)])])

    def scheduler(self) -> Scheduler:
        return Scheduler(self.stores, self.deployments, self.orchestrator, clock=self.clock)

    async def at(self, now: datetime) -> None:
        self.clock.now = now
        await asyncio.gather(self.scheduler().step(), self.scheduler().step())

    async def runs(self) -> list[tuple[str, RunState]]:
        runs = [stored.run for stored in await self.stores.runs.list(limit=1000)]
        return sorted((run.scheduled_for[11:16], run.state) for run in runs)

    async def paused(self) -> bool:
        (schedule,) = self.deployments.current()["d"].schedules
        return is_paused("d", schedule, await self.stores.flags.all())


async def test_each_time_makes_one_run_with_two_schedulers_that_restart_all_the_time() -> None:
    house = House(cron="* * * * *", parameters={"day": 1})
    for second in range(0, 200, 5):
        await house.at(NOON + timedelta(seconds=second + 1))
    assert await house.runs() == [(f"12:0{minute}", RunState.SCHEDULED) for minute in (1, 2, 3)]
    run = (await house.stores.runs.list())[0].run
    assert (run.parameters, run.triggered_by) == ({"day": 1}, "schedule:default")
    assert run.key == "schedule/d/default/2026-03-01T12:03:00.000000Z"


async def test_of_missed_times_the_latest_is_made_up_for_once_and_late() -> None:
    house = House(cron="*/10 * * * *")
    await house.at(NOON)
    await house.at(NOON + 35 * MINUTE)
    await house.at(NOON + 36 * MINUTE)
    assert await house.runs() == [("12:30", RunState.LATE)]


async def test_what_was_missed_longer_ago_than_the_grace_period_is_left_out() -> None:
    house = House(cron="0 0 * * *")
    await house.at(NOON)
    await house.at(NOON + timedelta(hours=20))
    assert await house.runs() == []


async def test_a_paused_schedule_makes_no_runs_and_does_not_make_up_for_them() -> None:
    house = House(cron="* * * * *")
    await house.at(NOON)
    await house.orchestrator.pause_deployment("d")
    await house.at(NOON + 5 * MINUTE)
    await house.orchestrator.resume_schedule("d", "default")
    await house.at(NOON + 5 * MINUTE + timedelta(seconds=5))
    assert await house.runs() == []
    await house.at(NOON + 6 * MINUTE)
    assert await house.runs() == [("12:06", RunState.SCHEDULED)]


async def test_what_is_said_last_about_a_schedule_counts() -> None:
    house = House(cron="* * * * *", active=False)
    assert await house.paused()
    for step, (change, paused) in enumerate(
        [
            (house.orchestrator.resume_deployment("d"), False),
            (house.orchestrator.pause_schedule("d", "default"), True),
            (house.orchestrator.resume_deployment("d"), False),
        ]
    ):
        house.clock.now = NOON + step * MINUTE
        await change
        assert await house.paused() is paused


async def test_an_edited_schedule_begins_when_it_is_first_seen() -> None:
    house = House(cron="0 * * * *")
    await house.at(NOON + MINUTE)
    house.edit(cron="*/15 * * * *")
    await house.at(NOON + 50 * MINUTE)
    assert await house.runs() == []
    await house.at(NOON + 60 * MINUTE)
    assert await house.runs() == [("13:00", RunState.SCHEDULED)]


def test_a_schedule_whose_runs_have_too_large_parameters_is_refused_with_its_size() -> None:
    large = {"name": "large", "interval": "1m", "parameters": {"b": "x" * 200_000}}
    with pytest.raises(
        ValueError, match="schedule 'large': the parameters of its runs are 300015 bytes as JSON; at most 262144"
    ):
        Deployment.model_validate(
            {"name": "d", "command": "true", "parameters": {"a": "x" * 100_000}, "schedules": [large]}
        )
    with pytest.raises(ValueError, match="`parameters` are 300008 bytes"):
        Deployment.model_validate({"name": "d", "command": "true", "parameters": {"a": "x" * 300_000}})


async def test_a_schedule_whose_run_is_refused_starves_no_other(caplog: pytest.LogCaptureFixture) -> None:
    house = House(interval=MINUTE)
    deployment = next(iter(house.deployments.current().values()))
    # as in rules of an earlier version, which did not look at it
    bad = deployment.schedules[0].model_copy(update={"name": "bad", "parameters": {"b": "x" * 300_000}})
    both = deployment.model_copy(update={"schedules": [bad, *deployment.schedules]})
    house.deployments.replace([both])
    scheduler = Scheduler(house.stores, house.deployments, house.orchestrator, clock=house.clock)
    await scheduler.step()
    house.clock.now += MINUTE
    await scheduler.step()
    page = await house.stores.runs.list()
    assert [stored.run.triggered_by for stored in page] == [f"schedule:{deployment.schedules[0].name}"]
    assert "schedule " in caplog.text
    assert "is refused and left out: " in caplog.text
