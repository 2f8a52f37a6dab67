"""Calling a function for a limited time, and a coroutine from where none can be awaited.

A function with a time-out runs in a thread of its own. When the time is over the caller goes on at once; the thread is told to stop,
which it does with its next line of Python. In C code it can not be stopped: then it is abandoned, and ends with the process at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, cast

from whenthen.flows.execution.cancel_scope import GATES, UNHEARD_S, CancelScope, StopGate, Stopped

__all__ = ["call_within", "run_coroutine"]


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of `coroutine`, from sync code: in an event loop of its own, in a thread of its own where one runs already."""
    if asyncio._get_running_loop() is None:
        return _run(coroutine)
    return _Threaded(lambda: _run(coroutine)).result()


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of `coroutine`, in an event loop of this thread. Where the thread can be stopped, that cancels the coroutine, also when
    the stop comes in a callback of the event loop, which would log it and go on, or between two of them. The loop is made and closed where
    no stop can come."""
    gate = GATES.gate
    was_open = gate is not None and gate.is_open
    cancelled = _Cancelled()
    context = copy_context()

    async def cancellable() -> Any:
        cancelled.of(asyncio.current_task())
        asyncio.get_running_loop().set_exception_handler(cancelled.on_error)
        if gate is None:
            return await coroutine
        with gate.runs(cancelled), gate if was_open else contextlib.nullcontext():
            return await coroutine

    around = cancellable()
    try:
        with contextlib.nullcontext() if gate is None else gate.closed(), asyncio.Runner() as runner:
            try:
                return runner.run(around, context=context)
            except Stopped:
                if gate is not None:
                    gate.__exit__()
                _end_tasks(runner.get_loop(), context)
                raise
    except asyncio.CancelledError:
        if cancelled.heard:
            raise Stopped from None
        raise
    finally:
        around.close()  # when the stop came before they were begun
        coroutine.close()


def _end_tasks(loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Cancel the tasks that a stop has left in `loop`, and wait until they have cleaned up. When it came between two callbacks, the loop has
    lost the one that it had just taken up; a task that was to go on by that would never hear that it is cancelled."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))  # meanwhile each goes on that has a callback
    for task in list(tasks):
        if not task.done() and getattr(task, "_must_cancel", False):
            other = loop.create_task(cast("Coroutine[Any, Any, Any]", task.get_coro()), context=context)
            other.cancel()
            other.add_done_callback(partial(_end_for, task))
            tasks.add(other)
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))


def _end_for(task: asyncio.Task[Any], _other: asyncio.Task[Any]) -> None:
    """Another task has gone on with the coroutine of `task`, to its end."""
    asyncio.Future.cancel(task)


class _Cancelled:
    """Whether the coroutine of an event loop was cancelled from another thread."""

    def __init__(self) -> None:
        self.asked = False
        self.heard = False
        self._task: asyncio.Task[Any] | None = None

    def of(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task

    def ask(self) -> None:
        self.asked = True
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._task.get_loop().call_soon_threadsafe(self._cancel)

    def on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), Stopped):
            self._cancel()
            handle = context.get("handle")
            if handle is not None:  # it may have been the step by which the coroutine goes on, and hears of it
                loop.call_soon(handle._callback, *handle._args)
        else:
            loop.default_exception_handler(context)

    def _cancel(self) -> None:
        assert self._task is not None
        self.heard = True
        self._task.cancel()


def call_within(
    limit_s: float,
    fn: Callable[..., Any],
    args: tuple[Any, ...] | list[Any],
    kwargs: dict[str, Any],
    *,
    expired: Callable[[], BaseException],
    scope: CancelScope | None,
) -> Any:
    """What `fn` gives, sync or async; raises `expired()` after `limit_s` seconds, and cancels `scope`."""

    def call() -> Any:
        value = fn(*args, **kwargs)
        return _run(value) if asyncio.iscoroutine(value) else value

    running = _Threaded(call)
    try:
        ended = running.ended.wait(limit_s)
    except BaseException:  # an interrupt: the call must not go on alone
        running.stop()
        raise
    if not ended:
        if scope is not None:
            scope.cancel()
        running.stop()
        raise expired()
    return running.result()


class _Threaded:
    """One call in a daemon thread, with the caller's context."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.ended = threading.Event()
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._gate: StopGate
        self._has_gate = threading.Event()
        context = copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run), name="whenthen-timed", daemon=True)
        gate = GATES.gate
        try:  # in CPython 3.11 a stop of this thread while it starts another one would go to that
            with contextlib.nullcontext() if gate is None else gate.closed():
                self._thread.start()
        except Stopped:  # the call must not go on alone
            self.stop()
            raise

    def _run(self) -> None:
        GATES.gate = self._gate = StopGate()
        self._has_gate.set()
        try:
            with self._gate:
                self._value = self._call()
        except BaseException as error:
            self._error = error
            if self._gate.is_open:  # the stop came just before it was closed
                self._gate.__exit__()
        finally:
            self.ended.set()

    def stop(self) -> None:
        self._has_gate.wait()
        if not self._gate.stop():
            again = threading.Timer(UNHEARD_S, self._gate.stop)
            again.daemon = True
            again.start()

    def result(self) -> Any:
        self.ended.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._value
