"""The database as the projectors use it: from a thread of its own, tried again until it is there, and said once what is wrong with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from whenthen.history import Cursor, Database, HistoryUnavailable, Keep, Projection, Retention, Rows

__all__ = ["HistoryWriter"]

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S = (0.2, 30.0)  #: the first pause, and the longest that it grows to
RETENTION_S = 600.0  #: between two looks at what is too old
STEP_PAUSE_S = 0.05  #: between two steps of dropping it


class HistoryWriter:
    """One thread for all writing: SQLite has one writer at a time, and the event loop none of its waiting."""

    def __init__(self, database: Database, keep: Keep) -> None:
        self.projection = Projection(database)
        self._retention = Retention(database, keep)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._trouble = ""

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in the thread; again while the database can not be used."""
        pause = RETRY_S[0]
        while True:
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except HistoryUnavailable as error:
                if self._trouble != error.reason:
                    log.error("%s", error)
                    self._trouble = error.reason
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])
                continue
            if self._trouble:
                log.warning("the history is written again")
                self._trouble = ""
            return found

    async def write(self, moves: Sequence[tuple[Cursor, Cursor]], rows: Rows) -> None:
        """See `Projection.write`. Raises `CursorMoved`."""
        await self.do(lambda: self.projection.write(moves, rows))
        if rows.unreadable:
            log.warning(
                "%d messages of %s are none of ours and not in the history", rows.unreadable, moves[0][0].stream
            )

    async def retain(self) -> None:
        """Drop what is too old, a step at a time, until cancelled."""
        while True:
            while await self.do(lambda: self._retention.step(now_us=time.time_ns() // 1000)):
                await asyncio.sleep(STEP_PAUSE_S)
            await asyncio.sleep(RETENTION_S)

    def close(self) -> None:
        """End the thread after what it does now."""
        self._thread.shutdown(wait=True, cancel_futures=True)
