"""How full the streams are and how far the shards, as NATS has it: whichever process evaluates them."""

from __future__ import annotations

import asyncio
from datetime import datetime

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.disk import DiskRoom
from whenthen.engine.bus.request_client import refusal
from whenthen.engine.bus.streams import AUDIT, DECISIONS, ENGINE, EVENTS, RULES, RUNS
from whenthen.engine.evaluation import NatsEngineStore, read_offset
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.observation import Observation

__all__ = ["SystemQueries"]

_STREAMS = (EVENTS, ENGINE, DECISIONS, RUNS, "LOGS", AUDIT, RULES)
_AT_ONCE = 32  #: offsets that are asked for at one time; there are 256 shards at most


class SystemQueries:
    def __init__(self, bus: Bus, observation: Observation, *, shards: int, disk: DiskRoom | None) -> None:
        self._bus = bus
        self._lags = observation.lags
        self._shards = shards
        self._disk = disk

    async def system_sizes(self) -> answers.SystemSizes:
        """Raises BusUnavailable."""
        found = await asyncio.gather(*(self._size(name) for name in _STREAMS))
        sizes = [size for size, _ in found]
        if self._disk is not None:
            self._disk.look()
        return answers.SystemSizes(
            streams=sizes,
            shards=await self._positions(found[0][1]),
            disk_free=None if self._disk is None else self._disk.left,
            disk_reserve=0 if self._disk is None else self._disk.reserve,
        )

    async def _size(self, name: str) -> tuple[answers.StreamSize, int]:
        """A stream's size, and its last position."""
        answer = await self._bus.client.api(f"STREAM.INFO.{name}", {})
        if "error" in answer:
            raise refusal(f"asking for the size of {name}", answer["error"])
        state, limit = answer["state"], answer["config"].get("max_bytes") or -1
        empty = not state["messages"]
        size = answers.StreamSize(
            name=name,
            messages=state["messages"],
            bytes=state["bytes"],
            limit=limit if limit > 0 else None,
            oldest=None if empty else _time(state["first_ts"]),
            newest=None if empty else _time(state["last_ts"]),
        )
        return size, int(state["last_seq"])

    async def _positions(self, last: int) -> list[answers.ShardPosition]:
        engine = NatsEngineStore(self._bus.client)
        found: list[answers.ShardPosition] = []
        for first in range(0, self._shards, _AT_ONCE):
            shards = range(first, min(first + _AT_ONCE, self._shards))
            offsets = await asyncio.gather(*(read_offset(engine, shard) for shard in shards))
            found += [
                answers.ShardPosition(
                    shard=shard,
                    read=offset.seq,
                    behind=self._lags.get(shard, max(0, last - offset.seq)),
                    exact=shard in self._lags,
                )
                for shard, offset in zip(shards, offsets, strict=True)
            ]
        return found


def _time(text: str) -> str:
    """NATS' time has nine digits of a second."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").isoformat().replace("+00:00", "Z")
