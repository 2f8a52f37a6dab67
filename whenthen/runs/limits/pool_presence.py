"""A worker in its pool: it says that it is there, and sees whether the pool is paused, and which queues it has.

Called by `worker`. Meaning: docs/deployments.md, "Work pools".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from whenthen import __version__
from whenthen.runs.limits.pause_flags import is_pool_paused, pool_flag
from whenthen.runs.shared.served_places import give_back
from whenthen.runs.stores import Deployments, Stores
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.times import format_time
from whenthen.schemas.work_pools import WorkerRecord, WorkPool, is_served_pool

__all__ = ["PoolPresence"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0  #: at the pause flag; so long a worker may still start runs of a pool that was paused


class PoolPresence:
    """The presence of one worker."""

    def __init__(
        self,
        stores: Stores,
        deployments: Deployments,
        *,
        worker: str,
        pool: str,
        concurrency: int,
        every: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._stores = stores
        self._deployments = deployments
        self._worker = worker
        self._pool = pool
        self._concurrency = concurrency
        self._every = every
        self._since = format_time(clock())
        self._look_at = 0.0
        self.paused = False
        self._started = [pool]

    async def pools(self) -> list[str]:
        """The pools from which runs may be started, the first one first: those that are queues of this one, and this one; none while it is
        paused. What can not be read is as it was."""
        if asyncio.get_running_loop().time() < self._look_at:
            return self._started
        known = self._deployments.work_pools()
        own = known.get(self._pool) or WorkPool(name=self._pool)
        try:
            self.paused = await self._is_paused(own)
            queues = [known.get(name) or WorkPool(name=name) for name in own.queues]
            started = [queue.name for queue in queues if not await self._is_paused(queue)]
            self._started = [] if self.paused else [*started, self._pool]
        except WhenthenError as error:
            log.warning("worker %s can not see whether its pool is paused: %s", self._worker, error)
        self._look_at = asyncio.get_running_loop().time() + _LOOK_EVERY_S
        return self._started

    async def _is_paused(self, pool: WorkPool) -> bool:
        found = await self._stores.flags.get(pool_flag(pool.name))
        return is_pool_paused(pool, None if found is None else found[0])

    async def run(self, running: Callable[[], int]) -> None:
        """Say again and again that the worker is there, until cancelled."""
        place_given_back = not is_served_pool(self._pool)
        while True:
            record = WorkerRecord(
                name=self._worker,
                pool=self._pool,
                since=self._since,
                concurrency=self._concurrency,
                running=running(),
                version=__version__,
            )
            try:
                await self._stores.workers.put(record)
                if not place_given_back:
                    await give_back(self._stores.flags, self._pool)
                    place_given_back = True
            except WhenthenError as error:
                log.info("worker %s can not say that it is there: %s", self._worker, error)
            await asyncio.sleep(self._every.total_seconds())

    async def leave(self) -> None:
        """Say that the worker is gone. Where that can not be said the record expires."""
        with contextlib.suppress(WhenthenError, TimeoutError):
            async with asyncio.timeout(1):
                await self._stores.workers.remove(self._worker)
