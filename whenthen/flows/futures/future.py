"""A run that was submitted: its state, and its result once it has ended. Safe to use from any thread."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from whenthen.flows.argument_kinds import SECONDS, check
from whenthen.flows.clock import LONGEST_WAIT_S, steady
from whenthen.flows.execution.run_contexts import FLOW, current_run, place_given_away
from whenthen.flows.flow_errors import CircularWait
from whenthen.flows.fork_lock import ForkLock
from whenthen.flows.states.state import State, result_of

if TYPE_CHECKING:
    from whenthen.flows.execution.run_records import TaskRun

R = TypeVar("R")

__all__ = ["PrefectFuture", "PrefectFutureList"]


class PrefectFuture(Generic[R]):
    """What `.submit` gives. It has ended when the run's state will not change any more.

    A run whose upstream failed ends too, in Pending/NotReady.
    """

    __slots__ = ("__weakref__", "_callbacks", "_ended", "_lock", "run")

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._ended = False
        self._callbacks: list[Callable[[PrefectFuture[R]], object]] = []

    @property
    def task_run_id(self) -> UUID:
        return self.run.id

    @property
    def state(self) -> State[R]:
        return self.run.state

    def done(self) -> bool:
        return self._ended

    def wait(self, timeout: float | None = None) -> None:
        """Return when the run has ended, or after `timeout` seconds.

        Raises:
            CircularWait: the run waits, directly or by way of others, for the one that called this.
        """
        _check_timeout(timeout)
        if not self._ended:
            wait_for_all([self], timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """What the run gave; of a failed run its exception is raised, or returned with `raise_on_failure=False`.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
            UnfinishedRun: it ended without having been started, since a run that it needs failed.
        """
        _check_timeout(timeout)
        if not self._ended:
            self.wait(timeout)
            if not self._ended:
                raise TimeoutError(
                    f"Task run {self.run.name!r} ({self.run.id}) did not complete within {timeout} seconds"
                )
        return result_of(self.run.state, raise_on_failure=raise_on_failure)  # type: ignore[no-any-return]

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        """Call `fn` with this future when the run has ended: in the thread that ended it, or here and now if it has."""
        with self._lock:
            if not self._ended:
                self._callbacks.append(fn)
                return
        fn(self)

    def remove_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        with self._lock:
            if fn in self._callbacks:
                self._callbacks.remove(fn)

    def end(self) -> None:
        """The run has ended. Called once, by whatever ran it."""
        with self._lock:
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                from whenthen.flows.execution.run_logging import engine_logger

                engine_logger().exception("A callback of task run %r raised", self.run.name)

    def __repr__(self) -> str:
        return f"PrefectFuture({self.run.name!r}, {self.run.state})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self!r} can not be pickled: a future belongs to its process; give its result, or pass the future itself as an "
            "argument of a task, which then gets the result"
        )


class PrefectFutureList(list[PrefectFuture[R]]):
    """What `.map` gives: a list of futures that can be waited for and read at once."""

    def wait(self, timeout: float | None = None) -> None:
        """Return when all have ended, or after `timeout` seconds."""
        _check_timeout(timeout)
        wait_for_all(self, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """The results in order; the first failed run raises, unless `raise_on_failure=False`.

        Raises:
            TimeoutError: not all have ended after `timeout` seconds.
        """
        _check_timeout(timeout)
        limit = None if timeout is None else steady() + timeout
        wait_for_all(self, timeout, or_failure=True)
        return [
            future.result(None if limit is None else max(0.0, limit - steady()), raise_on_failure=raise_on_failure)
            for future in self
        ]


def _check_timeout(timeout: Any) -> None:
    if timeout is not None:  # of ten thousand futures nobody pays for it
        check("wait", {"timeout": SECONDS.or_none}, {"timeout": timeout})


#: under it runs begin to wait
_CIRCLES = ForkLock()


def wait_for_all(futures: list[PrefectFuture[Any]], timeout: float | None = None, *, or_failure: bool = False) -> None:
    """Block until all of `futures` have ended, `timeout` seconds have passed, or this run's tree is cancelled; with `or_failure` not
    for what comes after one that has ended without a result, and no longer than until another one does.

    Raises:
        CircularWait: one of them waits for the run that called this.
        Stopped: the flow in which this is called was cancelled or ran out of time.
    """
    pending = []
    for future in futures:
        if not future.done():
            pending.append(future)
        elif or_failure and not future.run.state.is_completed():
            break  # what comes after it is not waited for
    if not pending:
        return
    waiter = current_run()
    flow = FLOW.get()
    scope = flow.scope if flow is not None else None
    if waiter is not None:
        with _CIRCLES.lock:  # of two that begin to wait for each other, the second one sees the first
            refuse_circle(waiter, pending)
            waiter.waiting_for = tuple(pending)
    all_ended = threading.Event()
    count, total = itertools.count(1), len(pending)

    def one_less(ended: PrefectFuture[Any]) -> None:
        # `next` of a count is atomic
        if next(count) == total or (or_failure and not ended.run.state.is_completed()):
            all_ended.set()

    for future in pending:
        future.add_done_callback(one_less)
    try:
        if scope is not None:
            scope.add(all_ended.set)
        with place_given_away():
            all_ended.wait(None if timeout is None else min(timeout, LONGEST_WAIT_S))
        if scope is not None:
            scope.check()
    finally:
        if waiter is not None:
            waiter.waiting_for = ()
        if scope is not None:
            scope.remove(all_ended.set)
        for future in pending:
            if not future.done():
                future.remove_done_callback(one_less)


def refuse_circle(waiter: Any, futures: list[PrefectFuture[Any]]) -> None:
    """Raise where one of `futures` waits for `waiter` or for a run in which `waiter` runs."""
    own = set()
    above = waiter
    while above is not None:
        own.add(id(above))
        above = above.parent
    looked_at: set[int] = set()
    ahead = list(futures)
    while ahead:
        run = ahead.pop().run
        if id(run) in own:
            raise CircularWait(
                f"{waiter.name!r} would wait for task run {run.name!r}, which waits for {waiter.name!r}: none of them could ever end. "
                "Pass results on instead of waiting for a run that was started earlier and waits itself."
            )
        if id(run) not in looked_at:
            looked_at.add(id(run))
            ahead.extend(run.waiting_for)
