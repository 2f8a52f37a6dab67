"""The stores of artifacts and variables in memory, for tests; see `runs.memory_stores`."""

from __future__ import annotations

from dataclasses import replace

from whenthen.runs.shared.artifacts import ArtifactPage, ArtifactRecord
from whenthen.runs.shared.variables import VariableRecord
from whenthen.schemas.errors import Conflict

__all__ = ["MemoryArtifactStore", "MemoryVariableStore"]


class MemoryArtifactStore:
    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], ArtifactRecord] = {}
        self._seq = 0

    async def put(self, record: ArtifactRecord) -> None:
        self._seq += 1
        self._kept[record.key, record.run, record.id] = replace(record, seq=self._seq)

    async def get(self, id: str, *, run_id: str | None = None) -> ArtifactRecord | None:
        return next((one for one in self._newest() if one.id == id and run_id in (None, one.run)), None)

    async def of_key(self, key: str) -> ArtifactRecord | None:
        return next((one for one in self._newest() if one.key == key), None)

    async def page(
        self, *, run_id: str | None = None, key: str | None = None, limit: int, before: int | None = None
    ) -> ArtifactPage:
        fitting = (
            one
            for one in self._newest()
            if run_id in (None, one.run) and key in (None, one.key) and (before is None or one.seq < before)
        )
        return ArtifactPage([one for one, _ in zip(fitting, range(limit), strict=False)])

    def _newest(self) -> list[ArtifactRecord]:
        return sorted(self._kept.values(), key=lambda one: -one.seq)


class MemoryVariableStore:
    def __init__(self) -> None:
        self._kept: dict[str, tuple[VariableRecord, int]] = {}
        self._version = 0

    async def get(self, name: str) -> tuple[VariableRecord, int] | None:
        return self._kept.get(name)

    async def put(self, record: VariableRecord, version: int) -> int:
        self._check(record.name, version)
        self._version += 1
        self._kept[record.name] = (record, self._version)
        return self._version

    async def delete(self, name: str, version: int) -> None:
        self._check(name, version)
        del self._kept[name]

    async def count(self) -> int:
        return len(self._kept)

    async def all(self) -> list[VariableRecord]:
        return [self._kept[name][0] for name in sorted(self._kept)]

    def _check(self, name: str, version: int) -> None:
        if (self._kept[name][1] if name in self._kept else 0) != version:
            raise Conflict(f"variable {name!r} changed since version {version} was read")
