"""How the sources do in each process that reads them: stored every few seconds, so that any process can tell."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import heard_subject, reader_subject
from whenthen.engine.log_lines import Redact, one_line
from whenthen.engine.process.senders.member_reports import ALIVE_S, FORGOTTEN_S, read_reports
from whenthen.engine.process.senders.sender_records import heard_record
from whenthen.engine.sources import SourceWatch
from whenthen.schemas.base import known_fields
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import format_time

__all__ = ["ReaderReport", "ReaderReports", "SourceCounts", "live_readers"]

log = logging.getLogger(__name__)

HEARD_EVERY_S = 60.0  #: a source that is heard is noted so often
MOST_SOURCES = 1000  #: of one report, which has to fit into a message


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCounts:
    """How one source does in one process."""

    state: str
    detail: str
    since: str
    heard: str | None
    messages: int
    events: int
    duplicates: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderReport:
    """What one process says of the sources that it reads, or waits to read."""

    member: str
    host: str
    process: int
    sources: dict[str, SourceCounts]


class ReaderReports:
    """Those of this process, and what it knows of the others. `redact` takes secrets out of what is said of a trouble."""

    def __init__(self, bus: Bus, *, member: str, host: str, redact: Redact) -> None:
        self._bus = bus
        self._member = member
        self._host = host
        self._redact = redact
        self._noted: dict[str, float] = {}  #: when each source was heard, as far as it is stored

    async def store(self, watches: Mapping[str, SourceWatch]) -> None:
        """Say how the sources do here. Raises BusUnavailable."""
        # of very many those first that something is known of
        chosen = sorted(watches.items(), key=lambda item: (item[1].state == "elsewhere", item[0]))[:MOST_SOURCES]
        sources = {name: self._counts(watch) for name, watch in chosen}
        try:
            await self._bus.store(reader_subject(self._member), self._record(sources))
        except InvalidInput:  # larger than a message may be
            few = dict(list(sources.items())[: MOST_SOURCES // 10])
            await self._bus.store(reader_subject(self._member), self._record(few))
        for name, watch in watches.items():
            if watch.heard_at is not None and watch.heard_at - self._noted.get(name, 0.0) >= HEARD_EVERY_S:
                label = f"source:{name}"
                await self._bus.store(heard_subject(label), heard_record(label, _time(watch.heard_at)))
                self._noted[name] = watch.heard_at

    async def leave(self) -> None:
        """Take this process's report away. Raises BusUnavailable."""
        await self._bus.store(reader_subject(self._member), b"")

    async def others(self) -> list[Mapping[str, str]]:
        """The state of each source in each other process that lives. Raises BusUnavailable."""
        found: list[Mapping[str, str]] = []
        for report, age in await _reports(self._bus.client):
            if report.member == self._member:
                continue
            if age <= timedelta(seconds=ALIVE_S):
                found.append({name: counts.state for name, counts in report.sources.items()})
            elif age > timedelta(seconds=FORGOTTEN_S):
                await self._bus.store(reader_subject(report.member), b"")
        return found

    def _counts(self, watch: SourceWatch) -> dict[str, Any]:
        return {
            "state": watch.state,
            "detail": one_line(watch.detail, self._redact),
            "since": _time(watch.since),
            "heard": None if watch.heard_at is None else _time(watch.heard_at),
            "messages": watch.messages,
            "events": watch.events,
            "duplicates": watch.duplicates,
            "refused": watch.refused,
        }

    def _record(self, sources: dict[str, dict[str, Any]]) -> bytes:
        return orjson.dumps({"member": self._member, "host": self._host, "process": os.getpid(), "sources": sources})


async def live_readers(client: RequestClient) -> list[ReaderReport]:
    """The reports of the processes that live. Raises BusUnavailable."""
    return [report for report, age in await _reports(client) if age <= timedelta(seconds=ALIVE_S)]


async def _reports(client: RequestClient) -> list[tuple[ReaderReport, timedelta]]:
    """All reports that are kept, each with its age."""
    return await read_reports(client, reader_subject("*"), _read)


def _read(data: bytes) -> ReaderReport | None:
    """A stored report; None of a process that ended, or of a version that says other things."""
    if not data:
        return None
    try:
        fields = orjson.loads(data)
        sources = {
            name: SourceCounts(**known_fields(SourceCounts, counts)) for name, counts in fields["sources"].items()
        }
        return ReaderReport(**known_fields(ReaderReport, {**fields, "sources": sources}))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _time(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
