"""The role `scheduler`: runs that are due, runs whose worker is lost, and the events of flow runs."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import nats.js.errors

from whenthen.engine.flow_runs import RunEndings, RunEventPublisher, ToldEventPublisher
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.runs import Reaper, ReaperSettings, schedules
from whenthen.schemas.errors import WhenthenError

__all__ = ["SchedulerRole"]

SCHEDULER, REAPER, RUN_EVENTS, TOLD_EVENTS = "scheduler", "reaper", "run events", "told events"
LATENESS, OVERDUE = "expected completions", "overdue runs"
_PUBLISHED_S = 2.0  #: that a stopping process waits for the events of what its workers changed last


class SchedulerRole:
    def __init__(self, parts: ProcessParts) -> None:
        self._parts = parts
        lost_after = parts.settings.worker_lost_after
        reaper = ReaperSettings(lost_after=lost_after, interval=min(timedelta(seconds=5), lost_after / 4))
        start = parts.supervisor.start_restarting
        start(SCHEDULER, schedules.Scheduler(parts.stores, parts.rule_registry, parts.orchestrator).run)
        start(REAPER, Reaper(parts.stores, settings=reaper).run)
        watch = schedules.LatenessWatch(
            parts.stores, parts.rule_registry, parts.bus.publish, clock=lambda: datetime.now(UTC)
        )
        start(LATENESS, watch.run)
        overdue = schedules.OverdueRuns(
            parts.stores, parts.rule_registry, parts.bus.publish, clock=lambda: datetime.now(UTC)
        )
        start(OVERDUE, overdue.run)
        count = parts.metrics.run_events_set_aside.inc
        endings = RunEndings(parts.metrics, parts.redactor.text, parts.spans)
        publisher = RunEventPublisher(parts.bus.client, parts.bus.publish, count_set_aside=count, ended=endings.note)
        start(RUN_EVENTS, publisher.run)
        told = ToldEventPublisher(parts.bus.client, parts.stores, parts.bus.publish, count_set_aside=count)
        start(TOLD_EVENTS, told.run)

    async def stop(self) -> None:
        """Start no more runs; events of flow runs are still published."""
        for name in (SCHEDULER, REAPER, LATENESS, OVERDUE):
            await self._parts.supervisor.end(name)

    async def wait_until_published(self) -> None:
        """Wait a moment until the events of the last changes of runs are published; the rest is published after the next start."""
        with contextlib.suppress(
            WhenthenError, TimeoutError, nats.js.errors.NotFoundError
        ):  # stopped before it was there
            async with asyncio.timeout(_PUBLISHED_S):
                while (await self._parts.bus.js.consumer_info("KV_WT_runs", "announcer")).num_pending:
                    await asyncio.sleep(0.05)
