"""In which run this line of code is: the contexts of flow and task, and the tags around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from whenthen.flows.argument_kinds import NAMES, check
from whenthen.flows.flow_errors import MissingContextError

if TYPE_CHECKING:
    from datetime import datetime

    from whenthen.flows.definitions.flow_definition import Flow
    from whenthen.flows.definitions.task_definition import Task
    from whenthen.flows.execution.cancel_scope import CancelScope
    from whenthen.flows.execution.run_records import FlowRun, Run, TaskRun
    from whenthen.flows.execution.runners import TaskRunner

__all__ = [
    "FLOW",
    "IN_CHILD",
    "TAGS",
    "TASK",
    "FlowRunContext",
    "TaskRunContext",
    "current_run",
    "get_run_context",
    "in_async_run",
    "tags",
]


class FlowRunContext:
    """The flow run that this code belongs to."""

    __slots__ = ("flow", "flow_run", "log_prints", "parameters", "persist_result", "scope", "start_time", "task_runner")

    def __init__(
        self,
        *,
        flow: Flow[..., Any],
        flow_run: FlowRun,
        parameters: dict[str, Any],
        task_runner: TaskRunner,
        scope: CancelScope,
        log_prints: bool,
        persist_result: bool,
        start_time: datetime,
    ) -> None:
        self.flow = flow
        self.flow_run = flow_run
        self.parameters = parameters
        self.task_runner = task_runner
        self.scope = scope
        self.log_prints = log_prints
        self.persist_result = persist_result
        self.start_time = start_time

    @classmethod
    def get(cls) -> FlowRunContext | None:
        return FLOW.get()


class TaskRunContext:
    """The task run that this code belongs to."""

    __slots__ = ("log_prints", "parameters", "persist_result", "start_time", "task", "task_run")

    def __init__(
        self,
        *,
        task: Task[..., Any],
        task_run: TaskRun,
        parameters: dict[str, Any],
        log_prints: bool,
        persist_result: bool,
        start_time: datetime,
    ) -> None:
        self.task = task
        self.task_run = task_run
        self.parameters = parameters
        self.log_prints = log_prints
        self.persist_result = persist_result
        self.start_time = start_time

    @classmethod
    def get(cls) -> TaskRunContext | None:
        return TASK.get()


FLOW: ContextVar[FlowRunContext | None] = ContextVar("whenthen.flow", default=None)
TASK: ContextVar[TaskRunContext | None] = ContextVar("whenthen.task", default=None)
TAGS: ContextVar[frozenset[str]] = ContextVar("whenthen.tags", default=frozenset())


class Place(Protocol):
    """A place in which this code works, and which another run may have while this one waits."""

    def place_given_away(self) -> AbstractContextManager[None]: ...


#: whether this is a task in a process of its own, which ends with the task
IN_CHILD: ContextVar[bool] = ContextVar("whenthen.in_child", default=False)
WORKER: ContextVar[Place | None] = ContextVar("whenthen.worker", default=None)


def place_given_away() -> AbstractContextManager[None]:
    worker = WORKER.get()
    return nullcontext() if worker is None else worker.place_given_away()


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost run.

    Raises:
        MissingContextError: this code is in none.
    """
    context = TASK.get() or FLOW.get()
    if context is None:
        raise MissingContextError("No run context available: there is one inside a flow or task only")
    return context


def current_run() -> Run | None:
    """The record of the innermost run, if there is one."""
    task = TASK.get()
    if task is not None:
        return task.task_run
    flow = FLOW.get()
    return None if flow is None else flow.flow_run


def in_async_run() -> bool:
    """Whether the innermost run is of an async function; outside runs, whether an event loop runs in this thread."""
    task = TASK.get()
    if task is not None:
        return task.task.isasync
    flow = FLOW.get()
    if flow is not None:
        return flow.flow.isasync
    return asyncio._get_running_loop() is not None


@contextmanager
def tags(*new_tags: str) -> Iterator[set[str]]:
    """Give `new_tags` to every run that is started in the `with` block, besides those of blocks around it."""
    check("tags", {"new_tags": NAMES}, {"new_tags": new_tags})
    together = TAGS.get() | frozenset(new_tags)
    token = TAGS.set(together)
    try:
        yield set(together)
    finally:
        TAGS.reset(token)
