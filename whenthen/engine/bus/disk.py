"""Free space on the disk of the embedded nats-server, and whether events from outside are accepted.

Called before an event is published, and by maintenance. Below the reserve no event is accepted, so that the accepted
ones can be evaluated and their actions performed and stored. `engine.bus.embedded` handles a disk that is full all the same.
Meaning: docs/reliability.md, "A full disk".
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
_MEASURE_EVERY_S = 0.1


def free_bytes(directory: Path) -> int:
    """The bytes that an unprivileged user may still write to the file system of `directory`."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class DiskRoom:
    """The free space on the file system of `directory`, of which `reserve_bytes` are reserved for accepted events."""

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
        self._measured = float("-inf")
        self._left = 0
        self._refusing = False
        metrics.disk_reserve.set(reserve_bytes)

    def admit(self) -> None:
        """Check that an event may be accepted.

        Raises:
            BusUnavailable: less than the reserve is free; its `reason` is `DISK_FULL`.
        """
        if self._clock() - self._measured >= _MEASURE_EVERY_S:
            self.measure()
        if self._refusing:
            raise unavailable(
                f"the disk of {self._directory} is full: {_mb(self._left)} are free, and {_mb(self._reserve)} are reserved for "
                "accepted events (disk_reserve); free space on it, then send the event again",
                DISK_FULL,
            )

    def measure(self) -> None:
        """Measure the free space now."""
        self._measured = self._clock()
        try:
            left = self._free(self._directory)
        except OSError as error:  # the last measurement counts
            log.warning("the free space on the disk of %s can not be measured: %s", self._directory, error)
            return
        self._left = left
        self._metrics.disk_free.set(left)
        was = self._refusing
        # accept again a tenth above the reserve (hysteresis)
        self._refusing = left < self._reserve + (self._reserve // 10 if was else 0)
        if self._refusing and not was:
            log.error(
                "the disk of %s is full: %s are free, less than disk_reserve (%s); events are answered 503 until more is free",
                self._directory,
                _mb(left),
                _mb(self._reserve),
            )
        elif was and not self._refusing:
            log.warning("the disk of %s has %s free again; events are accepted", self._directory, _mb(left))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
