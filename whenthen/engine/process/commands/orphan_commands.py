"""Windows of automations that are not in the rules: listed from their records in `ENGINE`, and forgotten on request.

A request is a flag in the bucket `WT_state` that every process reads (`engine.process.pauses`): whoever evaluates the shard acts on it. It
names since when the orphan is one, so it does not concern a later orphan of the same trigger.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

import orjson

from whenthen.engine.bus import ENGINE, Bus, decode_window, stored_messages
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.pauses import FORGET_PREFIX
from whenthen.runs import Flag, FlagStore
from whenthen.schemas import Conflict, NotFound, format_time, from_us

__all__ = ["OrphanCommands"]

_RECORDS = "engine.shard.*.window.orphan.*"
_MOST = 10_000  #: in one list
_TRIES = 20


class OrphanCommands:
    def __init__(self, bus: Bus, flags: FlagStore) -> None:
        self._bus = bus
        self._flags = flags

    async def list_orphans(self) -> list[answers.Orphan]:
        return [orphan for orphan, _ in await self._records()]

    async def forget_orphans(self, name: str) -> list[answers.Orphan]:
        found = [each for each in await self._records() if name in (each[0].automation, each[0].trigger)]
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

    async def _records(self) -> list[tuple[answers.Orphan, int]]:
        """The orphans, those that are away the longest first, and since when as stored."""
        config = {"filter_subject": _RECORDS, "deliver_policy": "last_per_subject"}
        found: dict[str, tuple[answers.Orphan, int]] = {}
        async with aclosing(stored_messages(self._bus.client, ENGINE, config)) as messages:
            async for message in messages:
                _, trigger, state = decode_window(message.data) if message.data else ("", "", b"")
                if not state:
                    found.pop(message.subject, None)
                    continue
                since_us, automation, keys, size = orjson.loads(state)[:4]
                orphan = answers.Orphan(
                    trigger=trigger,
                    automation=automation or None,
                    keys=keys,
                    bytes=size,
                    since=format_time(from_us(since_us)),
                )
                found[message.subject] = orphan, since_us
        return sorted(found.values(), key=lambda each: (each[1], each[0].trigger))[:_MOST]
