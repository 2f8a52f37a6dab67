"""Pausing, resuming and running deployments; cancelling runs."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from whenthen.engine.http import RunRequest
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.deployment_queries import DeploymentQueries
from whenthen.engine.process.queries.run_queries import RunQueries, flow_run_detail
from whenthen.runs import BuiltInOrchestrator
from whenthen.schemas.trace_context import child_trace

__all__ = ["RunCommands"]


class RunCommands:
    def __init__(
        self,
        orchestrator: BuiltInOrchestrator,
        deployments: DeploymentQueries,
        runs: RunQueries,
        ids: IdPrefixes,
    ) -> None:
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

    async def cancel_run(self, run_id: str) -> answers.FlowRunDetail:
        run_id = await self._ids.run(run_id)
        await self._orchestrator.cancel_flow_run(run_id)
        return await self._runs.get_run(run_id)
