"""`pause_flow_run`, `suspend_flow_run`, `resume_flow_run`: a run that waits for a person. What is wrong is said here; a server does the rest."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from whenthen.flows.argument_kinds import ID, MAPPING, SECONDS, TEXT, check, checked_arguments
from whenthen.flows.execution.run_contexts import FLOW, TASK
from whenthen.flows.flow_errors import ArgumentError, FlowPauseTimeout, NotPausedError, Pause
from whenthen.flows.services.sync_or_awaited import asked, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server

__all__ = [
    "apause_flow_run",
    "aresume_flow_run",
    "asuspend_flow_run",
    "pause_flow_run",
    "resume_flow_run",
    "suspend_flow_run",
]

T = TypeVar("T")


PAUSE = {"poll_interval": SECONDS, "key": TEXT.or_none}
SUSPEND = {"flow_run_id": ID.or_none, "key": TEXT.or_none}
RESUME = {"flow_run_id": ID, "run_input": MAPPING.or_none}


@checked_arguments(**PAUSE)
def pause_flow_run(
    wait_for_input: Any = None, timeout: int = 3600, poll_interval: int = 10, key: str | None = None
) -> Any:
    """Wait until somebody resumes the run, and get the input that they gave; in an async run a coroutine of it.

    Raises:
        RuntimeError: this is no flow run.
        FlowPauseTimeout: nobody resumed it within `timeout` seconds.
        NeedsServer: no reporter connects the run to a server.
    """
    return sync_or_awaited(lambda: _pause(wait_for_input, timeout, key))


@checked_arguments(**PAUSE)
async def apause_flow_run(
    wait_for_input: Any = None, timeout: int = 3600, poll_interval: int = 10, key: str | None = None
) -> Any:
    return await in_thread(lambda: _pause(wait_for_input, timeout, key))


@checked_arguments(**SUSPEND)
def suspend_flow_run(
    wait_for_input: Any = None, flow_run_id: UUID | None = None, timeout: int | None = None, key: str | None = None
) -> Any:
    """End the process of the run; it is started again when somebody resumes it, and gets the input that they gave.

    Raises:
        RuntimeError: this is no flow run, and no other is named.
        NeedsServer: no reporter connects the run to a server.
    """
    return sync_or_awaited(lambda: _suspend(wait_for_input, flow_run_id, timeout, key))


@checked_arguments(**SUSPEND)
async def asuspend_flow_run(
    wait_for_input: Any = None, flow_run_id: UUID | None = None, timeout: int | None = None, key: str | None = None
) -> Any:
    return await in_thread(lambda: _suspend(wait_for_input, flow_run_id, timeout, key))


@checked_arguments(**RESUME)
def resume_flow_run(flow_run_id: UUID, run_input: dict[str, Any] | None = None) -> Any:
    """Let a paused or suspended run go on.

    Raises:
        NotPausedError: it is not paused.
        NeedsServer: no reporter connects the run to a server.
    """
    return sync_or_awaited(lambda: _resume(flow_run_id, run_input))


@checked_arguments(**RESUME)
async def aresume_flow_run(flow_run_id: UUID, run_input: dict[str, Any] | None = None) -> None:
    await in_thread(lambda: _resume(flow_run_id, run_input))


def _pause(wait_for_input: Any, timeout: float, key: str | None) -> Any:
    check("pause_flow_run", {"timeout": SECONDS}, {"timeout": timeout}, ValueError)
    flow = FLOW.get()
    if flow is None:
        raise RuntimeError("Flow runs can only be paused from within a flow run.")
    read, body = _input(wait_for_input)
    body |= {"flow_run_id": str(flow.flow_run.id), "timeout_s": timeout, "key": key or flow.flow_run.next_pause()}
    answer = asked("pause_flow_run", body, otherwise=needs_server("pause_flow_run"))
    if answer.get("timed_out"):
        raise FlowPauseTimeout("Flow run was paused and never resumed.")
    return None if read is None else read(answer.get("input"))


def _suspend(wait_for_input: Any, flow_run_id: UUID | None, timeout: float | None, key: str | None) -> Any:
    flow = FLOW.get()
    check("suspend_flow_run", {"timeout": SECONDS.or_none}, {"timeout": timeout}, ValueError)
    flow_run_id = None if flow_run_id is None else UUID(str(flow_run_id))
    own = flow_run_id is None or (flow is not None and flow_run_id == flow.flow_run.id)
    if own:
        if TASK.get() is not None:
            raise RuntimeError("Cannot suspend task runs: call it in the flow")
        if flow is None:
            raise RuntimeError("Flow runs can only be suspended from within a flow run.")
        if flow.flow_run.parent is not None:
            raise RuntimeError("Cannot suspend subflows: it is the outermost flow that can be started again")
        flow_run_id = flow.flow_run.id
        key = key or flow.flow_run.next_pause()
    elif wait_for_input is not None:
        raise ArgumentError(
            "suspend_flow_run: another run is given input at pauses of its own; leave wait_for_input out"
        )
    read, body = _input(wait_for_input)
    body |= {"flow_run_id": str(flow_run_id), "timeout_s": timeout, "key": key, "own": own}
    answer = asked("suspend_flow_run", body, otherwise=needs_server("suspend_flow_run"))
    if answer.get("suspended"):
        raise Pause("the run is suspended")
    return None if read is None else read(answer.get("input"))


def _resume(flow_run_id: UUID, run_input: dict[str, Any] | None) -> None:
    body = {"flow_run_id": str(UUID(str(flow_run_id))), "input": run_input}
    answer = asked("resume_flow_run", body, otherwise=needs_server("resume_flow_run"))
    if answer.get("not_paused"):
        raise NotPausedError("Cannot resume a run that isn't paused!")
    if answer.get("timed_out"):
        raise FlowPauseTimeout("Flow run can no longer be resumed.")


def _input(kind: Any) -> tuple[Any, dict[str, Any]]:
    if kind is None:
        return None, {"schema": None}
    from whenthen.flows.services.run_inputs import InputReader

    reader = InputReader(kind)
    return reader.read, {"schema": reader.schema, "description": reader.description}
