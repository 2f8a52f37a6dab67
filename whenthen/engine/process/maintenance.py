"""Maintenance of the streams: measures disk, streams and dead letters, purges history near size limits, warns before events
expire unread.

One loop per process, every few seconds; started by the wiring. Any number of them may run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from whenthen.engine.bus.disk import DiskRoom
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import (
    AUDIT,
    DECISIONS,
    ENGINE,
    EVENTS,
    RULES,
    RUNS,
    SENDERS,
    StreamSettings,
    make_room,
    make_room_in_engine,
)
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.evaluation import NatsEngineStore, read_offset
from whenthen.engine.execution import CONSUMER, DeadLetters
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import BusUnavailable

__all__ = ["Maintenance", "unread_share"]

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_SOON_S = 0.5  #: after a purge, since the stream may fill again quickly
_STREAMS = (EVENTS, ENGINE, RUNS, RULES, DECISIONS, AUDIT, SENDERS, "LOGS")
_WARN_FROM = 0.8  #: age of the oldest unread event, as a share of `retain_events`


def unread_share(stored: datetime | None, *, now: datetime, max_age_s: float) -> float:
    """The age of the oldest unread event as a share of its time to live: at 1 it expires; 0 without one."""
    if stored is None or max_age_s <= 0:
        return 0.0
    return max(0.0, (now - stored).total_seconds() / max_age_s)


class Maintenance:
    """Measures, purges, and warns before unread events expire."""

    def __init__(
        self,
        js: JetStreamContext,
        client: RequestClient,
        *,
        metrics: Metrics,
        settings: StreamSettings,
        shards: int,
        dead_letters: DeadLetters | None,
        automations: Callable[[], Collection[str]],
        disk: DiskRoom | None = None,
    ) -> None:
        self._js = js
        self._client = client
        self._metrics = metrics
        self._settings = settings
        self._shards = shards
        self._dead_letters = dead_letters
        self._automations = automations
        self._disk = disk
        self._warned = False
        self._made_room = False
        self._engine_bytes = 0  #: at the last purge

    async def run(self, stop: asyncio.Event) -> None:
        """Check until `stop` is set."""
        while not stop.is_set():
            try:
                await self.check(datetime.now(UTC))
            except (BusUnavailable, nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.debug("streams were not measured: %r", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SOON_S if self._made_room else _EVERY_S)

    async def check(self, now: datetime) -> None:
        """Measure and purge once."""
        if self._disk is not None:
            self._disk.measure()
        size = 0
        for stream in _STREAMS:
            info = await self._js.stream_info(stream)
            limit = info.config.max_bytes or -1
            self._metrics.set_stream(stream, messages=info.state.messages, size=info.state.bytes, limit=limit)
            if stream == ENGINE:
                size = info.state.bytes
        engine = NatsEngineStore(self._client)
        offsets = [await read_offset(engine, shard) for shard in range(self._shards)]
        read = min(offset.seq for offset in offsets)
        freed = await make_room(self._js, self._settings, read_up_to=read)
        if freed:
            log.warning("EVENTS is near its size limit: purged the oldest %d events, all of them evaluated", freed)
            self._metrics.made_room.labels(EVENTS).inc(freed)
        # recovery of a commit that is still packed in an offset looks for the outcomes of its actions
        needed = min((offset.revision for offset in offsets if offset.packed), default=1 << 62)
        dropped = await make_room_in_engine(self._client, self._settings, needed_from=needed)
        if dropped:
            log.warning("ENGINE is near its size limit: purged %d messages, the oldest firings and outcomes", dropped)
            self._metrics.made_room.labels(ENGINE).inc(dropped)
        # no hurry when a purge frees nothing, because tasks or windows fill the stream
        self._made_room = bool(freed or (dropped and not 0 < self._engine_bytes <= size))
        self._engine_bytes = size if dropped else 0
        self._warn(
            unread_share(await self._stored(read + 1), now=now, max_age_s=self._settings.events_max_age.total_seconds())
        )
        if self._dead_letters is not None:
            await self._count_letters(self._dead_letters)
            await self._count_waiting()

    async def _stored(self, seq: int) -> datetime | None:
        """When the first event at or after a position was stored."""
        answer = await self._client.api(f"STREAM.MSG.GET.{EVENTS}", {"seq": seq, "next_by_subj": "events.>"})
        message = answer.get("message")
        if message is None:
            return None
        return datetime.fromisoformat(message["time"][:26].rstrip("Z") + "+00:00")

    def _warn(self, share: float) -> None:
        self._metrics.unread_share.set(share)
        near = share >= _WARN_FROM
        if near and not self._warned:
            kept = self._settings.events_max_age
            log.error(
                "the oldest unread event has reached %.0f%% of retain_events (%s) and will expire unread; "
                "raise retain_events, or find out why evaluation does not progress",
                share * 100,
                kept,
            )
        self._warned = near

    async def _count_waiting(self) -> None:
        with contextlib.suppress(nats.js.errors.NotFoundError):  # no executor has started yet
            consumer = await self._js.consumer_info(ENGINE, CONSUMER)
            self._metrics.actions_waiting.set((consumer.num_pending or 0) + (consumer.num_ack_pending or 0))

    async def _count_letters(self, dead_letters: DeadLetters) -> None:
        counts = await dead_letters.counts()
        for name in self._automations():
            self._metrics.dead_letters.labels(name).set(counts.get(short_token(name), 0))
