"""Slots of named limits, counted among all who ask for them: runs of every worker, and scripts beside them.

A limit is one of the rules (`limits:`), else a variable of the deployment's `env`, `WHENTHEN_LIMIT_DATABASE: "3"`. Slots are somebody's: an
attempt's, who has them until it ends, or a lease's, who has them until its time is over. Slots of a limit with a rate come free with time,
counted by the clocks of those who ask: one that is behind gives none before the one that was ahead would have.

Called by `reports.run_requests` and by the API. Meaning: docs/flows.md, "Variables, secrets and limits".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final

from whenthen.schemas.deployments import ACTIVE
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound
from whenthen.schemas.times import format_time
from whenthen.schemas.work_pools import NamedLimit, same_name

if TYPE_CHECKING:
    from whenthen.runs.stores import Deployments, Stores

__all__ = ["Lease", "LimitState", "NamedLimits", "NoSuchLimit", "Rate", "Wanted", "read_wanted"]

MOST_SLOTS: Final = 1_000  #: of one request
MOST_NAMES: Final = 20  #: of limits in one request
SHORTEST_LEASE_S: Final = 5
LONGEST_LEASE_S: Final = 24 * 3600
_ROUNDING: Final = 1e-9  #: of slots that come free by parts
_LEASE: Final = "lease-"  #: begins the holders of slots that a lease has
_WRITTEN: Final = re.compile(r"\s*(\d{1,6})\s*")
_TRIES: Final = 50
_SHORTEST_WAIT_S: Final = 0.01
_HELD_WAIT_S: Final = 0.5  #: from one question for a lease to the next, while somebody has its slots


class NoSuchLimit(InvalidInput):
    """A limit is not known where it has to be, or has fewer slots than are asked for."""

    reason = "no_such_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Slots that are asked for."""

    names: tuple[str, ...]
    occupy: int
    mode: str  #: concurrency, or rate_limit
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many slots of a limit that has a rate were taken at a moment; since then some have come free."""

    taken: float
    at_s: float  #: seconds since 1970

    def now(self, limit: NamedLimit, now_s: float) -> Rate:
        """The same at a later moment."""
        free = max(0.0, now_s - self.at_s) * (limit.per_second or 0.0)
        return Rate(taken=max(0.0, self.taken - free), at_s=max(self.at_s, now_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Slots that somebody beside the runs has for a time."""

    id: str
    names: tuple[str, ...]
    occupy: int
    until: str  #: RFC 3339
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """A limit of the rules, and who has its slots."""

    limit: NamedLimit
    taken: float
    holders: tuple[str, ...]


