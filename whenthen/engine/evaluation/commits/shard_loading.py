"""What does a shard go on from? Its last commit, read into the evaluator and the records beside it, with what is of no use put away.

Called by the loop of a shard before it reads events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from whenthen.engine.bus.request_client import until_answered
from whenthen.engine.decisions import RECORDS, DecisionRecorder
from whenthen.engine.evaluation.commits.automations_aside import AutomationsAside
from whenthen.engine.evaluation.commits.batch_storing import BatchStoring
from whenthen.engine.evaluation.commits.commit_messages import MessageEncoder
from whenthen.engine.evaluation.commits.unreadable_windows import UNREADABLE
from whenthen.engine.evaluation.firing_counts import FIRED, FiringCounts
from whenthen.engine.evaluation.log_ports import ShardLog
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer
from whenthen.engine.hangs import SKIPS, ShardSkips
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.times import format_time, from_us

__all__ = ["ShardLoading", "Windows"]

log = logging.getLogger(__name__)

#: states as they are stored, by trigger and key
Windows = dict[tuple[str, str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLoading:
    """Loads one shard: `read`, then `restore` under the rules of the commit that was read."""

    shard_log: ShardLog
    evaluator: EventEvaluator
    encoder: MessageEncoder
    storing: BatchStoring
    aside: AutomationsAside
    counts: FiringCounts
    skips: ShardSkips
    recorder: DecisionRecorder | None
    observer: Observer
    wall_us: Callable[[], int]

    async def read(self) -> Windows:
        """The windows of the last commit; decisions are with the recorder. Tries until the store answers.

        Raises:
            Fenced: another process has the shard.
            SetupError: the shard's state can not be trusted.
        """
        latest: Windows = {}

        async def load() -> None:
            await self.shard_log.load(lambda trigger, key, state: latest.__setitem__((trigger, key), state))
            await self._load_decisions(latest)

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d is not loaded yet: %s", self.shard_log.shard, error)
            latest.clear()

        await until_answered(load, not_yet)
        return latest

    async def restore(self, latest: Windows, *, rules: int) -> None:
        """Bring the evaluator, which has the rules of revision `rules`, to the last commit. Errors: as `ShardLog.commit`."""
        shard, offset = self.shard_log.shard, self.shard_log.offset
        self.evaluator.clock_us = max(self.evaluator.clock_us, offset.clock_us)
        unknown: set[tuple[str, str]] = set()
        unreadable: dict[tuple[str, str], tuple[bytes, Exception]] = {}
        for count, ((trigger, key), state) in enumerate(latest.items(), 1):
            if trigger == SKIPS:
                self.skips.restore(key, state)
                continue
            if trigger == FIRED:
                self.counts.restore(state)
                continue
            try:
                if state and not self.evaluator.restore(trigger, key, state):
                    unknown.add((trigger, key))
            except UNREADABLE as error:  # one window must not keep the shard from being loaded for ever
                unreadable[trigger, key] = (state, error)
            if count % 2000 == 0:
                await asyncio.sleep(0)
        if outlived := self.evaluator.drop_outlived():
            log.warning(
                "shard %d: %d windows that had been deleted were stored again; they are deleted", shard, outlived
            )
        self.aside.tell()
        automations = self.evaluator.rules.automations
        if self.recorder is not None:
            self.recorder.forget_absent(automations, clock_us=self.evaluator.clock_us)
        await self.counts.catch_up(self.shard_log, automations, now=format_time(from_us(self.wall_us())))
        self.observer.counted(shard, self.counts.snapshot())
        log.info("shard %d: loaded %d windows at position %d", shard, len(latest) - len(unknown), offset.seq)
        if unknown:
            log.info("shard %d: forgetting %d windows that no part of their trigger has", shard, len(unknown))
            tombstones = [self.encoder.window(trigger, key, None) for trigger, key in unknown]
            await self.shard_log.commit(tombstones, seq=offset.seq, clock_us=offset.clock_us, rules=rules)
        if unreadable:
            await self.storing.put_away(unreadable, rules=rules)
        for skip in await self.storing.settle_skips(self.skips, seq=offset.seq, rules=rules):
            self.observer.event_set_aside(shard, skip)

    async def _load_decisions(self, latest: Windows) -> None:
        """Take the records of decisions out of what was loaded, and add what is not in them yet."""
        for trigger, name in [window for window in latest if window[0] == RECORDS]:
            state = latest.pop((trigger, name))
            if self.recorder is not None:
                self.recorder.restore(name, state)
        if self.recorder is not None:
            offset = self.shard_log.offset
            await self.recorder.load(seq=offset.seq, head=offset.decisions, low=offset.decisions_from)
