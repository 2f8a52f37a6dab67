"""Actions that repeat flow runs, halt them, let them go on, end them or forget them, through the `Orchestrator` port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whenthen.actions.attempts import ActionResult, Call
from whenthen.actions.fields import Field, compile_object_field, compile_optional_text, compile_text_field
from whenthen.actions.implied_targets import DEPLOYMENT_PREFIX, FLOW_RUN_PREFIX, flow_run_of
from whenthen.schemas.actions import (
    CancelFlowRun,
    ChangeFlowRunState,
    DeleteFlowRun,
    ResumeFlowRun,
    RetryFlowRun,
    SuspendFlowRun,
)
from whenthen.schemas.errors import NotFound

__all__ = [
    "CancelFlowRunHandler",
    "ChangeFlowRunStateHandler",
    "DeleteFlowRunHandler",
    "ResumeFlowRunHandler",
    "RetryFlowRunHandler",
    "SuspendFlowRunHandler",
]


@dataclass(frozen=True, slots=True)
class RetryFlowRunHandler:
    """retry-flow-run: one new run for one key."""

    flow_run: Field[str] | None

    @classmethod
    def compile(cls, action: RetryFlowRun) -> RetryFlowRunHandler:
        return cls(compile_optional_text(action.flow_run, "flow_run"))

    async def run(self, call: Call) -> ActionResult:
        run_id = _run_id(self.flow_run, call)
        triggered_by = f"automation:{call.firing.automation}"
        run = await call.ports.orchestrator.retry_flow_run(run_id, key=call.key, triggered_by=triggered_by)
        deployment = {"id": DEPLOYMENT_PREFIX + run.deployment, "role": "deployment", "name": run.deployment}
        return _result(run.id, deployment, retried=run_id, link=run.link)


@dataclass(frozen=True, slots=True)
class CancelFlowRunHandler:
    """cancel-flow-run."""

    flow_run: Field[str] | None

    @classmethod
    def compile(cls, action: CancelFlowRun) -> CancelFlowRunHandler:
        return cls(compile_optional_text(action.flow_run, "flow_run"))

    async def run(self, call: Call) -> ActionResult:
        run_id = _run_id(self.flow_run, call)
        await call.ports.orchestrator.cancel_flow_run(run_id)
        return _result(run_id)


@dataclass(frozen=True, slots=True)
class SuspendFlowRunHandler:
    """suspend-flow-run."""

    action: SuspendFlowRun
    flow_run: Field[str] | None

    @classmethod
    def compile(cls, action: SuspendFlowRun) -> SuspendFlowRunHandler:
        return cls(action, compile_optional_text(action.flow_run, "flow_run"))

    async def run(self, call: Call) -> ActionResult:
        run_id = _run_id(self.flow_run, call)
        timeout_s = None if self.action.lasts is None else self.action.lasts.total_seconds()
        run = await call.ports.orchestrator.suspend_flow_run(run_id, timeout_s=timeout_s, by=_by(call))
        return _result(run_id, state=str(run.state))


@dataclass(frozen=True, slots=True)
class ResumeFlowRunHandler:
    """resume-flow-run: once for one key."""

    flow_run: Field[str] | None
    given: Field[dict[str, Any]] | None

    @classmethod
    def compile(cls, action: ResumeFlowRun) -> ResumeFlowRunHandler:
        given = None if action.input is None else compile_object_field(action.input, "input")
        return cls(compile_optional_text(action.flow_run, "flow_run"), given)

    async def run(self, call: Call) -> ActionResult:
        run_id = _run_id(self.flow_run, call)
        given = None if self.given is None else self.given.render(call)
        await call.ports.orchestrator.resume_flow_run(run_id, given, key=call.key, by=_by(call))
        return _result(run_id)


@dataclass(frozen=True, slots=True)
class ChangeFlowRunStateHandler:
    """change-flow-run-state."""

    action: ChangeFlowRunState
    flow_run: Field[str] | None
    message: Field[str]

    @classmethod
    def compile(cls, action: ChangeFlowRunState) -> ChangeFlowRunStateHandler:
        message = compile_text_field(action.message, "message", empty=True)
        return cls(action, compile_optional_text(action.flow_run, "flow_run"), message)

    async def run(self, call: Call) -> ActionResult:
        run_id, state = _run_id(self.flow_run, call), self.action.state
        await call.ports.orchestrator.change_flow_run_state(
            run_id, state, message=self.message.render(call), by=_by(call)
        )
        return _result(run_id, state=state)


@dataclass(frozen=True, slots=True)
class DeleteFlowRunHandler:
    """delete-flow-run. A run that is not there is deleted, so that the attempt after a crash ends as the first one did."""

    flow_run: Field[str] | None

    @classmethod
    def compile(cls, action: DeleteFlowRun) -> DeleteFlowRunHandler:
        return cls(compile_optional_text(action.flow_run, "flow_run"))

    async def run(self, call: Call) -> ActionResult:
        run_id = _run_id(self.flow_run, call)
        try:
            await call.ports.orchestrator.delete_flow_run(run_id)
        except NotFound:
            return _result(run_id, deleted="was not there")
        return _result(run_id)


def _run_id(field: Field[str] | None, call: Call) -> str:
    return flow_run_of(call.event) if field is None else field.render(call)


def _by(call: Call) -> str:
    return f"automation {call.firing.automation}"


def _result(run_id: str, *related: dict[str, str], **more: str) -> ActionResult:
    return ActionResult(
        details={"flow_run": run_id, **more}, related=({"id": FLOW_RUN_PREFIX + run_id, "role": "flow-run"}, *related)
    )
