"""Who holds the slots of a deployment, in the bucket `WT_slots`: one record for each limited one; of slots that come
free with time how many were taken, and the leases of those who are no runs (`runs.stores.SlotStore`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict

import orjson

from whenthen.engine.bus.buckets import KvBucket, WrongRevision
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import legal_key
from whenthen.engine.flow_runs.flow_streams import SLOTS
from whenthen.runs.shared import named_limits
from whenthen.schemas.base import known_fields
from whenthen.schemas.errors import Conflict

__all__ = ["NatsSlotStore"]

_TRIES = 50
_RATES = "rate."  #: begins the keys of slots that come free with time
_LEASES = "lease."
# Every question for slots has an id of its own, and many that hold a lease die: neither its record nor the marker of its deletion stays.
_LEASE_STAYS_S = 3600  #: after its time: the clocks of who asks and of the server may differ
_MARKER_STAYS_S = 1


class NatsSlotStore:
    """See `runs.stores.SlotStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, SLOTS)

    async def acquire(
        self,
        name: str,
        holders: Sequence[str],
        limit: int,
        alive: Callable[[str], Awaitable[bool]],
        *,
        key: str = "",
    ) -> bool:
        wanted = dict.fromkeys(_entry(holder, key) for holder in holders)
        for _ in range(_TRIES):
            held, version = await self._read(name)
            new = wanted.keys() - set(held)
            if not new:
                return True
            if _count(held, key) + len(new) > limit:
                held = [
                    other
                    for other in held
                    if other in wanted or _key_of(other) != key or await alive(_holder_of(other))
                ]
            if _count(held, key) + len(new) > limit:
                return False
            if await self._write(name, [*held, *(entry for entry in wanted if entry in new)], version):
                return True
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def release(self, name: str, holders: Collection[str]) -> None:
        given_back = frozenset(holders)
        for _ in range(_TRIES):
            held, version = await self._read(name)
            left = [other for other in held if _holder_of(other) not in given_back]
            if len(left) == len(held) or await self._write(name, left, version):
                return
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def holders(self, name: str, *, key: str = "") -> list[str]:
        return [_holder_of(other) for other in (await self._read(name))[0] if _key_of(other) == key]

    async def rate(self, name: str) -> tuple[named_limits.Rate, int] | None:
        found = await self._bucket.get(_RATES + legal_key(name))
        if found is None:
            return None
        return named_limits.Rate(**known_fields(named_limits.Rate, orjson.loads(found.value))), found.number

    async def put_rate(self, name: str, rate: named_limits.Rate, version: int) -> None:
        key, data = _RATES + legal_key(name), orjson.dumps(asdict(rate))
        try:
            await self._bucket.update(key, data, revision=version)
        except WrongRevision:
            raise Conflict(f"the slots of {name!r} changed since version {version} was read") from None

    async def lease(self, id: str) -> named_limits.Lease | None:
        found = await self._bucket.get(_LEASES + legal_key(id))
        if found is None:
            return None
        fields = known_fields(named_limits.Lease, orjson.loads(found.value))
        return named_limits.Lease(**{**fields, "names": tuple(fields["names"])})

    async def put_lease(self, lease: named_limits.Lease) -> None:
        ttl_s = int(lease.lasts_s) + _LEASE_STAYS_S
        await self._bucket.put(_LEASES + legal_key(lease.id), orjson.dumps(asdict(lease)), ttl_s=ttl_s)

    async def drop_lease(self, id: str) -> None:
        await self._bucket.purge(_LEASES + legal_key(id), ttl_s=_MARKER_STAYS_S)

    async def _read(self, name: str) -> tuple[list[str], int]:
        found = await self._bucket.get(legal_key(name))
        return ([], 0) if found is None else (orjson.loads(found.value), found.number)

    async def _write(self, name: str, held: list[str], version: int) -> bool:
        key, data = legal_key(name), orjson.dumps(held)
        try:
            if version == 0:
                await self._bucket.create(key, data)
            else:
                await self._bucket.update(key, data, revision=version)
        except WrongRevision:
            return False
        return True


# One record has the holders of all keys, so that it is the runs that are active which bound its size, and not the values that a
# parameter ever had.


def _entry(holder: str, key: str) -> str:
    return f"{holder} {key}" if key else holder


def _holder_of(entry: str) -> str:
    return entry.partition(" ")[0]


def _key_of(entry: str) -> str:
    return entry.partition(" ")[2]


def _count(held: list[str], key: str) -> int:
    return sum(_key_of(entry) == key for entry in held)
