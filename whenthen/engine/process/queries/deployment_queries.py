"""Deployments with their schedules, and when these run next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from whenthen.engine.http import Listing, bounded
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.runs import Flag, Stores, pause_flags, schedules
from whenthen.schemas.calendar import next_after
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import NotFound
from whenthen.schemas.times import format_duration, format_time

__all__ = ["DeploymentQueries", "deployment_summary"]


_UPCOMING = 10  #: runs that are shown


class DeploymentQueries:
    def __init__(self, rule_registry: RuleRegistry, stores: Stores, clock: Callable[[], datetime]) -> None:
        self._rule_registry = rule_registry
        self._stores = stores
        self._clock = clock

    async def list_deployments(self, after: str | None) -> Listing[answers.DeploymentSummary]:
        flags = await self._stores.flags.all()
        now = self._clock()
        known = self._rule_registry.current()
        return bounded(list(known), lambda name: deployment_summary(known[name], flags, now), after=after)

    async def get_deployment(self, name: str) -> answers.DeploymentDetail:
        known = self._rule_registry.current()
        found = known.get(name)
        if found is None:
            raise NotFound(f"there is no deployment {name[:200]!r}", word=name, among=known)
        flags, now = await self._stores.flags.all(), self._clock()
        summary = deployment_summary(found, flags, now)
        rule = found.model_dump(mode="json", exclude_none=True)
        if found.expectation is not None:
            rule["expect_completion"] = found.expectation.by or ""
            rule["expect_within"] = (
                "" if found.expectation.within is None else format_duration(found.expectation.within)
            )
        if found.code is not None:
            rule["code"] = found.code.model_dump(exclude_defaults=True)
        schema = await asyncio.to_thread(self._rule_registry.now.rules.entry_schema, name)
        if schema is not None:
            rule["parameter_schema"] = schema
        coming = sorted(
            (format_time(at), schedule.name)
            for schedule in found.schedules
            if not pause_flags.is_paused(found.name, schedule, flags)
            for at in schedules.upcoming(schedule, now, most=_UPCOMING)
        )
        rule["upcoming"] = [{"at": at, "schedule": schedule} for at, schedule in coming[:_UPCOMING]]
        return answers.DeploymentDetail.model_validate({**rule, **summary.model_dump()})


def deployment_summary(deployment: Deployment, flags: Mapping[str, Flag], now: datetime) -> answers.DeploymentSummary:
    """How a deployment stands at `now`. `flags` say what is paused."""
    states = []
    for schedule in deployment.schedules:
        paused = pause_flags.is_paused(deployment.name, schedule, flags)
        following = None if paused else next_after(schedule, now)
        states.append(
            answers.ScheduleState(
                name=schedule.name,
                when=schedule.cron or schedule.rrule or f"every {schedule.interval}",
                timezone=schedule.timezone,
                paused=paused,
                next=None if following is None else format_time(following),
            )
        )
    return answers.DeploymentSummary(
        name=deployment.name,
        runs=" ".join(deployment.command) if deployment.command else deployment.entrypoint,
        work_pool=deployment.work_pool,
        schedules=states,
        tags=deployment.tags,
        description=deployment.description,
    )
