"""Windows of automations that are not in the rules: listed from their records in `ENGINE`, and forgotten on request.

A request is a flag in the bucket `WT_state` that every process reads (`engine.process.pauses`): whoever evaluates the shard acts on it. It
names since when the orphan is one, so it does not concern a later orphan of the same trigger. It is removed once no such orphan is left.
"""

from __future__ import annotations

from datetime import UTC, datetime

from whenthen.engine.bus.connection import Bus
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.pauses import FORGET_PREFIX
from whenthen.engine.process.queries.shard_records import orphan_records
from whenthen.runs import Flag, FlagStore
from whenthen.schemas.errors import Conflict, NotFound
from whenthen.schemas.times import format_time

__all__ = ["OrphanCommands"]

_TRIES = 20


class OrphanCommands:
    def __init__(self, bus: Bus, flags: FlagStore) -> None:
        self._bus = bus
        self._flags = flags

    async def list_orphans(self) -> list[answers.Orphan]:
        return [orphan for orphan, _ in await orphan_records(self._bus.client)]

    async def forget_orphans(self, name: str) -> list[answers.Orphan]:
        found = [
            each for each in await orphan_records(self._bus.client) if name in (each[0].automation, each[0].trigger)
        ]
        if not found:
            raise NotFound(
                f"no windows are kept for an automation or trigger {name[:200]!r}; whenthen automations orphans lists them"
            )
        for orphan, since_us in found:
            await self._request(orphan.trigger, since_us)
        return [orphan for orphan, _ in found]

    async def _request(self, trigger: str, since_us: int) -> None:
        key = FORGET_PREFIX + trigger
        flag = Flag(paused=True, changed=format_time(datetime.now(UTC)), note=str(since_us))
        for _ in range(_TRIES):
            before = await self._flags.get(key)
            try:
                await self._flags.put(key, flag, before[1] if before else 0)
                return
            except Conflict:
                continue
        raise Conflict(f"others keep asking for trigger {trigger} to be forgotten; try again")
