"""What the engine of a run asks for, step by step, and the drivers that perform the steps: in this thread, in an event loop, or as a
generator.

An engine is a generator that yields steps and is sent what they gave, or thrown what they raised. It ends with the outcome of its run.
There is one engine for flows and one for tasks; whether a run is sync or async is the driver's business alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

from whenthen.flows.execution.cancel_scope import CancelScope
from whenthen.flows.execution.timed_call import call_within, run_coroutine
from whenthen.flows.futures.future import PrefectFuture, wait_for_all

T = TypeVar("T")

__all__ = [
    "Call",
    "Emit",
    "Engine",
    "Next",
    "Pause",
    "Step",
    "WaitFor",
    "drive",
    "drive_async",
    "drive_async_generator",
    "drive_generator",
]

END: Final = object()  #: what `Next` gives when a generator has no more


class Step:
    """One thing that an engine wants done."""

    __slots__ = ()

    def perform(self) -> Any:
        """Do it in this thread, however long it takes."""
        raise NotImplementedError

    async def perform_async(self) -> Any:
        """Do it in this event loop."""
        return self.perform()


class Call(Step):
    """Call a function of the user, sync or async, within a time-out if there is one."""

    __slots__ = ("args", "expired", "fn", "kwargs", "limit_s", "scope")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...] | list[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        limit_s: float | None = None,
        expired: Callable[[], BaseException] = TimeoutError,
        scope: CancelScope | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs or {}
        self.limit_s = limit_s
        self.expired = expired
        self.scope = scope

    def perform(self) -> Any:
        if self.limit_s is not None:
            return call_within(self.limit_s, self.fn, self.args, self.kwargs, expired=self.expired, scope=self.scope)
        value = self.fn(*self.args, **self.kwargs)
        if value.__class__ is COROUTINE:
            return run_coroutine(value)
        return value

    async def perform_async(self) -> Any:
        if not inspect.iscoroutinefunction(self.fn):
            if self.limit_s is None:
                value = self.fn(*self.args, **self.kwargs)
                return await value if value.__class__ is COROUTINE else value
            return self.perform()
        if self.limit_s is None:
            return await self.fn(*self.args, **self.kwargs)
        limit = asyncio.timeout(self.limit_s)
        try:
            async with limit:
                return await self.fn(*self.args, **self.kwargs)
        except TimeoutError:
            if not limit.expired():
                raise
            if self.scope is not None:
                self.scope.cancel()
            raise self.expired() from None


async def _nothing() -> None: ...


_coroutine = _nothing()
COROUTINE: Final = type(_coroutine)
_coroutine.close()


class Pause(Step):
    """Wait some seconds, or until the tree is cancelled."""

    __slots__ = ("scope", "seconds")

    def __init__(self, seconds: float, scope: CancelScope) -> None:
        self.seconds = seconds
        self.scope = scope

    def perform(self) -> None:
        self.scope.sleep(self.seconds)

    async def perform_async(self) -> None:
        woken = asyncio.Event()
        wake = partial(_set_from_anywhere, asyncio.get_running_loop(), woken)
        self.scope.add(wake)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    await woken.wait()
        finally:
            self.scope.remove(wake)
        self.scope.check()


class WaitFor(Step):
    """Wait until futures have ended."""

    __slots__ = ("futures",)

    def __init__(self, futures: list[PrefectFuture[Any]]) -> None:
        self.futures = futures

    def perform(self) -> None:
        wait_for_all(self.futures)

    async def perform_async(self) -> None:
        """The event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        for future in self.futures:
            if not future.done():
                ended = asyncio.Event()
                future.add_done_callback(partial(_set_from_anywhere, loop, ended))
                await ended.wait()


def _set_from_anywhere(loop: asyncio.AbstractEventLoop, event: asyncio.Event, *_: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(event.set)


class Next(Step):
    """The next value of a generator of the user, or `END`."""

    __slots__ = ("generator", "sent")

    def __init__(self, generator: Any, sent: Any = None) -> None:
        self.generator = generator
        self.sent = sent

    def perform(self) -> Any:
        if hasattr(self.generator, "asend"):
            return run_coroutine(self.perform_async())
        try:
            return self.generator.send(self.sent)
        except StopIteration:
            return END

    async def perform_async(self) -> Any:
        if not hasattr(self.generator, "asend"):
            return self.perform()
        try:
            return await self.generator.asend(self.sent)
        except StopAsyncIteration:
            return END


class Emit(Step):
    """Hand a value to whoever iterates over the run; nobody does when the run was submitted."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def perform(self) -> None: ...


Engine = Generator[Step, Any, T]


def drive(engine: Engine[T]) -> T:
    """Perform the steps of `engine` in this thread."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = engine.send(value) if error is None else engine.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            value = step.perform()
        except BaseException as raised:
            error, value = raised, None


async def drive_async(engine: Engine[T]) -> T:
    """Perform the steps of `engine` in this event loop."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = engine.send(value) if error is None else engine.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            value = await step.perform_async()
        except BaseException as raised:
            error, value = raised, None


def drive_generator(engine: Engine[T], context: Context, ended: Callable[[T], Any]) -> Iterator[Any]:
    """Perform the steps of `engine`, and yield what the user's generator yields. All of it runs in `context`, so that what the run sets
    is not seen between two values. `ended` is called with the outcome, and may raise."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = context.run(engine.send, value) if error is None else context.run(engine.throw, error)
        except StopIteration as stop:
            ended(stop.value)
            return
        error = value = None
        try:
            value = (yield step.value) if isinstance(step, Emit) else context.run(step.perform)
        except BaseException as raised:
            error = raised


async def drive_async_generator(engine: Engine[T], context: Context, ended: Callable[[T], Any]) -> AsyncIterator[Any]:
    """As `drive_generator`, in an event loop."""
    value: Any = None
    error: BaseException | None = None
    loop = asyncio.get_running_loop()
    while True:
        try:
            step = context.run(engine.send, value) if error is None else context.run(engine.throw, error)
        except StopIteration as stop:
            ended(stop.value)
            return
        error = value = None
        try:
            if isinstance(step, Emit):
                value = yield step.value
            else:
                value = await loop.create_task(step.perform_async(), context=context)
        except BaseException as raised:
            error = raised
