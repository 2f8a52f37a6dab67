"""How often has each automation of a shard fired, whichever process evaluated it?

A total for each firing would cost a message for each. So the totals are one record among the shard's windows, stored now and then at
the head of a commit; whoever loads the shard adds the firings that were stored after it. Called by the loop of a shard and by who stores
its batches. Read by `process.queries.shard_records`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from whenthen.engine.bus.request_client import until_answered
from whenthen.engine.evaluation.log_ports import ShardLog
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.firings import Firing, FiringState

__all__ = ["FIRED", "FiredTotal", "FiringCounts", "decode_totals"]

log = logging.getLogger(__name__)

FIRED = "@fired"  #: in place of a trigger, in the records of a shard; no id of a trigger begins with @
STORE_EVERY_S = 10.0  #: while firings are made; an idle shard stores them at once
MOST_ABSENT = 10_000  #: automations that are counted without being in the rules, such as those whose file is away


@dataclass(frozen=True, slots=True)
class FiredTotal:
    """How often an automation has fired, and when last."""

    count: int
    last: str  #: RFC 3339


def decode_totals(state: bytes) -> tuple[str, dict[str, FiredTotal]]:
    """Since when is counted (RFC 3339), and the totals by automation.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is no such record.
    """
    _, since, totals = orjson.loads(state)[:3]
    return since, {name: FiredTotal(int(count), str(last)) for name, (count, last) in totals.items()}


class FiringCounts:
    """The totals of one shard. For one task."""

    def __init__(self) -> None:
        self.totals: dict[str, FiredTotal] = {}
        self.since = ""  #: RFC 3339; empty as long as there is no record
        self._unstored = False
        self._store_at = 0.0

    def restore(self, state: bytes) -> None:
        """Take in the record as the shard has stored it. One that can not be read is as none."""
        try:
            self.since, self.totals = decode_totals(state)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            log.error("the numbers of firings can not be read, and begin anew: %r", error)

    def begin(self, now: str) -> None:
        """Count from now on when there is no record."""
        if not self.since:
            self.since, self._unstored = now, True

    async def catch_up(self, shard_log: ShardLog, automations: Collection[str], *, now: str) -> None:
        """Count the firings that are stored and not in the record; begin to count when there is no record. `now`: RFC 3339."""
        if self.since and shard_log.offset.uncounted:

            async def recent() -> list[bytes]:
                found: list[bytes] = []
                await shard_log.firings_after(FIRED, found.append)
                return found

            def not_yet(error: BusUnavailable) -> None:
                log.warning("shard %d: its firings are not counted yet: %s", shard_log.shard, error)

            for data in await until_answered(recent, not_yet):
                self.add_stored(data, automations)
        self.begin(now)

    def add_stored(self, data: bytes, automations: Collection[str]) -> None:
        """Count a firing of one of `automations`, those of the shard, that is in the store and not in the record."""
        try:
            fields = orjson.loads(data)
            if fields["automation"] in automations and fields["state"] == FiringState.TRIGGERED:
                self._add(fields["automation"], fields["at"])
        except (ValueError, TypeError, KeyError) as error:
            log.error("a firing can not be read, and is not counted: %r", error)

    def add(self, firings: Sequence[Firing]) -> None:
        """Count firings that are stored now."""
        for firing in firings:
            if firing.state is FiringState.TRIGGERED:
                self._add(firing.automation, firing.at)

    def unstored_with(self, firings: Sequence[Firing] = ()) -> bool:
        """Whether there are numbers that the record has not when these firings are stored, too."""
        return self._unstored or any(firing.state is FiringState.TRIGGERED for firing in firings)

    def due(self, monotonic: float, *, idle: bool = False) -> bool:
        """Whether the record is to be stored with the next commit."""
        return self._unstored and (idle or monotonic >= self._store_at)

    def record(self, monotonic: float, *, clock_us: int, automations: Collection[str]) -> bytes:
        """The state to be stored, ahead of the firings of the same commit, which are not counted yet."""
        self._unstored, self._store_at = False, monotonic + STORE_EVERY_S
        absent = [name for name in self.totals if name not in automations]
        for name in absent[: max(0, len(absent) - MOST_ABSENT)]:
            del self.totals[name]
        totals = {name: (total.count, total.last) for name, total in self.totals.items()}
        return orjson.dumps([clock_us, self.since, totals])

    def _add(self, automation: str, at: str) -> None:
        before = self.totals.get(automation)
        self.totals[automation] = (
            FiredTotal(1, at) if before is None else FiredTotal(before.count + 1, max(at, before.last))
        )
        self._unstored = True

    def snapshot(self) -> Mapping[str, FiredTotal]:
        """The totals as they are now."""
        return dict(self.totals)
