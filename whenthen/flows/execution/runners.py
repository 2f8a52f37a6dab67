"""Where submitted tasks run: in threads of this process, or in other processes. A runner belongs to one flow run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from whenthen.flows.definitions.mapped_arguments import mapped
from whenthen.flows.execution.cancel_scope import GATES
from whenthen.flows.execution.run_contexts import place_given_away
from whenthen.flows.execution.run_moves import waited_for
from whenthen.flows.execution.task_engine import TaskCall
from whenthen.flows.execution.thread_pool import WorkerPool
from whenthen.flows.futures.future import PrefectFuture, PrefectFutureList

if TYPE_CHECKING:
    from whenthen.flows.definitions.task_definition import Task

__all__ = ["MOST_THREADS", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]

#: of a runner that was not told how many; runs that wait for others or for a retry need none
MOST_THREADS = 256


class TaskRunner:
    """What a flow submits its tasks to."""

    name = "tasks"

    def duplicate(self) -> TaskRunner:
        """A fresh one of the same kind for one flow run."""
        raise NotImplementedError

    def submit(
        self, task: Task[..., Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFuture[Any]:
        """Start a run as soon as what it needs has ended and there is a place for it."""
        raise NotImplementedError

    def map(
        self, task: Task[..., Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[Any]:
        """Start a run for each element of the sequences among the parameters.

        Raises:
            MappingMissingIterable: there is no sequence.
            MappingLengthMismatch: the sequences have different lengths.
        """
        waited = None if wait_for is None else waited_for(wait_for)
        return PrefectFutureList(self.submit(task, one, waited) for one in mapped(task.signature, parameters))

    def drop_what_was_not_begun(self) -> None:
        """The flow has failed: what no thread has begun ends as cancelled."""

    def unfinished(self) -> list[PrefectFuture[Any]]:
        """The runs that have not ended."""
        return []

    def close(self, cancel: bool) -> None:
        """Return when all runs have ended; with `cancel` they are told to end now."""


class ThreadPoolTaskRunner(TaskRunner):
    """Runs tasks in at most `max_workers` threads at a time."""

    in_children = False

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and (
            isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1
        ):
            raise ValueError(f"max_workers must be a whole number of at least 1; got {max_workers!r}")
        self.max_workers = MOST_THREADS if max_workers is None else max_workers
        self._pool: WorkerPool | None = None

    def duplicate(self) -> ThreadPoolTaskRunner:
        return type(self)(self.max_workers)

    def submit(
        self, task: Task[..., Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFuture[Any]:
        call = TaskCall(task, parameters, wait_for, in_child=self.in_children)
        future: PrefectFuture[Any] = PrefectFuture(call.run)
        if self._pool is None:
            self._pool = WorkerPool(self.max_workers, name="whenthen-tasks")
            call.scope.add(self._pool.let_go)
        self._pool.submit(call, copy_context(), future)
        return future

    def drop_what_was_not_begun(self) -> None:
        if self._pool is not None:
            self._pool.drop_what_was_not_begun()

    def unfinished(self) -> list[PrefectFuture[Any]]:
        return [] if self._pool is None else self._pool.unfinished()

    def close(self, cancel: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        gate = GATES.gate  # a thread of another pool, which may be told to stop, has first to tell those of this one
        with nullcontext() if gate is None else gate.closed(), place_given_away():
            pool.close(cancel=cancel)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.max_workers == other.max_workers

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self.max_workers})"


class ProcessPoolTaskRunner(ThreadPoolTaskRunner):
    """Runs the functions of tasks in at most `max_workers` processes at a time, by default one for each processor.

    States, retries, hooks and caching stay in this process; a function that runs out of time is killed. Results are pickled, functions
    and arguments are not. Each call is a fork (`execution/child_process.py`).
    """

    in_children = True

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(max_workers or os.cpu_count() or 1)
