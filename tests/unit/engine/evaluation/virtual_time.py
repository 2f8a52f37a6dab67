"""An asyncio event loop whose time passes only while nothing can run: hours of waiting take milliseconds, and always the same.

    result = run(work())        # `asyncio.get_running_loop().time()` is the clock

A loop in which nothing can ever happen again is a deadlock, and fails at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START_S = 1_000_000.0


class _Selector(selectors.DefaultSelector):
    now_s = START_S

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: no task can run, and no timer is set")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def now_us() -> int:
    """The running loop's time in microseconds, as the clock of a server."""
    return round(asyncio.get_running_loop().time() * 1_000_000)
