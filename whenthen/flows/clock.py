"""The clocks of the SDK: the time of day for what is shown and for expiry, a steady one for what is waited for.

A clock that is set back or forward changes no delay and no time-out; those are measured with `steady`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

__all__ = ["LONGEST_WAIT_S", "AlarmClock", "processor_time", "sleep", "steady", "utc_now"]

T = TypeVar("T")

LONGEST_WAIT_S = (
    1e9  #: 31 years: threads can not be asked to wait much longer; who asks for more, or for infinity, gets this
)

_now = datetime.now


def utc_now() -> datetime:
    return _now(UTC)


steady = time.monotonic
processor_time = time.process_time  #: of all threads of this process
sleep = time.sleep


class AlarmClock(Generic[T]):
    """Calls `ring` with each thing that it was set for, after its time, in one daemon thread that is started for the first of them."""

    def __init__(self, ring: Callable[[T], object], *, name: str) -> None:
        self._ring = ring
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._alarms: list[tuple[float, int, T]] = []
        self._numbers = itertools.count()
        self._runs = False
        self._stopped = False

    def set(self, seconds: float, what: T) -> None:
        with self._lock:
            heapq.heappush(self._alarms, (steady() + seconds, next(self._numbers), what))
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._changed.notify()

    def ring_all(self) -> None:
        """Ring now whatever it is set for."""
        with self._lock:
            due, self._alarms = self._alarms, []
        for _, _, what in due:
            self._ring(what)

    def stop(self) -> None:
        """Ring all, and let the thread go. What it is set for later is rung by `ring_all` alone."""
        with self._lock:
            self._stopped = True
            self._changed.notify()
        self.ring_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._stopped and (not self._alarms or self._alarms[0][0] > steady()):
                    self._changed.wait(self._alarms[0][0] - steady() if self._alarms else None)
                if self._stopped:
                    return
                _, _, what = heapq.heappop(self._alarms)
            self._ring(what)
