"""The disk of the embedded nats-server, and whether events from outside are accepted: while there is room, and the store is there.

Called before an event is published, and by maintenance. Below the reserve no event is accepted, so that the accepted
ones can be evaluated and their actions performed and stored. `engine.bus.embedded` handles a disk that is full all the same.
A store that was removed, or in whose place there is another one, is gone: nats-server goes on writing to files that nobody finds
again, and acknowledges them. Meaning: docs/reliability.md, "A full disk" and "A data directory that goes away".
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from whenthen.engine.bus.request_client import unavailable
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.metrics import Metrics

__all__ = ["DATA_GONE", "DISK_FULL", "DiskRoom", "StoreFolder", "free_bytes"]

log = logging.getLogger(__name__)

DISK_FULL = "disk_full"  #: `reason` of the `BusUnavailable` that refuses an event
DATA_GONE = "data_directory_gone"  #: the same, while the store is not where it was
_MEASURE_EVERY_S = 0.1
#: below the data directory: what nats-server writes to; those of streams are made after the start
_STORE = ("", "nats/store/jetstream", *(f"nats/store/jetstream/$G/streams/{name}/msgs" for name in (EVENTS, ENGINE)))


def free_bytes(directory: Path) -> int:
    """The bytes that an unprivileged user may still write to the file system of `directory`."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class StoreFolder:
    """The folders that a nats-server writes to, each known by its inode since it was first seen."""

    def __init__(self, directory: Path) -> None:
        self._paths = [directory / part for part in _STORE]
        self._known: dict[Path, tuple[int, int]] = {}
        self.gone()

    def gone(self) -> str:
        """What of it is not there any more; empty when all is."""
        for path in self._paths:
            known = self._known.get(path)
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                if known is not None:
                    return f"{path} was removed"
                continue
            except OSError as error:
                return f"{path} can not be read: {error.strerror}"
            if known is None:
                self._known[path] = (found.st_dev, found.st_ino)
            elif known != (found.st_dev, found.st_ino):
                return f"{path} is another folder than the one that nats-server opened"
        return ""


class DiskRoom:
    """The free space on the file system of `directory`, of which `reserve_bytes` are reserved for accepted events."""

    def __init__(
        self,
        directory: Path,
        *,
        reserve_bytes: int,
        metrics: Metrics,
        gone: Callable[[], str] = lambda: "",
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
        self._look_for = gone
        self.gone = ""  #: what of the store is not there any more; empty when all is
        metrics.data_gone.set(0)
        metrics.disk_reserve.set(reserve_bytes)

    @property
    def left(self) -> int:
        """Bytes that were free when it was measured last."""
        return self._left

    @property
    def reserve(self) -> int:
        """Bytes that are reserved for accepted events."""
        return self._reserve

    def admit(self) -> None:
        """Check that an event may be accepted.

        Raises:
            BusUnavailable: less than the reserve is free, or the store is gone; its `reason` is `DISK_FULL` or `DATA_GONE`.
        """
        self.look()
        if self.gone:
            raise unavailable(
                f"the data directory is gone: {self.gone}; put it back where it was, or start the server again, then send the "
                "event again",
                DATA_GONE,
            )
        if self._refusing:
            raise unavailable(
                f"the disk of {self._directory} is full: {_mb(self._left)} are free, and {_mb(self._reserve)} are reserved for "
                "accepted events (disk_reserve); free space on it, then send the event again",
                DISK_FULL,
            )

    def look(self) -> None:
        """Have measurements that are no older than a tenth of a second."""
        if self._clock() - self._measured >= _MEASURE_EVERY_S:
            self.measure()

    def measure(self) -> None:
        """Look for the store, and measure the free space now."""
        self._measured = self._clock()
        gone, self.gone = self.gone, self._look_for()
        if self.gone and not gone:
            log.error(
                "the data directory is gone: %s; events are answered 503 until it is back or the server is started again",
                self.gone,
            )
        elif gone and not self.gone:
            log.warning("the data directory is back; events are accepted")
        self._metrics.data_gone.set(int(bool(self.gone)))
        if self.gone:
            return
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
