"""What ends a tree of runs early: a time-out, an interrupt, a worker's request. Whatever waits in the tree is woken and stops."""

from __future__ import annotations

import _thread
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from whenthen.flows.clock import sleep

__all__ = [
    "GATES",
    "RAISE_IN_THREAD",
    "STOPPED",
    "UNHEARD_S",
    "CancelScope",
    "Cancelling",
    "StopGate",
    "Stopped",
    "repeat_lost_stops",
]

UNHEARD_S = (
    0.5  #: after which a coroutine that was cancelled, and whose event loop has not got to it, is taken to be busy
)
LOST_LOOK_S: Final = 0.002  #: how often it is looked whether the interpreter is done with ignoring a stop


class Stopped(BaseException):
    """Raised in user code whose run was cancelled or ran out of time. No `except Exception` catches it."""


RAISE_IN_THREAD = (
    ctypes.pythonapi.PyThreadState_SetAsyncExc
)  #: (ident, exception): raised at the thread's next line of Python
STOPPED = ctypes.py_object(Stopped)


class CancelScope:
    """One flow run and everything below it. Cancelled once, for good; a child is cancelled with its parent."""

    __slots__ = ("_callbacks", "_lock", "_parent", "cancelled")

    def __init__(self, parent: CancelScope | None = None) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._parent = parent
        if parent is not None:
            parent.add(self.cancel)

    def leave(self) -> None:
        """The flow run has ended: its parent, which may go on for long, forgets it."""
        if self._parent is not None:
            self._parent.remove(self.cancel)

    def cancel(self) -> None:
        with self._lock:
            if self.cancelled:
                return
            self.cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def add(self, callback: Callable[[], object]) -> None:
        """Call `callback` when cancelled: at once if that has happened. It must not block."""
        with self._lock:
            if not self.cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def remove(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def check(self) -> None:
        """
        Raises:
            Stopped: the scope was cancelled.
        """
        if self.cancelled:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or until cancelled.

        Raises:
            Stopped: the scope was cancelled.
        """
        woken = threading.Event()
        self.add(woken.set)
        try:
            woken.wait(seconds)
        finally:
            self.remove(woken.set)
        self.check()


class Cancelling(Protocol):
    """A coroutine in an event loop of its own, which can be cancelled from other threads."""

    asked: bool  #: to be cancelled
    heard: bool  #: its loop has cancelled it

    def ask(self) -> None: ...


class StopGate:
    """One thread that may be told to stop. It is stopped while the gate is open, which it is around the user's function, and not while a
    line is logged: a thread that is stopped in between could leave the lock of a handler held for ever.

    Stopping is an exception at the next line of Python; a thread in C code, or one that waits for a lock, hears of it afterwards. A
    coroutine is cancelled instead: an exception in the code of its event loop would be caught there and be lost, or with it the callback by
    which the coroutine goes on.
    """

    __slots__ = ("coroutine", "ident", "is_open", "lock", "lost", "requested")

    def __init__(self) -> None:
        self.ident = ctypes.c_ulong(threading.get_ident())
        self.lock = threading.Lock()
        self.is_open = False
        self.requested = False
        self.lost = False  #: the interpreter has just ignored a stop
        self.coroutine: Cancelling | None = None  #: that its event loop runs

    def __enter__(self) -> None:
        with self.lock:
            requested, self.requested = self.requested, False
            self.is_open = not requested
        if requested:
            raise Stopped

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.is_open = False

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Not stopped in this block; a stop that was asked for meanwhile comes at its end."""
        with self.lock:
            was_open, self.is_open = self.is_open, False
        try:
            yield
        finally:
            if was_open:
                self.__enter__()

    @contextmanager
    def runs(self, coroutine: Cancelling) -> Iterator[None]:
        """In this block the thread's event loop runs `coroutine`."""
        with self.lock:
            before, self.coroutine = self.coroutine, coroutine
        try:
            yield
        finally:
            with self.lock:
                self.coroutine = before

    def stop(self) -> bool:
        """Tell the thread to stop. False where a coroutine is told: ask again after `UNHEARD_S`, since one that is busy between two awaits
        has not heard of it, and is then stopped as other code is."""
        repeat_lost_stops()
        told = self.coroutine
        if told is not None and not told.asked:
            told.ask()
            return False
        with self.lock:
            if not self.is_open:
                self.requested = True
            elif told is None or not told.heard:
                RAISE_IN_THREAD(self.ident, STOPPED)
        return True


class _Gates(threading.local):
    """The gate of each thread that has one."""

    gate: StopGate | None = None


GATES = _Gates()


def repeat_lost_stops() -> None:
    """From now on a stop comes again that was raised where the interpreter ignores what is raised: in `__del__`, or in the callback of a weak
    reference, both of which may run in the midst of any other code. To be called before a thread is told to stop."""
    hook = sys.unraisablehook
    if not isinstance(hook, _LostStops):  # or somebody has put another one above it, which calls it
        sys.unraisablehook = _LostStops(hook)


class _LostStops:
    """Hears of all that is ignored, and passes on what is no stop."""

    def __init__(self, before: Callable[[Any], object]) -> None:
        self._before = before

    def __call__(self, ignored: Any) -> None:
        gate = GATES.gate
        if gate is None or not issubclass(ignored.exc_type, Stopped):
            self._before(ignored)
            return
        # without the locks of `threading`, which may be held by what this interrupts
        _thread.start_new_thread(_stop_again, (gate,))
        # with no call behind it: who sees it knows that this function, in which a stop would be lost as well, has ended
        gate.lost = True


def _stop_again(gate: StopGate) -> None:
    while not gate.lost:
        sleep(LOST_LOOK_S)
    gate.lost = False
    gate.stop()