class NamedLimits:
    """The limits that everybody shares. One for each process, or each attempt: the stores count."""

    def __init__(self, stores: Stores, deployments: Deployments, *, clock: Callable[[], datetime]) -> None:
        self._stores = stores
        self._deployments = deployments
        self._clock = clock

    def known(self, wanted: Wanted, environment: Mapping[str, str]) -> dict[str, NamedLimit] | None:
        """The limits that are asked for, in an order that is the same for all. None when one of them is none that is counted here.

        Raises:
            NoSuchLimit: one has fewer slots than are asked for, or no rate where slots are to come free with time.
        """
        found: dict[str, NamedLimit] = {}
        of_rules = self._deployments.named_limits()
        for same, name in sorted({same_name(name): name for name in wanted.names}.items()):
            limit = of_rules.get(same) or _of_environment(same, name, environment)
            if limit is None:
                return None
            if wanted.occupy > limit.slots:
                raise NoSuchLimit(
                    f"{wanted.occupy} slots of {limit.name!r} will never be free: there are {limit.slots}"
                )
            if wanted.mode == "rate_limit" and limit.per_second is None:
                if same not in of_rules:
                    return None  # of the environment: the process says what is wrong with it
                raise NoSuchLimit(
                    f"the slots of {limit.name!r} do not come free with time; give the limit `per_second` in the rules"
                )
            found[same] = limit
        return found

    async def take(self, holders: Sequence[str], limits: Mapping[str, NamedLimit]) -> float:
        """Take a slot of each limit for each holder, all or none. 0 when they are taken, else the seconds in which they may come free with
        time; infinity where somebody has to give them back."""
        taken: list[str] = []
        try:
            for name, limit in limits.items():
                wait_s = await self._take_of(name, limit, holders)
                if wait_s:
                    await self.give_back(holders, {one: limits[one] for one in taken})
                    return wait_s
                taken.append(name)
        except BaseException:
            # what was asked for last may have been taken, too; a slot that nobody holds is given back for nothing
            await self.give_back(
                holders, {one: limit for one, limit in limits.items() if one in taken or limit.per_second is None}
            )
            raise
        return 0.0

    async def give_back(self, holders: Sequence[str], limits: Mapping[str, NamedLimit]) -> None:
        """Give slots back; no error for what is not held."""
        for name, limit in limits.items():
            if limit.per_second is not None:
                await self._change_rate(name, limit, -len(holders))
                continue
            await self._stores.slots.release(_key(name), holders)

    async def _take_of(self, name: str, limit: NamedLimit, holders: Sequence[str]) -> float:
        if limit.per_second is not None:
            return await self._change_rate(name, limit, len(holders))
        taken = await self._stores.slots.acquire(_key(name), holders, limit.slots, self._held_slots())
        return 0.0 if taken else inf

    async def _change_rate(self, name: str, limit: NamedLimit, slots: int) -> float:
        """Take slots that come free with time, or with a number below 0 give them back. As `take`."""
        assert limit.per_second is not None
        for _ in range(_TRIES):
            now_s = self._clock().timestamp()
            found = await self._stores.slots.rate(_key(name))
            rate = Rate(taken=0.0, at_s=now_s) if found is None else found[0].now(limit, now_s)
            if slots > 0 and rate.taken + slots > limit.slots + _ROUNDING:
                return max(_SHORTEST_WAIT_S, (rate.taken + slots - limit.slots) / limit.per_second)
            try:
                changed = replace(rate, taken=max(0.0, rate.taken + slots))
                await self._stores.slots.put_rate(_key(name), changed, 0 if found is None else found[1])
            except Conflict:
                continue
            return 0.0
        return _SHORTEST_WAIT_S

    async def is_held(self, holder: str) -> bool:
        """Whether the attempt that holds a slot goes on, or the time of its lease is not over."""
        owner, _, rest = holder.partition(".")
        if owner.startswith(_LEASE):
            found = await self._stores.slots.lease(owner.removeprefix(_LEASE))
            return found is not None and self._goes_on(found)
        stored = await self._stores.runs.get(owner)
        attempt = rest.partition(".")[0]
        return stored is not None and stored.run.state in ACTIVE and str(stored.run.attempt) == attempt

    def _held_slots(self) -> Callable[[str], Awaitable[bool]]:
        """As `is_held`, asked once for all slots that an attempt or a lease has."""
        known: dict[str, bool] = {}

        async def is_held(holder: str) -> bool:
            owner = holder.rpartition(".")[0] or holder
            if owner not in known:
                known[owner] = await self.is_held(holder)
            return known[owner]

        return is_held

    # Leases

    async def lease(self, wanted: Wanted, lasts_s: float) -> Lease | float | None:
        """Slots for somebody beside the runs, until the lease's time is over or it is given back. Else the seconds after which to ask again;
        None when the rules do not have the limit.

        Raises:
            NoSuchLimit: see `known`. InvalidInput: such a lease is none.
        """
        if not SHORTEST_LEASE_S <= lasts_s <= LONGEST_LEASE_S:
            raise InvalidInput(f"from {SHORTEST_LEASE_S} to {LONGEST_LEASE_S} seconds", path=("lease_s",))
        limits = self.known(wanted, {})
        if limits is None:
            return None
        lease = self._renewed(
            Lease(id=secrets.token_hex(16), names=tuple(limits), occupy=wanted.occupy, until="", lasts_s=lasts_s)
        )
        await self._stores.slots.put_lease(lease)
        wait_s = await self.take(_holders(lease), limits)
        if wait_s:
            await self._stores.slots.drop_lease(lease.id)
            return _HELD_WAIT_S if isinf(wait_s) else wait_s
        if wanted.mode == "rate_limit":
            await self._stores.slots.drop_lease(lease.id)  # nothing is given back
        return lease

    async def renew(self, id: str) -> Lease:
        """Begin the time of a lease anew.

        Raises:
            NotFound: it is over, was given back, or others have its slots: by another clock it was over.
        """
        found = await self._lease(id)
        if not self._goes_on(found):
            await self.release(id)
            raise NotFound(f"the lease {id!r} is over since {found.until}; ask for its slots again")
        await self._stores.slots.put_lease(renewed := self._renewed(found))
        if not await self._has_slots(found):  # looked at behind that: who asks for slots from now on lets it have them
            await self.release(id)
            raise NotFound(f"the lease {id!r} was renewed too late, and others have its slots; ask for them again")
        return renewed

    async def _has_slots(self, lease: Lease) -> bool:
        """Whether the slots that somebody has to give back are the lease's."""
        limits = self._deployments.named_limits()
        for name in lease.names:
            if name in limits and limits[name].per_second is None:
                held = await self._stores.slots.holders(_key(name))
                if not set(held).issuperset(_holders(lease)):
                    return False
        return True

    async def release(self, id: str) -> None:
        """Give back the slots of a lease. Raises `NotFound`."""
        found = await self._lease(id)
        holders = _holders(found)
        # whatever the rules say of them by now
        for name in found.names:
            await self._stores.slots.release(_key(name), holders)
        of_rules = self._deployments.named_limits()
        rates = {
            name: of_rules[name] for name in found.names if name in of_rules and of_rules[name].per_second is not None
        }
        await self.give_back(holders, rates)
        await self._stores.slots.drop_lease(id)

    async def states(self) -> list[LimitState]:
        """The limits of the rules, by name."""
        found = []
        now_s = self._clock().timestamp()
        for name, limit in self._deployments.named_limits().items():
            if limit.per_second is None:
                held = self._held_slots()
                holders = [each for each in await self._stores.slots.holders(_key(name)) if await held(each)]
                found.append(LimitState(limit=limit, taken=len(holders), holders=_owners(holders)))
            else:
                stored = await self._stores.slots.rate(_key(name))
                taken = 0.0 if stored is None else stored[0].now(limit, now_s).taken
                found.append(LimitState(limit=limit, taken=taken, holders=()))
        return sorted(found, key=lambda each: each.limit.name)

    async def _lease(self, id: str) -> Lease:
        found = await self._stores.slots.lease(id) if re.fullmatch("[0-9a-f]{32}", id) else None
        if found is None:
            raise NotFound(f"there is no lease {id[:80]!r}, or its time is over")
        return found

    def _renewed(self, lease: Lease) -> Lease:
        return replace(lease, until=format_time(self._clock() + timedelta(seconds=lease.lasts_s)))

    def _goes_on(self, lease: Lease) -> bool:
        return self._clock() < datetime.fromisoformat(lease.until)


