"""The connections of a listening socket, taken one after the other while there is room for them.

Who connects while there is none waits in the system's queue, where what it sends is kept, or is told by the system that the queue is full.
Called by `report_socket`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["ConnectionQueue"]

log = logging.getLogger(__name__)

AT_ONCE: Final = 16  #: that are taken before others have the event loop
SHORTAGE_S: Final = 1.0  #: from when the system lacks what a connection needs until it is tried again


class ConnectionQueue:
    """Gives each connection to `take`, in the order in which they were made. `go_on` begins, and goes on when there is room again."""

    def __init__(
        self, listening: socket.socket, *, take: Callable[[socket.socket], None], has_room: Callable[[], bool]
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._take = take
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None

    def go_on(self) -> None:
        if self._listening.fileno() >= 0 and self._later is None:
            self._loop.add_reader(self._listening, self._arrived)

    def rest(self) -> None:
        """Take none until `go_on`."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)

    async def take_next(self) -> bool:
        """Take the next one, at rest. Gives whether there was one."""
        while True:
            try:
                return self._take_next()
            except OSError as error:
                _warn(error)
                await asyncio.sleep(SHORTAGE_S)

    def close(self) -> None:
        self.rest()
        self._listening.close()

    def _arrived(self) -> None:
        try:
            for _ in range(AT_ONCE):
                if not self._has_room():
                    self.rest()
                    return
                if not self._take_next():
                    return
        except OSError as error:
            _warn(error)
            self.rest()
            self._later = self._loop.call_later(SHORTAGE_S, self._after_shortage)

    def _after_shortage(self) -> None:
        self._later = None
        self.go_on()

    def _take_next(self) -> bool:
        """
        Raises:
            OSError: the system lacks what it needs.
        """
        try:
            made, _ = self._listening.accept()
        except BlockingIOError:
            return False
        self._take(made)
        return True


def _warn(error: OSError) -> None:
    log.warning("a process of a run waits for its connection: %s", error)
