"""Times that are made up for, and backfills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.deployment_set import DeploymentSet
from whenthen.runs.memory_stores import memory_stores
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.schedules import Backfills
from whenthen.runs.schedules.past_times import MOST_CAUGHT_UP, missed, span_of
from whenthen.schemas.deployments import Deployment, RunState, Schedule
from whenthen.schemas.errors import InvalidInput, NotFound

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATE = timedelta(seconds=30)
DAY = timedelta(days=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def times(schedule: dict[str, Any], since: datetime, now: datetime = NOON) -> tuple[list[str], list[str]]:
    fresh, old = missed(Schedule.model_validate(schedule), since, now, late_after=LATE)
    return [f"{at:%d %H:%M:%S}" for at in fresh], [f"{at:%d %H:%M:%S}" for at in old]


@pytest.mark.parametrize(
    ("fields", "fresh", "old"),
    [
        ({"catch_up": "none"}, ["01 12:00:00"], []),
        ({"catch_up": "last"}, ["01 12:00:00"], []),
        ({"catch_up": "all"}, ["01 12:00:00"], ["01 11:30:00"]),
        ({"catch_up": "all", "catch_up_within": "2h"}, ["01 12:00:00"], ["01 10:30:00", "01 11:00:00", "01 11:30:00"]),
    ],
)
def test_what_is_in_time_and_what_is_made_up_for(fields: dict[str, Any], fresh: list[str], old: list[str]) -> None:
    assert times({"cron": "*/30 * * * *", **fields}, NOON - DAY) == (fresh, old)


def test_the_last_of_very_many_times_is_found_without_walking_through_them_all() -> None:
    schedule = {"interval": "1s", "anchor": "2026-01-01T00:00:00Z", "catch_up_within": "30d", "catch_up": "all"}
    fresh, old = times(schedule, NOON - 29 * DAY)
    assert len(fresh) + len(old) == MOST_CAUGHT_UP
    assert fresh[-1] == "01 12:00:00"
    yearly = {"cron": "0 0 20 2 *", "catch_up": "last", "catch_up_within": "30d"}
    assert times(yearly, NOON - 29 * DAY) == ([], ["20 00:00:00"])


def test_more_than_thirty_days_are_for_a_backfill() -> None:
    with pytest.raises(ValueError, match="whenthen deployments backfill"):
        Schedule.model_validate({"interval": "1d", "catch_up_within": "31d"})


@pytest.mark.takes(0.7)
def test_the_times_of_a_span_are_counted_or_estimated() -> None:
    cron = Schedule.model_validate({"cron": "0 * * * *"})
    span = span_of(cron, NOON - DAY, NOON, most=1000)
    assert (span.count, span.times[0], span.exact) == (24, NOON - DAY, True)
    two_years = span_of(Schedule.model_validate({"cron": "* * * * *"}), NOON - 730 * DAY, NOON, most=10)
    assert (two_years.exact, len(two_years.times)) == (False, 10)
    assert abs(two_years.count - 730 * 24 * 60) < 10_000


class House:
    def __init__(self, **schedules: Any) -> None:
        self.stores = memory_stores()
        made = [Schedule.model_validate({"name": name, **fields}) for name, fields in schedules.items()]
        deployments = DeploymentSet([Deployment(name="d", command=["true"], parameters={"a": 1}, schedules=made)])
        self.orchestrator = BuiltInOrchestrator(self.stores, deployments, clock=lambda: NOON)
        self.backfills = Backfills(self.orchestrator, clock=lambda: NOON)


async def test_a_backfill_starts_each_time_once() -> None:
    house = House(daily={"cron": "0 6 * * *", "parameters": {"b": 2}})
    planned = await house.backfills.plan("d", None, NOON - 3 * DAY, NOON)
    assert planned.span.count == 3
    assert await house.stores.runs.list() == []
    assert await house.backfills.start(planned) == (3, 0)
    wider = await house.backfills.plan("d", "daily", NOON - 4 * DAY, NOON)
    assert await house.backfills.start(wider) == (1, 3)
    runs = [stored.run for stored in await house.stores.runs.list()]
    assert {run.scheduled_for[:16] for run in runs} == {
        f"2026-{day}T06:00" for day in ("02-26", "02-27", "02-28", "03-01")
    }
    assert {run.state for run in runs} == {RunState.SCHEDULED}
    assert (runs[0].parameters, runs[0].triggered_by) == ({"a": 1, "b": 2}, "backfill:daily")


@pytest.mark.takes(0.8)
@pytest.mark.parametrize(
    ("since", "until", "schedule", "message"),
    [
        (NOON - 730 * DAY, NOON, "minutely", r"about 1,051,\d\d\d times .* at most 1,000 runs"),
        (NOON - 2 * DAY, NOON, "minutely", "2,880 times"),
        (NOON, NOON, "minutely", "not before the end"),
        (NOON - DAY, NOON + DAY, "minutely", "in the future"),
        (NOON - DAY, NOON, None, "has 2 schedules \\(minutely, daily\\); say which"),
        (NOON - DAY, NOON, "dayly", "did you mean 'daily'"),
    ],
)
async def test_a_backfill_that_can_not_be_meant_starts_nothing(
    since: datetime, until: datetime, schedule: str | None, message: str
) -> None:
    house = House(minutely={"cron": "* * * * *"}, daily={"cron": "0 6 * * *"})
    with pytest.raises((InvalidInput, NotFound), match=message):
        await house.backfills.plan("d", schedule, since, until)
    assert await house.stores.runs.list() == []
