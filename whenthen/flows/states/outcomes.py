"""Which state a run ends in: by what its function returned, or by what it raised. Pure."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from types import GeneratorType
from typing import Any

from whenthen.flows.flow_errors import TerminationSignal
from whenthen.flows.states.state import State, StateType, is_states

#: what a crash says, by the class of what was raised
CRASHES: tuple[tuple[type[BaseException], str], ...] = (
    (asyncio.CancelledError, "Execution was cancelled by the runtime environment."),
    (KeyboardInterrupt, "Execution was aborted by an interrupt signal."),
    (TerminationSignal, "Execution was aborted by a termination signal."),
    (SystemExit, "Execution was aborted by Python system exit call."),
)


def state_of_value(value: Any, *, now: datetime) -> State[Any]:
    """The final state of a run whose function returned `value`, in which futures are states already.

    A state that the function made is the run's. A state of another run, or a list, tuple or set of states, is completed if all are;
    otherwise cancelled, paused or failed. Anything else is the data of a completed state.
    """
    if isinstance(value, State):
        details = value.state_details
        if details.flow_run_id is None and details.task_run_id is None:
            return value
        return _together([value], value, now)
    if is_states(value):
        return _together(list(value), value, now)
    if isinstance(value, GeneratorType):
        value = list(value)
    return State(StateType.COMPLETED, data=value, timestamp=now)


def _together(states: list[State[Any]], data: Any, now: datetime) -> State[Any]:
    counts = Counter(state.type for state in states)
    total = len(states)
    unfinished = sum(not state.is_final() for state in states)
    failed = counts[StateType.FAILED] + counts[StateType.CRASHED]
    if counts[StateType.COMPLETED] == total:
        kind, message = StateType.COMPLETED, "All states completed."
    elif counts[StateType.CANCELLED]:
        kind, message = StateType.CANCELLED, f"{counts[StateType.CANCELLED]}/{total} states cancelled."
    elif counts[StateType.PAUSED]:
        kind, message = StateType.PAUSED, f"{counts[StateType.PAUSED]}/{total} states paused."
    elif failed:
        kind, message = StateType.FAILED, f"{failed}/{total} states failed."
    else:
        kind, message = StateType.FAILED, f"{unfinished}/{total} states are not final."
    return State(kind, message=message, data=data, timestamp=now)


def failed_state(error: BaseException, *, what: str, now: datetime, name: str | None = None) -> State[Any]:
    """The state of a run whose function raised: `what`, then class and text of the error."""
    return State(StateType.FAILED, name, message=f"{what} {type(error).__name__}: {error}", data=error, timestamp=now)


def timed_out_state(error: BaseException, *, message: str, now: datetime) -> State[Any]:
    return State(StateType.FAILED, "TimedOut", message=message, data=error, timestamp=now)


def crashed_state(error: BaseException, *, now: datetime) -> State[Any]:
    """The state of a run that ended by what is no `Exception`: an interrupt, an exit, a cancellation."""
    other = f"Execution was interrupted by an unexpected exception: {type(error).__name__}: {error}"
    message = next((text for kind, text in CRASHES if isinstance(error, kind)), other)
    return State(StateType.CRASHED, message=message, data=error, timestamp=now)
