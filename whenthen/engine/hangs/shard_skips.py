"""Which positions a shard passes over. Loaded with the shard, decided before it reads on.

    skips = ShardSkips(log, shard=0, shards=1)
    skips.restore(key, state)            # for each record that the shard has in ENGINE, under the trigger `SKIPS`
    await skips.settle(position, commit=..., notice=...)
    position in skips.ahead

The order makes that no process evaluates what another one has passed over, nor the other way round: a skip is first committed to
`ENGINE` under the shard's fence, then published to `EVENTS`, then the event is passed over. Whoever loads the shard next finds the
record, and publishes what was not. Records of positions that the shard has passed are forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from urllib.parse import unquote

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import until_answered
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.hangs.hang_counts import HangCounts, Hangs
from whenthen.engine.hangs.skipped_events import Skip, event_set_aside, skip_subject
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event
from whenthen.schemas.times import format_time

__all__ = ["MOST_TRIES", "SKIPS", "NatsSkipLog", "ShardSkips", "SkipLog"]

log = logging.getLogger(__name__)

SKIPS = "@skips"  #: in place of a trigger, in the records of a shard; no id of a trigger begins with @
MOST_TRIES = 2  #: processes that may hang on the same work before it is given up

#: stores records by key, None for forgotten ones, under the shard's fence
Commit = Callable[[Sequence[tuple[str, bytes | None]]], Awaitable[None]]


class SkipLog(Protocol):
    """Where hangs are counted and skips are told. Every operation may end with `BusUnavailable`."""

    async def hangs(self, shard: int) -> Mapping[int, Hangs]:
        """The positions on which processes hung in the shard."""

    async def event_id(self, position: int) -> str | None:
        """The id of the event at a position, without looking into it; None of a tick, or when it is not kept."""

    async def publish(self, skip: Skip) -> None:
        """Append a skip to the event log; the same one again within the log's memory is not appended again."""


class NatsSkipLog:
    """The `SkipLog` in the bucket `WT_hangs` and the stream `EVENTS`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._counts = HangCounts(bus)

    async def hangs(self, shard: int) -> Mapping[int, Hangs]:
        """See `SkipLog.hangs`."""
        return await self._counts.of_shard(shard)

    async def event_id(self, position: int) -> str | None:
        """See `SkipLog.event_id`. It is the message id: what hung a process may be in the message itself."""
        message = await self._bus.client.request(f"$JS.API.DIRECT.GET.{EVENTS}", orjson.dumps({"seq": position}))
        if message.headers.get("Status"):
            return None
        found = message.headers.get("Nats-Msg-Id")
        return None if found is None else unquote(found)

    async def publish(self, skip: Skip) -> None:
        """See `SkipLog.publish`."""
        await self._bus.store(skip_subject(skip.shard), skip.encode(), skip.message_id)


class ShardSkips:
    """The skips of one shard that lie before it. For one task."""

    def __init__(
        self,
        skip_log: SkipLog | None = None,
        *,
        shard: int = 0,
        shards: int = 1,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = skip_log
        self._shard = shard
        self._shards = shards
        self._now = now
        self.ahead: dict[int, Skip] = {}  #: by position, of those that the shard has not passed
        self._told: set[int] = set()  #: positions whose skip is published

    def restore(self, key: str, state: bytes) -> None:
        """Take in a record as the shard has stored it; an empty one is forgotten."""
        if not state:
            return
        try:
            told, fields = orjson.loads(state)[:2]
            skip = Skip.of(fields)
        except (ValueError, TypeError) as error:
            log.error("shard %d: the record of the skip %s can not be read: %s", self._shard, key, error)
            return
        self.ahead[skip.position] = skip
        if told:
            self._told.add(skip.position)

    async def settle(self, position: int, *, commit: Commit, notice: Callable[[Event], Awaitable[None]]) -> list[Skip]:
        """Decide what is passed over, with the shard at `position`; gives the skips that lie before it.

        Tries until all is stored and published. Raises what `commit` raises.
        """
        if self._log is None:
            return []
        skip_log = self._log
        changes: list[tuple[str, bytes | None]] = [(key, None) for key in self._forget(position)]
        hangs = await until_answered(lambda: skip_log.hangs(self._shard), self._not_yet)
        for at, found in sorted(hangs.items()):
            if at > position and at not in self.ahead and found.tries >= MOST_TRIES:
                skip = await self._skip(skip_log, at, found)
                self.ahead[at] = skip
                changes.append((str(at), _record(skip, told=False)))
        if changes:
            await commit(changes)
        untold = [skip for at, skip in self.ahead.items() if at not in self._told]
        for skip in untold:
            log.error(
                "shard %d: the event at position %d (%s)%s %s %d processes, the last was %s; it is set aside and passed over",
                skip.shard,
                skip.position,
                skip.event or "a tick",
                f", at automation {skip.automation}," if skip.automation else "",
                "crashed" if skip.reason == "crashed" else "hung",
                skip.tries,
                skip.process,
            )
            await until_answered(partial(skip_log.publish, skip), self._not_yet)
            await notice(event_set_aside(skip, now=self._now()))
            self._told.add(skip.position)
        if untold:
            await commit([(str(skip.position), _record(skip, told=True)) for skip in untold])
        return list(self.ahead.values())

    def _forget(self, position: int) -> list[str]:
        """Drop the skips that the shard has passed; gives the keys of their records."""
        gone = [at for at in self.ahead if at <= position]
        for at in gone:
            del self.ahead[at]
            self._told.discard(at)
        return list(map(str, gone))

    async def _skip(self, skip_log: SkipLog, position: int, hangs: Hangs) -> Skip:
        return Skip(
            shard=self._shard,
            shards=self._shards,
            position=position,
            event=await until_answered(lambda: skip_log.event_id(position), self._not_yet),
            automation=hangs.automation,
            reason=hangs.cause,
            tries=hangs.tries,
            process=hangs.process,
            at=format_time(self._now()),
        )

    def _not_yet(self, error: BusUnavailable) -> None:
        log.warning("shard %d: what hung processes is not known yet: %s", self._shard, error)


def _record(skip: Skip, *, told: bool) -> bytes:
    return orjson.dumps([told, asdict(skip)])
