"""Storing what a batch of events led to, until it is stored: notices first, then what tasks will name, then the commit.

Called by the loop of a shard, in the background of the next batch. A commit that the store refuses is sent again without the messages
of the automation at fault, which is set aside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import orjson

from whenthen.engine.bus.records import Message, decode_window
from whenthen.engine.bus.request_client import until_answered
from whenthen.engine.decisions import RECORDS, DecisionRecorder, Gathered
from whenthen.engine.evaluation.commits.commit_messages import CommitBatch, MessageEncoder
from whenthen.engine.evaluation.commits.refused_messages import is_window, refused_messages
from whenthen.engine.evaluation.commits.unreadable_windows import SetAside, put_away
from whenthen.engine.evaluation.firing_counts import FiringCounts
from whenthen.engine.evaluation.log_ports import CommitRefused, EventLog, ShardLog
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer, PublishSpecs
from whenthen.engine.hangs import SKIPS, ShardSkips, Skip
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.events import Event
from whenthen.triggers import SET_ASIDE

__all__ = ["BatchStoring"]

log = logging.getLogger(__name__)

REFUSED_RETRY_S = (0.2, 5.0)  #: first and longest pause before a commit that the store refuses is tried again


class BatchStoring:
    """Stores the batches of one shard, one after the other."""

    def __init__(
        self,
        shard_log: ShardLog,
        events: EventLog,
        evaluator: EventEvaluator,
        encoder: MessageEncoder,
        *,
        set_aside: SetAside,
        monotonic: Callable[[], float],
        publish_specs: PublishSpecs | None = None,
        counts: FiringCounts,
        recorder: DecisionRecorder | None = None,
    ) -> None:
        self._log = shard_log
        self._shard = shard_log.shard
        self._events = events
        self._evaluator = evaluator
        self._encoder = encoder
        self._set_aside = set_aside
        self._monotonic = monotonic
        self._publish_specs = publish_specs
        self._counts = counts
        self._recorder = recorder

    async def store(
        self,
        messages: list[Message],
        batch: CommitBatch,
        observer: Observer,
        *,
        seq: int,
        clock_us: int,
        rules: int,
        decided: Gathered | None = None,
    ) -> None:
        """Store a batch with its position, what was `decided` up to there, and the revision of the rules that is in force from
        there on. Errors: as `ShardLog.commit`, but for `CommitRefused`."""
        for notice in batch.notices:
            await self.publish_notice(notice)
        if batch.specs and self._publish_specs is not None:
            await self._store_specs(self._publish_specs, batch.specs)
        started = self._monotonic()
        decisions: tuple[int, int] | None = None
        if self._recorder is not None:
            stored = await self._recorder.store(decided, clock_us=clock_us)
            decisions = stored.head, stored.low
            messages += [self._encoder.window(RECORDS, name, state) for name, state in stored.records]
        pause = REFUSED_RETRY_S[0]
        while True:
            try:
                uncounted = self._counts.unstored_with(batch.firings)
                await self._log.commit(
                    messages, seq=seq, clock_us=clock_us, rules=rules, uncounted=uncounted, decisions=decisions
                )
                break
            except CommitRefused as error:
                log.error("%s; looking for the automation at fault", error)
                kept = await self._without_what_is_refused(messages, batch, str(error))
                if kept is messages:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, REFUSED_RETRY_S[1])
                messages = kept
        self._counts.add(batch.firings)
        observer.full(self._shard, False)
        observer.committed(self._shard, batch.firings, len(messages) + 1, self._monotonic() - started)

    async def _store_specs(self, publish: PublishSpecs, specs: Mapping[str, bytes]) -> None:
        """Publish what tasks of the batch name, until it is stored: no task may be there before."""

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: specifications of actions are not stored yet: %s", self._shard, error)

        await until_answered(lambda: publish(specs), not_yet)

    async def put_away(self, unreadable: Mapping[tuple[str, str], tuple[bytes, Exception]], *, rules: int) -> None:
        """Put windows that could not be read away, and set their automations aside."""
        evaluator = self._evaluator
        notices, messages = put_away(unreadable, self._log, evaluator, self._encoder, self._set_aside)
        for notice in notices:
            await self.publish_notice(notice)
        messages += [self._encoder.window(*window) for window in evaluator.drain()]
        await self._log.commit(messages, seq=self._log.offset.seq, clock_us=evaluator.clock_us, rules=rules)

    async def settle_skips(self, skips: ShardSkips, *, seq: int, rules: int) -> Sequence[Skip]:
        """Decide which events before the shard are passed over, as they hung processes."""

        async def commit(changes: Sequence[tuple[str, bytes | None]]) -> None:
            records = [self._encoder.window(SKIPS, key, state) for key, state in changes]
            await self._log.commit(records, seq=seq, clock_us=self._log.offset.clock_us, rules=rules)

        return await skips.settle(seq, commit=commit, notice=self.publish_notice)

    async def publish_notice(self, notice: Event) -> None:
        """Publish, until it is acknowledged."""

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: %s is not published yet: %s", self._shard, notice.name, error)

        try:
            await until_answered(lambda: self._events.publish(notice), not_yet)
        except (InvalidInput, TypeError, ValueError) as error:
            # it can never be published, and what waits behind it is worth more
            log.error("shard %d: %s can not be published and is left out: %s", self._shard, notice.name, error)

    async def _without_what_is_refused(self, messages: list[Message], batch: CommitBatch, error: str) -> list[Message]:
        """Find the automations whose messages the store refuses, set them aside, and give the messages of the others. All
        messages when it refuses everything, or can not be asked."""
        try:
            at_fault = await refused_messages(self._log, messages, self._evaluator.owner)
        except BusUnavailable as unknown:
            log.warning("shard %d: what makes the commit fail is not known yet: %s", self._shard, unknown)
            return messages
        if at_fault is None:
            return messages
        at_fault.pop("", None)
        for automation, theirs in at_fault.items():
            windows = [decode_window(message.data)[:2] for message in theirs if is_window(self._shard, message)]
            detail = f"what it left could not be stored, and was dropped: {error}"
            await self.publish_notice(self._set_aside(automation, detail, windows))
            batch.firings = [firing for firing in batch.firings if firing.automation != automation]
            aside = self._evaluator.aside[automation]
            state = orjson.dumps([self._evaluator.clock_us, aside.meaning, aside.at_us, aside.detail])
            messages = [*messages, self._encoder.window(SET_ASIDE, automation, state)]
        dropped = {id(message) for theirs in at_fault.values() for message in theirs}
        return [message for message in messages if id(message) not in dropped]