def read_wanted(body: Mapping[str, Any]) -> Wanted:
    """
    Raises:
        InvalidInput: it asks for no slots.
    """
    names, occupy = body.get("names"), body.get("occupy", 1)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MOST_NAMES:
        raise InvalidInput(f"names of limits, at most {MOST_NAMES}", path=("names",))
    if not isinstance(occupy, int) or isinstance(occupy, bool) or not 1 <= occupy <= MOST_SLOTS:
        raise InvalidInput(f"a number of slots from 1 to {MOST_SLOTS}", path=("occupy",))
    mode = body.get("mode", "concurrency")
    if mode not in ("concurrency", "rate_limit"):
        raise InvalidInput("concurrency or rate_limit", path=("mode",))
    return Wanted(names=tuple(names), occupy=occupy, mode=mode, strict=body.get("strict") is True)


def _of_environment(same: str, name: str, environment: Mapping[str, str]) -> NamedLimit | None:
    """The limit of a deployment's own `env`, if it is one that is counted here."""
    written = environment.get(f"WHENTHEN_LIMIT_{same}")
    counted = None if written is None else _WRITTEN.fullmatch(written)
    if counted is None or int(counted[1]) < 1:
        return None
    return NamedLimit.model_construct(name=name, slots=int(counted[1]), per_second=None)


def _holders(lease: Lease) -> list[str]:
    return [f"{_LEASE}{lease.id}.{number}" for number in range(lease.occupy)]


def _owners(holders: Iterable[str]) -> tuple[str, ...]:
    """The runs and leases, each once."""
    return tuple(dict.fromkeys(each.partition(".")[0] for each in holders))


def _key(name: str) -> str:
    return f"@limit/WHENTHEN_LIMIT_{name}"
