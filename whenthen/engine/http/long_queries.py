"""How many long queries run at one time: those that read and evaluate a large part of the log for one answer (`why`, `record`, `trace`).

Each gives way to others after some milliseconds, and still many at once take the time of the event loop that evaluation, leases and
the connection to NATS need. So a few run, some wait, and the others are answered 503. Those of
the pages count as well. Called by `routes` and `pages`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whenthen.engine.http.answers import RETRY_AFTER_S, HttpError

__all__ = ["AT_ONCE", "MOST_WAITING", "LongQueries"]

AT_ONCE = 2
MOST_WAITING = 20


class LongQueries:
    """The turns of long queries, first come, first served."""

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(AT_ONCE)
        self._begun = 0  #: that run or wait

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, and have it.

        Raises:
            HttpError: too many wait.
        """
        if self._begun >= AT_ONCE + MOST_WAITING:
            raise HttpError(
                503,
                "busy",
                f"{AT_ONCE} queries of this kind run and {MOST_WAITING} wait; try again later",
                (b"retry-after", str(RETRY_AFTER_S).encode()),
            )
        self._begun += 1
        try:
            async with self._running:
                yield
        finally:
            self._begun -= 1
