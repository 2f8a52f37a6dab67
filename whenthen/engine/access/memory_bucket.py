"""A bucket in this process's memory, for tests and for processes without a bus: what `engine.bus.buckets.KvBucket` does."""

from __future__ import annotations

from datetime import UTC, datetime

from whenthen.engine.bus.buckets import Revision, WrongRevision

__all__ = ["MemoryBucket"]


class MemoryBucket:
    """See `access_store.Bucket`."""

    def __init__(self) -> None:
        self._held: dict[str, Revision] = {}
        self._number = 0

    async def get(self, key: str) -> Revision | None:
        return self._held.get(key)

    async def create(self, key: str, value: bytes) -> int:
        if key in self._held:
            raise WrongRevision(key)
        return self._store(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        if key not in self._held or self._held[key].number != revision:
            raise WrongRevision(key)
        return self._store(key, value)

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        if revision is not None and (key not in self._held or self._held[key].number != revision):
            raise WrongRevision(key)
        self._held.pop(key, None)

    def _store(self, key: str, value: bytes) -> int:
        self._number += 1
        self._held[key] = Revision(value, self._number, datetime.now(UTC))
        return self._number
