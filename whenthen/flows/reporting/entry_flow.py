"""The flow of a deployment's entry point, called for one attempt of a run: parameters are checked, the flow runs, and its end is told.

`Flow.run_entry` is called by the program that a worker starts (`runs.runner`), in the run's process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from whenthen.flows.execution.cancel_scope import Stopped
from whenthen.flows.execution.reporter import REPORTER
from whenthen.flows.execution.run_records import ENTRY, EntryRun
from whenthen.flows.flow_errors import (
    FlowRunTimeoutError,
    ParameterBindError,
    ParameterTypeError,
    Pause,
    ServerError,
)
from whenthen.flows.reporting.cancellation_request import CancellationRequest, cancellation_heard
from whenthen.flows.reporting.socket_reporter import SocketReporter
from whenthen.flows.reporting.worker_channel import WorkerRefusal
from whenthen.flows.states.state import Cancelled, State, StateType, Suspended, is_states

if TYPE_CHECKING:
    from whenthen.flows.definitions.flow_definition import Flow

__all__ = ["EntryEnd", "call_entry_flow", "parameter_problems"]


#: ids of deployments are made of their names in this namespace
DEPLOYMENTS: Final = UUID("e2a1f8de-0c55-4d53-9d1a-0f4c1b7a6d52")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryEnd:
    """How the run of a flow ended, or why it can not begin, which it could not the next time either."""

    refused: str = ""  #: the parameters that do not fit, a line each; or what the worker said
    suspended: bool = False  #: whether it waits for a person, and is to be called again then
    state: State[Any] | None = None  #: the final one
    value: Any = None  #: what a completed flow gave, in which states are their results
    error: BaseException | None = None  #: what ended it


def call_entry_flow(flow: Flow[..., Any], parameters: dict[str, Any], environment: Mapping[str, str]) -> EntryEnd:
    """Run `flow` once, if it can be run."""
    reporter = REPORTER.get()
    if isinstance(reporter, SocketReporter):
        try:
            reporter.channel.greet()
        except WorkerRefusal as error:
            return EntryEnd(refused=str(error))
        except ServerError:
            pass  # it is slow or gone: what the run tells waits in files
    problems = parameter_problems(flow, parameters)
    if problems:
        return EntryEnd(refused="\n".join([f"flow {flow.name!r} does not take these parameters:", *problems]))
    ENTRY.set(_entry_run(environment))
    try:
        with cancellation_heard(environment) as request:
            state = _called(flow, parameters, request)
    except Pause:
        return EntryEnd(suspended=True, state=Suspended())
    except (Stopped, asyncio.CancelledError):
        return EntryEnd(state=Cancelled(message="Flow run was cancelled."))
    if state.is_completed():
        return EntryEnd(state=state, value=_without_states(state.data))
    return EntryEnd(state=state, error=state.data if isinstance(state.data, BaseException) else None)


def _called(flow: Flow[..., Any], parameters: dict[str, Any], request: CancellationRequest | None) -> State[Any]:
    """The final state."""
    call: Callable[..., Any] = flow
    if flow.isgenerator:
        return _iterated(flow, parameters)
    if not flow.isasync:
        state: State[Any] = call(return_state=True, **parameters)
        return state

    async def awaited() -> State[Any]:
        if request is not None:
            request.task = asyncio.current_task()
        state: State[Any] = await call(return_state=True, **parameters)
        return state

    return asyncio.run(awaited())


def parameter_problems(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> list[str]:
    """A line for each parameter that the flow does not have, that is missing, or whose value does not fit its type."""
    signature = flow.signature
    takes = {
        name: one
        for name, one in signature.signature.parameters.items()
        if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    }
    found = [f" - {name}: missing" for name in takes if name not in parameters and name not in signature.defaults]
    if signature.keywords is None:
        for name in sorted(set(parameters) - set(takes)):
            from whenthen.schemas.errors import near_names

            near = near_names(name, takes)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(takes) or 'none'}"
            found.append(f" - {name[:100]}: there is no such parameter; {hint}")
    known = {name: value for name, value in parameters.items() if name in takes or signature.keywords is not None}
    if not flow.should_validate_parameters:
        return found
    try:
        bound = known if found else signature.bind((), known)
        signature.validated(signature.collapsed(bound) if found else bound)
    except ParameterTypeError as error:
        found += error.lines
    except ParameterBindError as error:
        found.append(f" - {error}")
    return found


def _entry_run(environment: Mapping[str, str]) -> EntryRun | None:
    """The run that the worker's variables tell of; None where there are none."""
    run_id, deployment = environment.get("WHENTHEN_RUN_ID", ""), environment.get("WHENTHEN_DEPLOYMENT", "")
    try:
        at = environment.get("WHENTHEN_SCHEDULED_FOR")
        return EntryRun(
            id=UUID(hex=run_id),
            name=f"{deployment}-{run_id[:8]}",
            deployment_id=uuid5(DEPLOYMENTS, deployment),
            deployment_name=deployment,
            attempt=int(environment.get("WHENTHEN_ATTEMPT", "1")),
            scheduled_for=datetime.fromisoformat(at) if at else None,
        )
    except ValueError:
        return None


def _iterated(flow: Flow[..., Any], parameters: dict[str, Any]) -> State[Any]:
    """The final state of a flow that yields, whose data are the values."""
    call: Callable[..., Any] = flow

    async def gathered() -> list[Any]:
        return [value async for value in call(**parameters)]

    try:
        values = asyncio.run(gathered()) if flow.isasync else list(call(**parameters))
    except FlowRunTimeoutError as error:
        return State(StateType.FAILED, "TimedOut", message=str(error), data=error)
    except Exception as error:
        return State(StateType.FAILED, message=f"{type(error).__name__}: {error}", data=error)
    return State(StateType.COMPLETED, data=values)


def _without_states(value: Any) -> Any:
    """What runs gave whose states a flow returned."""
    if isinstance(value, State):
        return _without_states(value.data)
    return [_without_states(one) for one in value] if is_states(value) else value
