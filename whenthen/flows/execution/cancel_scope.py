"""What ends a tree of runs early: a time-out, an interrupt, a worker's request. Whatever waits in the tree is woken and stops."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

__all__ = ["CancelScope", "Stopped", "stop_thread"]


class Stopped(BaseException):
    """Raised in user code whose run was cancelled or ran out of time. No `except Exception` catches it."""


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


def stop_thread(ident: int) -> None:
    """Raise `Stopped` in the thread as soon as it executes Python code; not while it is in C code, nor while it waits for a lock."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Stopped))
