"""Who holds the slots of a deployment, in the bucket `WT_slots`: one record for each limited one (`runs.stores.SlotStore`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from whenthen.engine.bus.buckets import KvBucket, WrongRevision
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import legal_key
from whenthen.engine.flow_runs.flow_streams import SLOTS
from whenthen.schemas.errors import Conflict

__all__ = ["NatsSlotStore"]

_TRIES = 50


class NatsSlotStore:
    """See `runs.stores.SlotStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, SLOTS)

    async def acquire(self, name: str, holder: str, limit: int, alive: Callable[[str], Awaitable[bool]]) -> bool:
        for _ in range(_TRIES):
            held, version = await self._read(name)
            if holder in held:
                return True
            if len(held) >= limit:
                held = [other for other in held if await alive(other)]
            if len(held) >= limit:
                return False
            if await self._write(name, [*held, holder], version):
                return True
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def release(self, name: str, holder: str) -> None:
        for _ in range(_TRIES):
            held, version = await self._read(name)
            if holder not in held or await self._write(name, [other for other in held if other != holder], version):
                return
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def holders(self, name: str) -> list[str]:
        return (await self._read(name))[0]

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
