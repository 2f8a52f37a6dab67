"""Pausing, resuming and running deployments; halting, resuming, ending and deleting runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from whenthen.engine.audit import CALLER
from whenthen.engine.http import RunRequest
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.deployment_queries import DeploymentQueries
from whenthen.engine.process.queries.moments import time_range
from whenthen.engine.process.queries.run_queries import RunQueries, flow_run_detail
from whenthen.runs import BuiltInOrchestrator, schedules
from whenthen.schemas.errors import Conflict
from whenthen.schemas.times import format_time, from_us
from whenthen.schemas.trace_context import child_trace

__all__ = ["RunCommands"]


_SHOWN = 20  #: times of a backfill


class RunCommands:
    def __init__(
        self,
        orchestrator: BuiltInOrchestrator,
        deployments: DeploymentQueries,
        runs: RunQueries,
        ids: IdPrefixes,
        clock: Callable[[], datetime],
    ) -> None:
        self._clock = clock
        self._backfills = schedules.Backfills(orchestrator, clock=clock)
        self._orchestrator = orchestrator
        self._deployments = deployments
        self._runs = runs
        self._ids = ids

    async def pause_deployment(self, name: str, schedule: str | None) -> answers.DeploymentDetail:
        if schedule is None:
            await self._orchestrator.pause_deployment(name)
        else:
            await self._orchestrator.pause_schedule(name, schedule)
        return await self._deployments.get_deployment(name)

    async def resume_deployment(self, name: str, schedule: str | None) -> answers.DeploymentDetail:
        if schedule is None:
            await self._orchestrator.resume_deployment(name)
        else:
            await self._orchestrator.resume_schedule(name, schedule)
        return await self._deployments.get_deployment(name)

    async def run_deployment(
        self, name: str, request: RunRequest, trace: dict[str, str] | None
    ) -> answers.FlowRunDetail:
        key = request.key or f"api/{uuid4()}"
        run = await self._orchestrator.run_deployment(
            name,
            request.parameters,
            key=key,
            delay=timedelta(seconds=request.delay),
            trace=None if trace is None else child_trace(trace, key),
            triggered_by="api",
        )
        return flow_run_detail(run)

    async def plan_backfill(self, name: str, schedule: str | None, since: str, until: str) -> answers.BackfillState:
        """What a backfill would start."""
        return _backfill(await self._planned(name, schedule, since, until))

    async def start_backfill(
        self, name: str, schedule: str | None, since: str, until: str, expected: int | None
    ) -> answers.BackfillState:
        """Start it, if it is of as many runs as are expected. Raises `Conflict`."""
        planned = await self._planned(name, schedule, since, until)
        if expected is not None and planned.span.count != expected:
            raise Conflict(
                f"the backfill is of {planned.span.count} runs by now, and not of {expected}; look at it again"
            )
        started, there = await self._backfills.start(planned)
        return _backfill(planned).model_copy(update={"started": started, "there_before": there})

    async def _planned(self, name: str, schedule: str | None, since: str, until: str) -> schedules.Backfill:
        now = self._clock()
        start_us, end_us = time_range({"since": since, "until": until}, now)
        assert start_us is not None
        assert end_us is not None
        return await self._backfills.plan(name, schedule, from_us(start_us), from_us(end_us))

    async def retry_run(self, run_id: str) -> answers.FlowRunDetail:
        """One run is retried once: asked for again, the run of the first time is the answer."""
        run_id = await self._ids.run(run_id)
        return flow_run_detail(await self._orchestrator.retry_flow_run(run_id, key=f"retry/{run_id}"))

    async def cancel_run(self, run_id: str) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        await self._orchestrator.cancel_flow_run(run_id)
        return await self._runs.get_run(run_id)

    async def resume_run(self, run_id: str, given: Any, since: str | None) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        resumed = await self._orchestrator.resume_flow_run(run_id, given, by=CALLER.get(), since=since)
        return flow_run_detail(resumed)

    async def pause_run(self, run_id: str) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        return flow_run_detail(await self._orchestrator.pause_flow_run(run_id, by=CALLER.get()))

    async def suspend_run(self, run_id: str, lasts: timedelta | None) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        timeout_s = None if lasts is None else lasts.total_seconds()
        run = await self._orchestrator.suspend_flow_run(run_id, timeout_s=timeout_s, by=CALLER.get())
        return flow_run_detail(run)

    async def change_run_state(self, run_id: str, state: str, message: str) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        await self._orchestrator.change_flow_run_state(run_id, state, message=message, by=CALLER.get())
        return await self._runs.get_run(run_id)

    async def delete_run(self, run_id: str) -> answers.FlowRunDetail:
        return flow_run_detail(await self._orchestrator.delete_flow_run(await self._ids.run(run_id)))


def _backfill(planned: schedules.Backfill) -> answers.BackfillState:
    times = planned.span.times
    return answers.BackfillState(
        deployment=planned.deployment.name,
        schedule=planned.schedule.name,
        parameters={**planned.deployment.parameters, **planned.schedule.parameters},
        count=planned.span.count,
        times=[format_time(at) for at in times[:_SHOWN]],
        last=format_time(times[-1]) if times else None,
    )
