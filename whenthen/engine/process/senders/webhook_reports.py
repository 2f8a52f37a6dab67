"""What each process of the role `api` took and refused on its webhooks: stored every few seconds, so that any of them can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.subjects import webhook_report_subject
from whenthen.engine.process.senders.member_reports import ALIVE_S, FORGOTTEN_S, read_reports
from whenthen.schemas.errors import InvalidInput

__all__ = ["WebhookCounts", "WebhookReports"]

MOST_WEBHOOKS = 5000  #: of one report, which has to fit into a message
STORE_AGAIN_S = ALIVE_S / 2  #: a report of which nothing changed


@dataclass(slots=True, kw_only=True)
class WebhookCounts:
    """What came to one webhook, since its process started. `heard` is when it took a request last."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    heard: str | None = None

    def add(self, other: WebhookCounts) -> None:
        self.taken += other.taken
        self.refused.update(other.refused)
        self.heard = max((at for at in (self.heard, other.heard) if at), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    member: str
    webhooks: dict[str, WebhookCounts]


class WebhookReports:
    """The report of this process, and those of the others."""

    def __init__(self, bus: Bus, *, member: str) -> None:
        self._bus = bus
        self._member = member
        self._told = b""  #: what is stored, and when that was
        self._told_at = 0.0

    async def store(self, counts: Mapping[str, WebhookCounts], now: float) -> None:
        """Say what came here, unless others know; `now` is in seconds of a clock that goes on. Raises BusUnavailable."""
        record = self._record(counts, MOST_WEBHOOKS)
        if not counts or (record == self._told and now - self._told_at < STORE_AGAIN_S):
            return
        try:
            await self._bus.store(webhook_report_subject(self._member), record)
        except InvalidInput:  # larger than a message may be
            await self._bus.store(webhook_report_subject(self._member), self._record(counts, MOST_WEBHOOKS // 10))
        self._told, self._told_at = record, now

    async def leave(self) -> None:
        """Take the report away. Raises BusUnavailable."""
        if self._told:
            await self._bus.store(webhook_report_subject(self._member), b"")
            self._told = b""

    async def others(self) -> Mapping[str, WebhookCounts]:
        """What came to each webhook at the other processes that live, together. Raises BusUnavailable."""
        found: dict[str, WebhookCounts] = {}
        for report, age in await self._reports():
            if report.member != self._member and age <= timedelta(seconds=ALIVE_S):
                for name, counts in report.webhooks.items():
                    found.setdefault(name, WebhookCounts()).add(counts)
        return found

    async def forget_dead(self) -> None:
        """Take away what processes said that died long ago. Raises BusUnavailable."""
        for report, age in await self._reports():
            if report.member != self._member and age > timedelta(seconds=FORGOTTEN_S):
                await self._bus.store(webhook_report_subject(report.member), b"")

    async def _reports(self) -> list[tuple[_Report, timedelta]]:
        return await read_reports(self._bus.client, webhook_report_subject("*"), _read)

    def _record(self, counts: Mapping[str, WebhookCounts], most: int) -> bytes:
        """Of very many webhooks those that most comes to."""
        chosen = sorted(counts.items(), key=lambda item: (-item[1].taken - item[1].refused.total(), item[0]))[:most]
        webhooks = {name: {"taken": each.taken, "refused": each.refused, "heard": each.heard} for name, each in chosen}
        return orjson.dumps({"member": self._member, "webhooks": webhooks})


def _read(data: bytes) -> _Report | None:
    """A stored report; None of a process that ended, or of a version that says other things."""
    if not data:
        return None
    try:
        fields = orjson.loads(data)
        webhooks = {
            name: WebhookCounts(taken=counts["taken"], refused=Counter(counts["refused"]), heard=counts["heard"])
            for name, counts in fields["webhooks"].items()
        }
        return _Report(member=fields["member"], webhooks=webhooks)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
