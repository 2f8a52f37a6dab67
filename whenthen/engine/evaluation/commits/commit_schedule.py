"""When is what a shard evaluated stored? One commit after another, each in the background of the next batch.

Called by the loop of a shard. What a commit consists of and how it is stored is in `engine.evaluation.commits.batch_storing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from whenthen.cancellation import end_task
from whenthen.engine.bus.records import Message
from whenthen.engine.decisions import DecisionRecorder
from whenthen.engine.evaluation.commits.automations_aside import AutomationsAside
from whenthen.engine.evaluation.commits.batch_storing import BatchStoring
from whenthen.engine.evaluation.commits.commit_messages import CommitBatch, MessageEncoder
from whenthen.engine.evaluation.firing_counts import FIRED, FiringCounts
from whenthen.engine.evaluation.log_ports import EventCursor, ShardLog
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer

__all__ = ["IDLE_COMMIT_S", "CommitSchedule"]

#: events that changed nothing move the offset only this often
IDLE_EVENTS = 20_000
IDLE_COMMIT_S = 1.0
LOOK_S = 1.0  #: how often the lag is told while a commit is being stored


class CommitSchedule:
    """The commits of one shard. For one task."""

    def __init__(
        self,
        shard_log: ShardLog,
        cursor: EventCursor,
        evaluator: EventEvaluator,
        encoder: MessageEncoder,
        *,
        storing: BatchStoring,
        aside: AutomationsAside,
        counts: FiringCounts,
        recorder: DecisionRecorder | None,
        observer: Observer,
        position: Callable[[], int],
        revision: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`position` is the last one that was evaluated, `revision` of the rules the one that is in force."""
        self._log = shard_log
        self._cursor = cursor
        self._evaluator = evaluator
        self._encoder = encoder
        self._storing = storing
        self._aside = aside
        self._counts = counts
        self._recorder = recorder
        self._observer = observer
        self._position = position
        self._revision = revision
        self._monotonic = monotonic
        self._commit: asyncio.Task[None] | None = None
        self._started = monotonic()

    @property
    def in_progress(self) -> bool:
        """Whether there is a commit that `finish` has not seen."""
        return self._commit is not None

    @property
    def over(self) -> bool:
        """Whether that one is stored, or has failed."""
        return self._commit is not None and self._commit.done()

    def start(self, batch: CommitBatch, *, always: bool = False) -> None:
        """Commit in the background; the commit before must have been finished."""
        messages = self._aside.changed_windows(self._encoder, batch.notices)
        messages += batch.messages
        now = self._monotonic()
        if messages:
            messages[:0] = self._count_record(now)
        if (
            not messages
            and not batch.notices
            and not always
            and not (self._recorder is not None and self._recorder.full)
            and self._position() - self._log.stored < IDLE_EVENTS
            and now < self._started + IDLE_COMMIT_S
        ):
            return
        self._started = now
        self._commit = asyncio.create_task(self._store(messages, batch))
        self._commit.add_done_callback(lambda _: self._cursor.wake())

    async def finish(self) -> None:
        """Wait for the commit that is being stored, if any, and raise what it raised."""
        commit = self._commit
        if commit is not None:
            try:
                while not commit.done():
                    await asyncio.wait([commit], timeout=LOOK_S)
                    if not commit.done():
                        # the newest event that is read may be younger, but nothing is known of it
                        waiting = self._cursor.pending + self._position() - self._log.stored
                        self._observer.lag(self._log.shard, waiting, self._monotonic() - self._started)
                        self._observer.full(self._log.shard, self._log.full)
                commit.result()
            finally:
                if commit.done():  # else this task was cancelled, and `end` ends the commit
                    self._commit = None

    async def store_position(self, *, soon: bool = False) -> None:
        """Commit the position, if it is not stored, with the numbers of firings if they are due; with `soon` when the last commit
        began a while ago. No other commit may be in progress."""
        now = self._monotonic()
        if not (self._is_behind() or self._counts.due(now, idle=True)):
            return
        if soon:
            if now < self._started + IDLE_COMMIT_S:
                return
            self._started = now
        messages = self._count_record(self._monotonic(), idle=True)
        if self._recorder is not None and self._recorder.waiting:
            await self._store(messages, CommitBatch(self._monotonic()))
        else:
            await self._log.commit(
                messages,
                seq=self._position(),
                clock_us=self._evaluator.clock_us,
                rules=self._revision(),
                uncounted=self._counts.unstored_with(),
            )

    async def end(self) -> None:
        """End the commit that is being stored, if any, wherever it is."""
        if self._commit is not None:
            await end_task(self._commit)

    def _store(self, messages: list[Message], batch: CommitBatch) -> Coroutine[None, None, None]:
        """Store a batch, with the position and the decisions as they are now."""
        position = self._position()
        return self._storing.store(
            messages,
            batch,
            self._observer,
            seq=position,
            clock_us=self._evaluator.clock_us,
            rules=self._revision(),
            decided=self._recorder.take(position) if self._recorder is not None else None,
        )

    def _count_record(self, now: float, *, idle: bool = False) -> list[Message]:
        """The record of the numbers of firings, if it is to be stored; it comes first in its commit."""
        if not self._counts.due(now, idle=idle):
            return []
        automations = self._evaluator.rules.automations
        state = self._counts.record(now, clock_us=self._evaluator.clock_us, automations=automations)
        return [self._encoder.window(FIRED, "", state)]

    def _is_behind(self) -> bool:
        """Whether an empty commit would store something: the position, or that no changes are left to recover."""
        return self._position() > self._log.stored or self._log.carries_changes
