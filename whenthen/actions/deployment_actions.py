"""Actions on deployments, their schedules and their work pools, through the `Orchestrator` port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whenthen.actions.attempts import ActionResult, Call, automation_id, lineage, links
from whenthen.actions.fields import Field, compile_object_field, compile_optional_text, compile_text_field
from whenthen.actions.implied_targets import (
    DEPLOYMENT_PREFIX,
    FLOW_RUN_PREFIX,
    WORK_POOL_PREFIX,
    deployment_of,
    work_pool_of,
)
from whenthen.schemas.actions import (
    PauseDeployment,
    PauseSchedule,
    PauseWorkPool,
    ResumeDeployment,
    ResumeSchedule,
    ResumeWorkPool,
    RunDeployment,
)

__all__ = [
    "DeploymentHandler",
    "RunDeploymentHandler",
    "ScheduleHandler",
    "WorkPoolHandler",
]


@dataclass(frozen=True, slots=True)
class RunDeploymentHandler:
    """run-deployment: one run for one key, carrying the lineage."""

    action: RunDeployment
    deployment: Field[str] | None
    parameters: Field[dict[str, Any]]

    @classmethod
    def compile(cls, action: RunDeployment) -> RunDeploymentHandler:
        deployment = compile_optional_text(action.deployment, "deployment")
        return cls(action, deployment, compile_object_field(action.parameters, "parameters"))

    async def run(self, call: Call) -> ActionResult:
        name, parameters = _deployment(self.deployment, call), self.parameters.render(call)
        automation = call.firing.automation
        call.record.sends(deployment=name, parameters=parameters)
        run = await call.ports.orchestrator.run_deployment(
            name,
            parameters,
            key=call.key,
            delay=self.action.delay,
            lineage=lineage(call.firing),
            trace=call.trace,
            related=[
                {"id": automation_id(automation), "role": "automation", "name": automation},
                *links(call.firing, call.event),
            ],
            triggered_by=f"automation:{automation}",
        )
        return ActionResult(
            details={"flow_run": run.id, "deployment": run.deployment, "link": run.link},
            related=({"id": FLOW_RUN_PREFIX + run.id, "role": "flow-run"}, _link(run.deployment)),
        )


@dataclass(frozen=True, slots=True)
class DeploymentHandler:
    """pause-deployment, resume-deployment: all schedules of a deployment."""

    pause: bool
    deployment: Field[str] | None

    @classmethod
    def compile(cls, action: PauseDeployment | ResumeDeployment) -> DeploymentHandler:
        return cls(isinstance(action, PauseDeployment), compile_optional_text(action.deployment, "deployment"))

    async def run(self, call: Call) -> ActionResult:
        name = _deployment(self.deployment, call)
        orchestrator = call.ports.orchestrator
        await (orchestrator.pause_deployment if self.pause else orchestrator.resume_deployment)(name)
        return ActionResult(details={"deployment": name}, related=(_link(name),))


@dataclass(frozen=True, slots=True)
class ScheduleHandler:
    """pause-schedule, resume-schedule: one schedule of a deployment."""

    pause: bool
    deployment: Field[str] | None
    schedule: Field[str]

    @classmethod
    def compile(cls, action: PauseSchedule | ResumeSchedule) -> ScheduleHandler:
        return cls(
            isinstance(action, PauseSchedule),
            compile_optional_text(action.deployment, "deployment"),
            compile_text_field(action.schedule, "schedule"),
        )

    async def run(self, call: Call) -> ActionResult:
        name = _deployment(self.deployment, call)
        schedule = self.schedule.render(call)
        orchestrator = call.ports.orchestrator
        await (orchestrator.pause_schedule if self.pause else orchestrator.resume_schedule)(name, schedule)
        return ActionResult(details={"deployment": name, "schedule": schedule}, related=(_link(name),))


@dataclass(frozen=True, slots=True)
class WorkPoolHandler:
    """pause-work-pool, resume-work-pool."""

    pause: bool
    work_pool: Field[str] | None

    @classmethod
    def compile(cls, action: PauseWorkPool | ResumeWorkPool) -> WorkPoolHandler:
        return cls(isinstance(action, PauseWorkPool), compile_optional_text(action.work_pool, "work_pool"))

    async def run(self, call: Call) -> ActionResult:
        name = work_pool_of(call.event) if self.work_pool is None else self.work_pool.render(call)
        orchestrator = call.ports.orchestrator
        await (orchestrator.pause_work_pool if self.pause else orchestrator.resume_work_pool)(name)
        related = {"id": WORK_POOL_PREFIX + name, "role": "work-pool", "name": name}
        return ActionResult(details={"work_pool": name}, related=(related,))


def _deployment(field: Field[str] | None, call: Call) -> str:
    return deployment_of(call.event) if field is None else field.render(call)


def _link(name: str) -> dict[str, str]:
    return {"id": DEPLOYMENT_PREFIX + name, "role": "deployment", "name": name}
