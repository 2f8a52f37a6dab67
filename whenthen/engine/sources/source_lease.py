"""Which process reads a source that its broker does not share? The one with its lease.

As in `engine.evaluation.leases` a lease is only about liveness: two processes that read the same for a moment make the same events,
whose ids JetStream knows. Clocks are never compared between machines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson

from whenthen.cancellation import end_task
from whenthen.engine.evaluation import LeaseSettings, LeaseStore, WrongRevision
from whenthen.schemas.errors import BusUnavailable

__all__ = ["SourceLease"]

log = logging.getLogger(__name__)


class SourceLease:
    """The lease called `key`, for the process `member`.

    A holder that dies is succeeded within `lease_s` and twice `renew_s`; one that stops gives its lease back. `elsewhere` is called
    whenever it is seen that another process has it.
    """

    def __init__(
        self,
        leases: LeaseStore,
        key: str,
        *,
        member: str,
        settings: LeaseSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        elsewhere: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._key = key
        self._member = member
        self._settings = settings or LeaseSettings()
        self._clock = clock
        self._elsewhere = elsewhere
        self._gives_way = asyncio.Event()
        self._revision = 0
        self._beat = 0
        self._seen: tuple[int, float] = (0, 0.0)  #: the revision of another holder, and since when it is unchanged

    def give_way(self) -> None:
        """Let another process have it, if one wants to."""
        self._gives_way.set()

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` whenever this process has the lease, until it is cancelled or `work` fails, which is raised."""
        while True:
            if not await self._try(self._take):
                await asyncio.sleep(self._settings.renew_s)
                continue
            task = asyncio.ensure_future(work())
            try:
                await self._keep(task)
            finally:
                await end_task(task)
                await asyncio.shield(self._release())
            if self._gives_way.is_set():
                self._gives_way.clear()
                self._elsewhere()
                await asyncio.sleep(self._settings.lease_s)
                continue
            if not task.cancelled() and task.exception() is None:
                return
            if not task.cancelled():
                task.result()

    async def _keep(self, task: asyncio.Future[None]) -> None:
        """Renew until the work has ended, or the lease was taken or has lapsed."""
        until = self._clock() + self._settings.lease_s
        while not task.done() and not self._gives_way.is_set():
            await asyncio.wait({task}, timeout=self._settings.renew_s)
            started = self._clock()
            renewed = await self._try(self._renew)
            if renewed:
                until = started + self._settings.lease_s
            elif renewed is False or self._clock() > until:
                log.warning("the lease %s was taken by another process, or has lapsed", self._key)
                return

    async def _try(self, step: Callable[[], Awaitable[bool]]) -> bool | None:
        """What a step gives; None when it is not known, as the bus can not be reached."""
        try:
            async with asyncio.timeout(self._settings.lease_s):
                return await step()
        except (BusUnavailable, TimeoutError) as error:
            log.info("the lease %s can not be renewed: %r", self._key, error)
            return None

    async def _take(self) -> bool:
        entry = await self._leases.get(self._key)
        revision, holder = (0, b"") if entry is None else (entry.revision, entry.value)
        name = _holder(holder)
        if name not in ("", self._member):
            if self._seen[0] != revision:
                self._seen = (revision, self._clock())
            if self._clock() - self._seen[1] <= self._settings.lease_s:
                self._elsewhere()
                return False
        self._revision = revision
        try:
            await self._write(self._member)
        except WrongRevision:
            return False
        return True

    async def _renew(self) -> bool:
        for _ in range(2):
            try:
                await self._write(self._member)
                return True
            except WrongRevision:
                entry = await self._leases.get(self._key)
                if entry is None or _holder(entry.value) != self._member:
                    return False
                self._revision = entry.revision  # our own write, whose answer was lost
        return False

    async def _write(self, holder: str) -> None:
        self._beat += 1
        value = orjson.dumps({"holder": holder, "beat": self._beat})
        self._revision = await self._leases.update(self._key, value, last=self._revision)

    async def _release(self) -> None:
        """Let others take it at once."""

        async def give_back() -> bool:
            try:
                await self._write("")
            except WrongRevision:
                return False
            return True

        await self._try(give_back)


def _holder(value: bytes) -> str:
    """Who holds a lease; nobody ("") when it was given back, or can not be read, so that it is taken and written anew."""
    try:
        found = orjson.loads(value)["holder"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
