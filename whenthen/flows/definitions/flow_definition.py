"""`@flow`: a function whose calls are runs, with checked parameters, retries, and tasks below. Meaning: docs/flows.md."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload
from uuid import UUID, uuid5

from whenthen.flows.argument_kinds import check
from whenthen.flows.definitions.option_checks import (
    OPTIONS,
    checked_delay,
    checked_hooks,
    checked_name,
    checked_options,
    checked_retries,
    checked_run_name,
    checked_timeout,
)
from whenthen.flows.definitions.runnable_function import Delay, Hooks, NotSet, RunnableFunction
from whenthen.flows.deploying.deployable import Deployable
from whenthen.flows.execution.flow_engine import FlowCall
from whenthen.flows.execution.runners import TaskRunner, ThreadPoolTaskRunner
from whenthen.flows.states.state import State, StateType

if TYPE_CHECKING:
    from whenthen.flows.reporting.entry_flow import EntryEnd

__all__ = ["Flow", "flow"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])

#: ids of flows are made of their names in this namespace: the same name is the same flow everywhere
FLOWS = UUID("5c5cf1d2-6f5e-4b8c-9d0e-2b7f4b1a9c10")


class Flow(RunnableFunction[P, R], Deployable):
    """A function as a flow. Calling it runs it."""

    _kind = "flow"
    _call_of = FlowCall

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        version: str | None = None,
        flow_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: Delay = None,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        description: str | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        cache_result_in_memory: bool = True,
        log_prints: bool | None = None,
        on_completion: Hooks = None,
        on_failure: Hooks = None,
        on_cancellation: Hooks = None,
        on_crashed: Hooks = None,
        on_running: Hooks = None,
        local_types: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fn, description=description, local_types=local_types)
        own_name = str(getattr(self.fn, "__name__", type(self.fn).__name__))
        where = f"flow {own_name!r}"
        self.name = own_name.replace("_", "-") if name is None else checked_name(name, where)
        check(
            where,
            OPTIONS,
            {
                "version": version,
                "description": description,
                "persist_result": persist_result,
                "log_prints": log_prints,
                "validate_parameters": validate_parameters,
                "cache_result_in_memory": cache_result_in_memory,
            },
        )
        self.version = version
        self.flow_run_name = checked_run_name(flow_run_name, "flow_run_name", where)
        self.retries = checked_retries(0 if retries is None else retries, where)
        self.retry_delay_seconds = checked_delay(retry_delay_seconds, self.retries, where) or 0
        self.timeout_seconds = checked_timeout(timeout_seconds, where)
        self.should_validate_parameters = validate_parameters
        if result_storage is not None or result_serializer is not None:
            persist_result = True if persist_result is None else persist_result
        self.persist_result = persist_result
        self.result_storage = result_storage
        self.result_serializer = result_serializer
        self.cache_result_in_memory = cache_result_in_memory
        self.log_prints = log_prints
        if isinstance(task_runner, type):
            task_runner = task_runner()
        if task_runner is not None and not isinstance(task_runner, TaskRunner):
            raise TypeError(
                f"{where}: 'task_runner' must be a task runner such as ThreadPoolTaskRunner(); got {task_runner!r:.80}"
            )
        self.task_runner: TaskRunner = task_runner or ThreadPoolTaskRunner()
        self.on_completion_hooks = checked_hooks(on_completion, "on_completion", where)
        self.on_failure_hooks = checked_hooks(on_failure, "on_failure", where)
        self.on_cancellation_hooks = checked_hooks(on_cancellation, "on_cancellation", where)
        self.on_crashed_hooks = checked_hooks(on_crashed, "on_crashed", where)
        self.on_running_hooks = checked_hooks(on_running, "on_running", where)

    @property
    def id(self) -> UUID:
        return uuid5(FLOWS, self.name)

    @overload
    def __get__(self, instance: None, owner: type) -> Flow[P, R]: ...

    @overload
    def __get__(self: Flow[Concatenate[Any, Q], T], instance: object, owner: type | None = None) -> Flow[Q, T]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._bound_to(instance, owner)

    def run_entry(self, parameters: dict[str, Any], environment: Mapping[str, str]) -> EntryEnd:
        """Run it for a run of a deployment, whose process this is. Called by the worker's program; says how the run ended."""
        from whenthen.flows.reporting.entry_flow import call_entry_flow

        return call_entry_flow(self, parameters, environment)

    def hooks_for(self, state: State[Any]) -> list[Callable[..., Any]]:
        """The hooks that a final state calls. A run that is cancelled calls those of `on_cancellation`; one that returns `Cancelled()` calls
        none."""
        if state.type is StateType.COMPLETED:
            return self.on_completion_hooks
        if state.type is StateType.FAILED:
            return self.on_failure_hooks
        return self.on_crashed_hooks if state.type is StateType.CRASHED else []

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters converted to their types.

        Raises:
            ParameterTypeError: one does not fit.
        """
        return self.signature.validated(parameters)

    def with_options(
        self,
        *,
        name: Any = NotSet,
        version: Any = NotSet,
        flow_run_name: Any = NotSet,
        retries: Any = NotSet,
        retry_delay_seconds: Any = NotSet,
        task_runner: Any = NotSet,
        description: Any = NotSet,
        timeout_seconds: Any = NotSet,
        validate_parameters: Any = NotSet,
        persist_result: Any = NotSet,
        result_storage: Any = NotSet,
        result_serializer: Any = NotSet,
        cache_result_in_memory: Any = NotSet,
        log_prints: Any = NotSet,
        on_completion: Any = NotSet,
        on_failure: Any = NotSet,
        on_cancellation: Any = NotSet,
        on_crashed: Any = NotSet,
        on_running: Any = NotSet,
    ) -> Flow[P, R]:
        """The same function as a flow with these options changed; this one stays as it is."""
        given = {key: value for key, value in locals().items() if key != "self" and value is not NotSet}
        options: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "flow_run_name": self.flow_run_name,
            "retries": self.retries,
            "retry_delay_seconds": self.retry_delay_seconds,
            "task_runner": self.task_runner,
            "description": self.description,
            "timeout_seconds": self.timeout_seconds,
            "validate_parameters": self.should_validate_parameters,
            "persist_result": self.persist_result,
            "result_storage": self.result_storage,
            "result_serializer": self.result_serializer,
            "cache_result_in_memory": self.cache_result_in_memory,
            "log_prints": self.log_prints,
            "on_completion": self.on_completion_hooks,
            "on_failure": self.on_failure_hooks,
            "on_cancellation": self.on_cancellation_hooks,
            "on_crashed": self.on_crashed_hooks,
            "on_running": self.on_running_hooks,
            "local_types": self._local_types,
        }
        made = self._with({**options, **given})
        made.origin = self.origin
        return made

    def on_cancellation(self, fn: H) -> H:
        """A decorator: `fn(flow, flow_run, state)` is called when a run was cancelled."""
        return self._hooked(self.on_cancellation_hooks, fn, "on_cancellation")

    def on_crashed(self, fn: H) -> H:
        """A decorator: `fn(flow, flow_run, state)` is called when a run was interrupted or exited."""
        return self._hooked(self.on_crashed_hooks, fn, "on_crashed")


@overload
def flow(__fn: Callable[P, R]) -> Flow[P, R]: ...


@overload
def flow(
    __fn: None = None,
    *,
    name: str | None = None,
    version: str | None = None,
    flow_run_name: str | Callable[..., str] | None = None,
    retries: int | None = None,
    retry_delay_seconds: Delay = None,
    task_runner: TaskRunner | type[TaskRunner] | None = None,
    description: str | None = None,
    timeout_seconds: float | None = None,
    validate_parameters: bool = True,
    persist_result: bool | None = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    cache_result_in_memory: bool = True,
    log_prints: bool | None = None,
    on_completion: Hooks = None,
    on_failure: Hooks = None,
    on_cancellation: Hooks = None,
    on_crashed: Hooks = None,
    on_running: Hooks = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(__fn: Any = None, **options: Any) -> Any:
    """Make a flow of a function. Options are those of `Flow`."""
    checked_options(options, Flow, "flow")
    around = sys._getframe(1)
    if __fn is None:
        return lambda fn: Flow(fn, local_types=_names_around(fn, around), **options)
    return Flow(__fn, local_types=_names_around(__fn, around), **options)


flow.from_source = Flow.from_source  # type: ignore[attr-defined]  # as Prefect has it: `flow.from_source(...)`
flow.afrom_source = Flow.afrom_source  # type: ignore[attr-defined]


def _names_around(fn: Any, frame: FrameType) -> dict[str, Any] | None:
    """What the annotations of `fn` that are texts name in the function around it; nothing at the top of a module."""
    if frame.f_locals is frame.f_globals:
        return None
    annotations = getattr(inspect.unwrap(getattr(fn, "__func__", fn)), "__annotations__", {})
    words = {word for text in annotations.values() if isinstance(text, str) for word in re.findall(r"[^\W\d]\w*", text)}
    return {word: frame.f_locals[word] for word in words if word in frame.f_locals}
