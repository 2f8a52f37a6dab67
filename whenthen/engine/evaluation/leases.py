"""Who evaluates which shard: members, leases in a `LeaseStore`, and the loop that holds them.

Called by the wiring. A lease is only about liveness: that somebody evaluates each shard, and no two processes for long.
Correctness is the commit's (`engine.evaluation.commits.commit`), which fences out a process that lost its shard. Clocks are never compared between
machines: a holder judges its own lease by its monotonic clock, and others by how long their entry's revision has not
changed as seen from here.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from whenthen.cancellation import end_task, wait_event
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.evaluation.log_ports import Fenced, LeaseEntry, LeaseStore, WrongRevision
from whenthen.schemas.errors import BusUnavailable, SetupError

__all__ = ["Lease", "LeaseSettings", "ShardHolder", "ShardWork", "assign"]

log = logging.getLogger(__name__)

#: a shard whose evaluation failed is taken again at once; if it fails again, after so long, and then after twice as long
BACK_OFF_S = (0.5, 30.0)
HEALTHY_S = 60.0  #: a shard that was evaluated for so long is believed to be well
MEMBER_LEASES = 20  #: leases' time without a sign of life after which a member's entry is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """`lease_s` plus one `renew_s` is how long a shard is not evaluated when its holder dies."""

    lease_s: float = 3.0
    renew_s: float = 0.5
    stop_s: float = 20.0  #: how long a shard may take to commit and stop before it is cancelled


@dataclass(slots=True)
class Lease:
    """A shard's lease as its holder has it."""

    shard: int
    revision: int
    until: float  #: by the holder's monotonic clock
    lost: bool = False  #: another process has it, or the entry was deleted

    def held(self, now: float) -> bool:
        """Whether nobody else can have taken it by `now` (monotonic)."""
        return not self.lost and now < self.until


@dataclass(slots=True)
class _Seen:
    """An entry of the store: its revision, and since when it is unchanged, by our monotonic clock."""

    revision: int
    since: float
    value: bytes


