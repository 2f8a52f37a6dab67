"""Which revision of the rules is a shard evaluated with? The one that its offset names, until a marker names a higher one.

What process evaluates the shard, and which files it has, makes no difference: so a replay of `EVENTS` with its markers gives the same
firings. Called by the loop of a shard (`engine.evaluation.shard_loop`). Meaning: docs/reliability.md, "One rule set for all".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.request_client import answered_unless
from whenthen.engine.evaluation.log_ports import EventLog
from whenthen.engine.evaluation.loop_ports import RuleRevisions
from whenthen.engine.rule_sets import REVISIONS_KEPT, RevisionDamaged, RevisionNotUnderstood
from whenthen.schemas.errors import BusUnavailable
from whenthen.triggers import RuleSet

__all__ = ["ShardRules"]

log = logging.getLogger(__name__)

FIRST_S = 0.2  #: between two looks for the first revision
LOOK_S = 0.1  #: how soon a shard that waits for good hears that it is to stop
MOST_LOOKED_AT = 2 * REVISIONS_KEPT  #: revisions, for one that can be read
MENDED_S = 5.0  #: before it is looked whether one of the damaged revisions was mended


class ShardRules:
    """The revision of one shard. `stopping` tells whether its loop is to end."""

    def __init__(self, shard: int, events: EventLog, revisions: RuleRevisions, *, stopping: Callable[[], bool]) -> None:
        self.number = 0  #: the revision in force
        self.stalled = ""  #: why the shard does not go on, as it can not have the revision that it needs
        self._shard = shard
        self._events = events
        self._revisions = revisions
        self._stopping = stopping

    async def load(self, offset: Offset) -> RuleSet | None:
        """The rules with which the shard goes on from its offset. None: it is to stop first.

        An offset without a revision, of a shard that is new or was written by an earlier version, adopts the one that the next marker
        names, as if that had always been in force, else the current one.
        """
        number = offset.rules or await self._adopted(offset.seq)
        while not number and not self._stopping():
            self._stall("the first revision of the rules")
            await asyncio.sleep(FIRST_S)
            number = await self._adopted(offset.seq)
        while number and not self._stopping():
            for candidate in range(number, max(0, number - MOST_LOOKED_AT), -1):
                try:
                    found = await self._find(candidate)
                except RevisionDamaged as error:
                    log.error("shard %d: %s; an older revision is looked for", self._shard, error)
                    if (
                        candidate == number
                        and not offset.rules
                        and (current := await self._answer(self._revisions.current)) > number
                    ):
                        number = current  # what the oldest marker names is not kept any more
                        break
                    continue
                if found is not None:
                    self.number = candidate
                return found
            else:
                self._stall(f"revision {number} of the rules and those before it, none of which can be read")
                await self._pause(MENDED_S)
        return None

    async def next_set(self, number: int) -> RuleSet | None:
        """The rules that come into force at a marker. None when it changes nothing, or the shard is to stop: then `stalled` says whether
        it still waits for them, and the marker must not be passed."""
        if number <= self.number:
            return None
        try:
            return await self._find(number)
        except RevisionDamaged as error:
            log.error("shard %d: %s; it goes on with revision %d", self._shard, error, self.number)
            return None

    async def _find(self, number: int) -> RuleSet | None:
        """A revision, once it can be read; None when the shard is to stop first.

        Raises:
            RevisionDamaged: it never can be.
        """

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: revision %d of the rules can not be read yet: %s", self._shard, number, error)

        try:
            found = await answered_unless(self._stopping, lambda: self._revisions.find(number), not_yet)
        except RevisionNotUnderstood as error:
            self._stall(f"revision {number} of the rules, which this version can not use: {error}")
            while not self._stopping():
                await asyncio.sleep(LOOK_S)
            return None
        except RevisionDamaged:
            self.stalled = ""
            raise
        self.stalled = "" if found is not None else self.stalled or f"revision {number} of the rules"
        return found

    async def _adopted(self, position: int) -> int:
        async def ask() -> int:
            return await self._events.next_marker(position) or await self._revisions.current()

        return await self._answer(ask)

    async def _answer(self, ask: Callable[[], Awaitable[int]]) -> int:
        """What `ask` gives, once it can be asked; 0 when the shard is to stop first."""

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: the revision of the rules is not known yet: %s", self._shard, error)

        return await answered_unless(self._stopping, ask, not_yet) or 0

    async def _pause(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while not self._stopping() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_S)

    def _stall(self, why: str) -> None:
        if why != self.stalled:
            self.stalled = why
            log.error("shard %d waits for %s", self._shard, why)
