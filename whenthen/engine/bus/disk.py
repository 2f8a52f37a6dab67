"""Room on the disk of the embedded nats-server: how much is left, and whether events from outside are still taken.

Asked by the HTTP side before it stores an event, and by the maintenance. Below the reserve nothing new is taken, so that what was
taken before can be evaluated, acted on and written down. What happens when the disk is full all the same is the
business of `engine.bus.embedded`; what is promised, of docs/reliability.md, "A full disk".
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from whenthen.engine.bus.request_client import unavailable
from whenthen.engine.metrics import Metrics

__all__ = ["DISK_FULL", "DiskRoom", "free_bytes"]

log = logging.getLogger(__name__)

DISK_FULL = "disk_full"  #: `reason` of the `BusUnavailable` that refuses an event
_LOOK_EVERY_S = 0.1


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write to the file system of `directory`."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class DiskRoom:
    """The room on the file system of `directory`, of which `reserve_bytes` are kept for work that was taken already."""

    def __init__(
        self,
        directory: Path,
        *,
        reserve_bytes: int,
        metrics: Metrics,
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._reserve = reserve_bytes
        self._metrics = metrics
        self._free = free
        self._clock = clock
        self._looked = float("-inf")
        self._left = 0
        self._refusing = False
        metrics.disk_reserve.set(reserve_bytes)

    def admit(self) -> None:
        """Let an event in.

        Raises:
            BusUnavailable: there is no room for it; its `reason` is `DISK_FULL`.
        """
        if self._clock() - self._looked >= _LOOK_EVERY_S:
            self.look()
        if self._refusing:
            raise unavailable(
                f"the disk of {self._directory} is full: {_mb(self._left)} are free, and {_mb(self._reserve)} are kept for "
                "what was taken already (disk_reserve); free space on it, then send the event again",
                DISK_FULL,
            )

    def look(self) -> None:
        """Measure now."""
        self._looked = self._clock()
        try:
            left = self._free(self._directory)
        except OSError as error:  # what was found last counts
            log.warning("the room on the disk of %s can not be measured: %s", self._directory, error)
            return
        self._left = left
        self._metrics.disk_free.set(left)
        was = self._refusing
        # a tenth above the reserve, so that it does not go back and forth
        self._refusing = left < self._reserve + (self._reserve // 10 if was else 0)
        if self._refusing and not was:
            log.error(
                "the disk of %s is full: %s are free, less than disk_reserve (%s); events are refused with 503 until there "
                "is room",
                self._directory,
                _mb(left),
                _mb(self._reserve),
            )
        elif was and not self._refusing:
            log.warning("the disk of %s has room again (%s free); events are taken", self._directory, _mb(left))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