class ShardWork(Protocol):
    """What is run for a shard; `whenthen.engine.evaluation.shard_loop.ShardLoop` is one."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...


def assign(members: Iterable[str], shards: int, holders: dict[int, str] | None = None) -> dict[int, str]:
    """Which member evaluates which shard: loads differ by at most one, and few shards move when members come and go.

    A present holder keeps its shards as far as its fair share goes. Every member computes the same from the same view.
    """
    present = sorted(set(members))
    if not present:
        return {}
    low, extra = divmod(shards, len(present))
    load = dict.fromkeys(present, 0)
    result: dict[int, str] = {}
    larger = extra  # how many members may still have one more than `low`
    for shard in range(shards):
        holder = (holders or {}).get(shard)
        if holder not in load:
            continue
        if load[holder] < low:
            load[holder] += 1
        elif load[holder] == low and larger:
            load[holder] += 1
            larger -= 1
        else:
            continue
        result[shard] = holder
    for shard in range(shards):
        if shard not in result:
            member = min(present, key=lambda name: (load[name], name))
            load[member] += 1
            result[shard] = member
    return result


@dataclass(slots=True)
class _Held:
    lease: Lease
    work: ShardWork
    task: asyncio.Task[None]
    since: float
    stopping_since: float | None = None


@dataclass(slots=True)
class _View:
    """The store as it was last read."""

    members: dict[str, _Seen] = field(default_factory=dict)
    leases: dict[int, _Seen] = field(default_factory=dict)


class ShardHolder:
    """Takes a fair share of the shards, keeps their leases and runs their work until `stop`."""

    def __init__(
        self,
        leases: LeaseStore,
        shards: int,
        start_work: Callable[[int], ShardWork | Awaitable[ShardWork]],
        *,
        member: str = "",
        settings: LeaseSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shards = shards
        self.member = member or uuid.uuid4().hex
        self.settings = settings or LeaseSettings()
        self.failed: BaseException | None = None  #: what ended a shard for good, such as `SetupError`
        self._leases = leases
        self._start_work = start_work
        self._clock = clock
        self._view = _View()
        self._held: dict[int, _Held] = {}
        self._beat = 0
        self._stopping = asyncio.Event()
        self._failures: dict[int, int] = {}  #: in a row, by shard
        self._not_before: dict[int, float] = {}

    @property
    def held(self) -> dict[int, ShardWork]:
        """The shards that are evaluated here now."""
        now = self._clock()
        return {shard: held.work for shard, held in self._held.items() if held.lease.held(now)}

    @property
    def held_elsewhere(self) -> list[int]:
        """The shards whose lease another process has, as far as is known here."""
        return [shard for shard in self._view.leases if shard not in self._held and not self._is_untaken(shard)]

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Hold shards until `stop`, then commit, release the leases and leave.

        Raises:
            SetupError: a shard can not be evaluated here or anywhere.
        """
        try:
            while not self._stopping.is_set() and self.failed is None:
                started = self._clock()
                try:
                    async with asyncio.timeout(self.settings.lease_s):
                        await self._round()
                except (BusUnavailable, TimeoutError) as error:
                    log.info("leases can not be renewed: %r", error)
                self._cancel_lost()
                left = self.settings.renew_s - (self._clock() - started)
                await wait_event(self._stopping, max(left, 0.01))
        finally:
            await self._leave()
        if self.failed is not None:
            raise self.failed

    async def _round(self) -> None:
        """Renew, read the other members and leases, take shards and hand over."""
        self._beat += 1
        await self._leases.put(f"member.{self.member}", str(self._beat).encode())
        for held in list(self._held.values()):
            await self._renew(held)
        await self._read_view()
        wanted = assign(self._alive(), self.shards, self._holders())
        for shard, member in wanted.items():
            if member == self.member and shard not in self._held and self._free(shard):
                await self._take(shard)
        for shard, held in list(self._held.items()):
            if held.task.done():
                await self._work_ended(shard, held)
            elif wanted.get(shard) != self.member and held.stopping_since is None:
                log.info("shard %d: handing over to %s", shard, wanted.get(shard))
                held.stopping_since = self._clock()
                held.work.stop()
            elif held.stopping_since is not None and self._clock() > held.stopping_since + self.settings.stop_s:
                held.task.cancel()

    async def _read_view(self) -> None:
        now = self._clock()
        view = _View()
        for entry in await self._leases.entries():
            kind, _, name = entry.key.partition(".")
            if kind == "shard":
                view.leases[int(name)] = _seen(entry, self._view.leases.get(int(name)), now)
            elif entry.value:
                view.members[name] = _seen(entry, self._view.members.get(name), now)
        self._view = view
        for name, seen in view.members.items():
            if now - seen.since > MEMBER_LEASES * self.settings.lease_s:
                await self._leases.delete(f"member.{name}")

    def _alive(self) -> list[str]:
        now = self._clock()
        present = [name for name, seen in self._view.members.items() if now - seen.since <= self.settings.lease_s]
        return [*present, self.member]

    def _holders(self) -> dict[int, str]:
        return {shard: _holder(seen.value) for shard, seen in self._view.leases.items() if seen.value}

    def _free(self, shard: int) -> bool:
        if self._not_before.get(shard, 0.0) > self._clock():
            return False  # it failed here a moment ago; another member may try meanwhile
        return self._is_untaken(shard)

    def _is_untaken(self, shard: int) -> bool:
        seen = self._view.leases.get(shard)
        if seen is None or not seen.value or _holder(seen.value) in ("", self.member):
            return True
        return self._clock() - seen.since > self.settings.lease_s

    def _record(self, holder: str) -> bytes:
        return orjson.dumps({"holder": holder, "beat": self._beat})

    async def _take(self, shard: int) -> None:
        started = self._clock()
        seen = self._view.leases.get(shard)
        try:
            revision = await self._leases.update(
                f"shard.{shard}", self._record(self.member), last=seen.revision if seen else 0
            )
        except WrongRevision:
            return  # another member was faster
        lease = Lease(shard, revision, started + self.settings.lease_s)
        made = self._start_work(shard)
        work = await made if isinstance(made, Awaitable) else made
        log.info("shard %d: taken", shard)
        self._held[shard] = _Held(lease, work, asyncio.create_task(work.run(), name=f"shard {shard}"), started)

    async def _renew(self, held: _Held) -> None:
        started = self._clock()
        lease = held.lease
        if lease.lost:
            return
        if await self._write(lease, self.member):
            lease.until = started + self.settings.lease_s
        else:
            lease.lost = True
            log.warning("shard %d: the lease was taken by another process", lease.shard)

    async def _write(self, lease: Lease, holder: str) -> bool:
        """Write the entry of a lease that was ours; False when it is not any more. A revision that is not the expected one may
        be our own: of a write whose answer was lost."""
        key = f"shard.{lease.shard}"
        for _ in range(2):
            try:
                lease.revision = await self._leases.update(key, self._record(holder), last=lease.revision)
                return True
            except WrongRevision:
                entry = await self._leases.get(key)
                if entry is None or _holder(entry.value) != self.member:
                    return False
                lease.revision = entry.revision
        raise unavailable(f"{key} can not be read: a replica that lags answered", BusReason.TIMEOUT)

    def _cancel_lost(self) -> None:
        """Cancel the work of leases that were taken: its commits would be refused. A lease that only lapsed is no reason:
        nobody else may be there to take the shard."""
        now = self._clock()
        for held in self._held.values():
            if held.lease.lost:
                held.task.cancel()
            elif not held.lease.held(now):
                log.debug("shard %d: the lease lapsed; it goes on until another process commits", held.lease.shard)

    async def _work_ended(self, shard: int, held: _Held) -> None:
        del self._held[shard]
        error = None if held.task.cancelled() else held.task.exception()
        if isinstance(error, Fenced):
            log.warning("%s", error)
        elif isinstance(error, SetupError):
            self.failed = error
        elif error is not None:
            self._back_off(held, error)
        await self._release(held.lease)

    def _back_off(self, held: _Held, error: BaseException) -> None:
        """Wait before the shard of a loop that failed is taken again."""
        shard, now = held.lease.shard, self._clock()
        failures = 0 if now - held.since > HEALTHY_S else self._failures.get(shard, 0)
        self._failures[shard] = failures + 1
        wait_s = min(BACK_OFF_S[0] * 2 ** (failures - 1), BACK_OFF_S[1]) if failures else 0.0
        self._not_before[shard] = now + wait_s
        log.error(
            "shard %d: evaluation failed, %d times in a row; it will be loaded again in %g s",
            shard,
            failures + 1,
            wait_s,
            exc_info=error,
        )

    async def _release(self, lease: Lease) -> None:
        """Let others take it at once."""
        if lease.lost:
            return
        if not await self._write(lease, ""):
            log.debug("shard %d: already taken by another process", lease.shard)

    async def _leave(self) -> None:
        """Commit and stop every shard, then release the leases and delete our member entry."""
        for held in self._held.values():
            held.work.stop()
        tasks = [held.task for held in self._held.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.settings.stop_s)
            for task in late:
                await end_task(task)
        try:
            for shard, held in list(self._held.items()):
                await self._work_ended(shard, held)
            await self._leases.delete(f"member.{self.member}")
        except BusUnavailable as error:
            log.info("leases were not released and will lapse: %r", error)


def _seen(entry: LeaseEntry, before: _Seen | None, now: float) -> _Seen:
    """An entry as read at `now`; `before` is what was known of its key."""
    if before is not None and before.revision == entry.revision:
        return before
    return _Seen(entry.revision, now, entry.value)


def _holder(value: bytes) -> str:
    """Who holds a lease; nobody ("") when the record can not be read, so that it can be taken and written anew."""
    try:
        found = orjson.loads(value)["holder"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
