"""The state of a run: a type, a name, a message, and the data that it ends with. Meaning: docs/flows.md, "States"."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from whenthen.flows.clock import utc_now
from whenthen.flows.flow_errors import CancelledRun, CrashedRun, FailedRun, MissingResult, PausedRun, UnfinishedRun

R_co = TypeVar("R_co", covariant=True)


class StateType(StrEnum):
    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


NAMES = {type: type.value.capitalize() for type in StateType}  #: of states that were given none
NO_DATA: Any = object()  #: of a state that has none; None is a result like others
TERMINAL_STATES = frozenset([StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED])
UNSUCCESSFUL = {StateType.FAILED: FailedRun, StateType.CRASHED: CrashedRun, StateType.CANCELLED: CancelledRun}


class StateDetails:
    """To which run a state belongs, and when it is to go on."""

    __slots__ = ("cache_expiration", "cache_key", "flow_run_id", "pause_timeout", "scheduled_time", "task_run_id")

    def __init__(
        self,
        *,
        flow_run_id: UUID | None = None,
        task_run_id: UUID | None = None,
        scheduled_time: datetime | None = None,
        pause_timeout: datetime | None = None,
        cache_key: str | None = None,
        cache_expiration: datetime | None = None,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.scheduled_time = scheduled_time
        self.pause_timeout = pause_timeout
        self.cache_key = cache_key
        self.cache_expiration = cache_expiration

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in self.__slots__)
        return f"StateDetails({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"


class State(Generic[R_co]):
    """One state. A state that a run has entered is not changed any more."""

    __slots__ = ("_data", "_id", "message", "name", "state_details", "timestamp", "type")

    def __init__(
        self,
        type: StateType | str,
        name: str | None = None,
        *,
        message: str | None = None,
        data: Any = NO_DATA,
        state_details: StateDetails | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        self.type = type if type.__class__ is StateType else StateType(type)
        self.name = name or NAMES[self.type]
        self.message = message
        self._data = data
        self.state_details = state_details or StateDetails()
        self.timestamp = timestamp or utc_now()
        self._id: UUID | None = None

    @property
    def id(self) -> UUID:
        if self._id is None:
            self._id = uuid4()
        return self._id

    @property
    def data(self) -> Any:
        """What the run ended with: its result, or its exception."""
        return None if self._data is NO_DATA else self._data

    def is_scheduled(self) -> bool:
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        return self.type in TERMINAL_STATES

    def result(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """What the run gave. With `raise_on_failure=False` a failed run gives its exception.

        In an async flow or task this is awaited, as in Prefect; elsewhere it is the value.

        Raises:
            UnfinishedRun: the run has not ended.
            PausedRun: the run is paused.
            MissingResult: the state has no data.
        """
        from whenthen.flows.execution.run_contexts import in_async_run

        if in_async_run():
            return self.aresult(raise_on_failure)
        return result_of(self, raise_on_failure=raise_on_failure)

    async def aresult(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        return result_of(self, raise_on_failure=raise_on_failure)

    def __str__(self) -> str:
        shown = [repr(self.message)] if self.message else []
        if self.type.value.lower() != self.name.lower():
            shown.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(shown)})"

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, data={self.data!r:.200})"


def result_of(state: State[Any], *, raise_on_failure: bool = True) -> Any:
    """What `State.result` gives, never awaited."""
    if state.type is StateType.COMPLETED:
        if state._data is NO_DATA:
            raise MissingResult(
                f"{state}: the state has no data; a state that a flow returns gives what was put in: Completed(data=...)"
            )
        return state._data
    if state.is_paused():
        raise PausedRun(f"{state}: the run is paused; it has a result after it was resumed and has ended")
    if not state.is_final():
        raise UnfinishedRun(f"{state}: the run has not ended, so it has no result; wait() for it first")
    if raise_on_failure:
        raise exception_of(state)
    return exception_of(state) if state._data is NO_DATA else state._data


def exception_of(state: State[Any]) -> BaseException:
    """The exception of an unsuccessful state; of several states, that of the first unsuccessful one."""
    wrapper = UNSUCCESSFUL.get(state.type)
    if wrapper is None:
        raise ValueError(f"{state}: a state of type {state.type.value} has no exception")
    data = state.data
    if data is None:
        return wrapper(state.message or f"Run {state.type.value.lower()}.")
    if isinstance(data, BaseException):
        return data
    if isinstance(data, str):
        return wrapper(data)
    if isinstance(data, State):
        return exception_of(data)
    if is_states(data):
        first = next((one for one in data if one.type in UNSUCCESSFUL), None)
        if first is not None:
            return exception_of(first)
        return wrapper(state.message or f"Run {state.type.value.lower()}.")
    return TypeError(f"{state}: its data is {data!r:.100}, of which no exception can be made")


def is_states(value: object) -> bool:
    """Whether it is a list, set or tuple of nothing but states, and of at least one."""
    return isinstance(value, (list, set, tuple)) and bool(value) and all(isinstance(one, State) for one in value)


def _made(type: StateType, name: str | None = None) -> Callable[..., State[Any]]:
    def make(*, name: str | None = name, **given: Any) -> State[Any]:
        return State(type, name, **given)

    make.__doc__ = f"A state of type {type.value}."
    make.__name__ = make.__qualname__ = name or type.value.capitalize()
    return make


Completed = _made(StateType.COMPLETED)
Running = _made(StateType.RUNNING)
Failed = _made(StateType.FAILED)
Crashed = _made(StateType.CRASHED)
Cancelling = _made(StateType.CANCELLING)
Cancelled = _made(StateType.CANCELLED)
Pending = _made(StateType.PENDING)
Retrying = _made(StateType.RUNNING, "Retrying")
Late = _made(StateType.SCHEDULED, "Late")


def Scheduled(*, scheduled_time: datetime | None = None, name: str | None = None, **given: Any) -> State[Any]:
    """A state of type SCHEDULED, for `scheduled_time` or now."""
    details = given.pop("state_details", None) or StateDetails()
    details.scheduled_time = scheduled_time or details.scheduled_time or utc_now()
    return State(StateType.SCHEDULED, name, state_details=details, **given)


def AwaitingRetry(*, scheduled_time: datetime | None = None, **given: Any) -> State[Any]:
    """A run that failed and is tried again at `scheduled_time`."""
    return Scheduled(scheduled_time=scheduled_time, name="AwaitingRetry", **given)


def Paused(*, timeout_seconds: float | None = None, name: str | None = None, **given: Any) -> State[Any]:
    """A run that waits to be resumed, for `timeout_seconds` at most."""
    details = given.pop("state_details", None) or StateDetails()
    if timeout_seconds is not None:
        details.pause_timeout = utc_now() + timedelta(seconds=timeout_seconds)
    return State(StateType.PAUSED, name, state_details=details, **given)


def Suspended(*, timeout_seconds: float | None = None, **given: Any) -> State[Any]:
    """A paused run whose process has ended."""
    return Paused(timeout_seconds=timeout_seconds, name="Suspended", **given)


def get_state_exception(state: State[Any]) -> BaseException | Coroutine[Any, Any, BaseException]:
    """The exception of an unsuccessful state; awaited in an async flow or task, as in Prefect."""
    from whenthen.flows.execution.run_contexts import in_async_run

    async def later() -> BaseException:
        return exception_of(state)

    return later() if in_async_run() else exception_of(state)


def raise_state_exception(state: State[Any]) -> None:
    """Raise the exception of an unsuccessful state; nothing for another."""
    if state.type in UNSUCCESSFUL:
        raise exception_of(state)
