"""The evaluation loop of one shard: events in, decisions, and one commit after another.

Called by `engine.evaluation.leases` for each shard that this process holds. The only position is the shard's offset
(`engine.evaluation.commits.commit`); time is the event log's (`engine.evaluation.stream_clock`), as is when other rules come into force
(`engine.evaluation.shard_rules`). While a commit is stored the next batch is evaluated. `Fenced` ends it: everything in memory is void.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from whenthen.engine.bus.request_client import answered_unless
from whenthen.engine.bus.subjects import (
    ALL_EVENTS,
    PAUSES,
    RULE_MARKERS,
    filters_for,
    marker_number,
    tick_subject,
)
from whenthen.engine.decisions import DecisionRecorder
from whenthen.engine.evaluation.commits.automations_aside import AutomationsAside
from whenthen.engine.evaluation.commits.batch_storing import BatchStoring
from whenthen.engine.evaluation.commits.commit_messages import (
    LONGEST_PLACE_S,
    CommitBatch,
    EvaluationSettings,
    MessageEncoder,
)
from whenthen.engine.evaluation.commits.commit_schedule import IDLE_COMMIT_S, CommitSchedule
from whenthen.engine.evaluation.commits.shard_loading import ShardLoading
from whenthen.engine.evaluation.firing_counts import FiringCounts
from whenthen.engine.evaluation.log_ports import EventLog, Received, ShardLog
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer, PublishSpecs, RuleRevisions
from whenthen.engine.evaluation.loop_stopped import loop_stopped_event
from whenthen.engine.evaluation.shard_rules import ShardRules
from whenthen.engine.evaluation.stream_clock import TICK_EVERY_S, StreamClock
from whenthen.engine.hangs import ShardSkips
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import decode_event
from whenthen.schemas.firings import Decision
from whenthen.schemas.times import from_us
from whenthen.supervision import AtHand

__all__ = ["ShardLoop"]

log = logging.getLogger(__name__)

#: a commit is closed at the first event after which it has this many messages
COMMIT_MESSAGES = 900
#: or so many bytes of firings and tasks; what `engine_bytes` must hold several times over
COMMIT_BYTES = 4 << 20
#: or after this many events, or this many seconds of evaluation
BATCH_EVENTS = 2000
BATCH_S = 0.05
SLICE_S = 0.005  #: evaluation without yielding to the connection's reader
#: in an event as it is stored: it names a predecessor
FOLLOWS = b'"follows":"'
#: after which specifications of actions that are used are published again, so that they are not taken for forgotten ones
RENEW_SPECS_S = 12 * 3600.0
#: so far the clock of a shard that hears nothing may lie behind while it has places of deleted windows, which are kept an hour longer
#: than the windows could have changed a decision: a window that is there again when its place is gone was due before, and is dropped
STANDS_US = 30 * 60 * 1_000_000
#: how far back predecessors are looked for, as far as the evaluator remembers
PREDECESSORS_US = 30 * 60 * 1_000_000


class ShardLoop:
    """Evaluates one shard. `run` loads it and goes on until `stop`, which commits what was evaluated."""

    def __init__(
        self,
        events: EventLog,
        shard_log: ShardLog,
        evaluator: EventEvaluator,
        *,
        settings: EvaluationSettings | None = None,
        observer: Observer | None = None,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        publish_specs: PublishSpecs | None = None,
        skips: ShardSkips | None = None,
        at_hand: AtHand | None = None,
        revisions: RuleRevisions | None = None,
        recorder: DecisionRecorder | None = None,
    ) -> None:
        """Without `revisions` the rules of `evaluator` stay in force, and markers are not read. Without `recorder` decisions are not
        put on record."""
        self.shard = shard_log.shard
        self.evaluator = evaluator
        self.observer = observer or Observer()
        self.ready = asyncio.Event()  #: set when the shard is loaded and reads
        self.seq = 0  #: last position that was evaluated
        self._wall_us = wall_us
        self._monotonic = monotonic
        self._events = events
        self._log = shard_log
        self._cursor = events.cursor()
        self._clock = StreamClock(wall_us=wall_us, monotonic=monotonic)
        self._encoder = MessageEncoder(self.shard, settings or EvaluationSettings())
        self._counts = FiringCounts()
        self._aside = AutomationsAside(self.shard, evaluator, self.observer, position=lambda: self.seq, wall_us=wall_us)
        self._storing = BatchStoring(
            shard_log,
            events,
            evaluator,
            self._encoder,
            set_aside=self._aside.set_aside,
            monotonic=monotonic,
            publish_specs=publish_specs,
            counts=self._counts,
            recorder=recorder,
        )
        self._commits = CommitSchedule(
            shard_log,
            self._cursor,
            evaluator,
            self._encoder,
            storing=self._storing,
            aside=self._aside,
            counts=self._counts,
            recorder=recorder,
            observer=self.observer,
            position=lambda: self.seq,
            revision=lambda: self.revision,
            monotonic=monotonic,
        )
        self._recorder = recorder
        self._skips = ShardSkips() if skips is None else skips
        self._at_hand = at_hand or AtHand()
        self._renew_specs_at = monotonic() + RENEW_SPECS_S
        self._rules: ShardRules | None = None
        if revisions is not None:
            self._rules = ShardRules(self.shard, events, revisions, stopping=lambda: self._stopping)
        self._marker: Received | None = None  #: a marker that was read and is not passed yet
        self._places_us = 0  #: until then by the shard's clock places of deleted windows are kept
        self._filters: list[str] = []
        self._stopping = False
        self._ids_read = False  #: whether the recent ids were read; from then on all events are

    @property
    def full(self) -> bool:
        """Whether nothing goes on because the store is full and nothing in it may go."""
        return self._log.full

    @property
    def committed(self) -> int:
        """Last position that is stored, with everything that came of it."""
        return self._log.stored

    @property
    def caught_up(self) -> bool:
        """Whether everything in the log is evaluated and committed."""
        return self.ready.is_set() and self._cursor.caught_up and not self._commits.in_progress

    @property
    def revision(self) -> int:
        """Of the rules that is in force; 0 without revisions."""
        return self._rules.number if self._rules is not None else 0

    @property
    def stalled(self) -> str:
        """Why the shard waits for rules that it can not have; empty when it does not."""
        return self._rules.stalled if self._rules is not None else ""

    def stop(self) -> None:
        """Finish the current batch, commit it, and let `run` return."""
        self._stopping = True
        self._cursor.wake()

    async def run(self) -> None:
        """Load the shard and evaluate it.

        Raises:
            Fenced: another process has the shard.
            SetupError: the shard's state can not be trusted.
        """
        try:
            await self._load()
            await self._start_reading()
            self.ready.set()
            while not self._stopping:
                await self._step()
            await self._commits.finish()
            await self._commits.store_position()
        finally:
            self.ready.clear()
            await self._commits.end()
            await self._cursor.stop()

    # -- loading

    async def _load(self) -> None:
        """Bring the evaluator to the shard's last commit."""
        loading = ShardLoading(
            shard_log=self._log,
            evaluator=self.evaluator,
            encoder=self._encoder,
            storing=self._storing,
            aside=self._aside,
            counts=self._counts,
            skips=self._skips,
            recorder=self._recorder,
            observer=self.observer,
            wall_us=self._wall_us,
        )
        latest = await loading.read()
        offset = self._log.offset
        self.seq = offset.seq
        if self._rules is not None:
            if (rules := await self._rules.load(offset)) is None:
                return
            self.evaluator.replace_rules(rules)
        if not all(latest.values()):
            self._encoder.placed_s = (
                LONGEST_PLACE_S  # of some that were deleted before; how long is not stored with them
            )
        await loading.restore(latest, rules=self.revision)
        await self._load_pauses(self.seq)
        if self.evaluator.wants_all_events():
            await self._read_recent_ids(self.seq + 1)

    async def _load_pauses(self, position: int) -> None:
        """Take what stood before the shard's position of automations of which it has taken no change: that of a shard which was
        evaluated by an earlier version, or began behind it."""

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: pauses are not read yet: %s", self.shard, error)

        found = await answered_unless(lambda: self._stopping, lambda: self._events.pauses_after(position), not_yet)
        for change in found or ():
            if change.was_paused and not self.evaluator.knows_pause(change.automation):
                self.evaluator.take_pause(change.before())

    def _decided(self, decisions: list[Decision]) -> None:
        """Gather decisions for the record, under the revision of the rules that is in force."""
        if self._recorder is not None:
            self._recorder.add(decisions, rules=self.revision)

    async def _read_recent_ids(self, before: int) -> None:
        """Learn which events came lately, for one that names its predecessor. Done once: from then on all are read."""
        since_us = self.evaluator.clock_us - PREDECESSORS_US

        def not_yet(error: BusUnavailable) -> None:
            log.warning("shard %d: recent events are not read yet: %s", self.shard, error)

        found = await answered_unless(
            lambda: self._stopping, lambda: self._events.recent_ids(since_us=since_us, before=before), not_yet
        )
        for event_id, at_us in found or ():
            if not self.evaluator.holds(event_id):
                self.evaluator.remember(event_id, at_us)
        self._ids_read = found is not None

    def _wanted_filters(self) -> list[str]:
        """The subjects that the evaluator must see now."""
        patterns = ["*"] if self.evaluator.wants_all_events() else self.evaluator.rules.patterns()
        markers = [] if self._rules is None else [RULE_MARKERS]
        return [*filters_for(patterns), tick_subject(self.shard), PAUSES, *markers]

    async def _start_reading(self) -> None:
        self._filters = self._wanted_filters()
        await self._cursor.start(self.seq, self._filters)

    # -- evaluating

    async def _step(self) -> None:
        """One batch: wait for events, evaluate them, start their commit."""
        if self.evaluator.aside:
            self._aside.give_back()
        if not self._cursor.buffered:
            # idle: a commit that failed for good shows here as well; its end wakes the cursor
            if self._commits.in_progress:
                if not self._commits.over:
                    await self._cursor.wait(IDLE_COMMIT_S)
                if self._commits.over:
                    await self._commits.finish()
            else:
                await self._idle()
                await self._cursor.wait(self._idle_wait_s())
            if not self._cursor.buffered:
                return
        batch = await self._evaluate()
        await self._commits.finish()
        self._commits.start(batch, always=self._marker is not None)  # the shard may have to wait there
        if self._marker is not None:
            await self._pass_marker(self._marker)
        if self.evaluator.wants_all_events() and ALL_EVENTS not in self._filters:
            await self._start_reading()

    async def _pass_marker(self, marker: Received) -> None:
        """Evaluate with the revision that a marker names from its position on. What is due before is decided by the rules so far."""
        assert self._rules is not None
        number = marker_number(marker.subject) or 0
        rules = await self._rules.next_set(number)
        if rules is None and self._rules.stalled:
            return  # the loop is to stop, before the marker
        self._marker = None
        batch = CommitBatch(self._monotonic())
        self._clock.batch_read(marker, is_tick=False)
        await self._commits.finish()
        if rules is not None:
            decisions: list[Decision] = []
            self._evaluate_message(batch, marker, decisions)
            self._at_hand.nothing()
            self._decided(decisions)
            self.observer.evaluated(self.shard, 0, decisions, batch.firings)
            self.evaluator.replace_rules(rules)
            self._rules.number = number
            if self._recorder is not None:
                self._recorder.forget_absent(self.evaluator.rules.automations, clock_us=self.evaluator.clock_us)
            self._encoder.forget_actions()
            self._aside.tell()
            log.info("shard %d: revision %d of the rules is in force", self.shard, number)
        self.seq = marker.seq
        self._commits.start(batch, always=rules is not None)
        if self._wanted_filters() != self._filters:
            await self._start_reading()

    async def _evaluate(self) -> CommitBatch:
        monotonic = self._monotonic
        batch = CommitBatch(monotonic())
        if batch.started > self._renew_specs_at:
            self._renew_specs_at = batch.started + RENEW_SPECS_S
            self._encoder.forget_actions()
        slice_end = batch.started + SLICE_S
        decisions: list[Decision] = []
        last: Received | None = None
        while (message := self._cursor.take()) is not None:
            if marker_number(message.subject) is not None:
                self._marker = message
                break
            last = message
            if not self._ids_read and FOLLOWS in message.data:
                await self._read_recent_ids(message.seq)
            self._evaluate_message(batch, message, decisions)
            self.seq = message.seq
            batch.events += 1
            if (
                batch.events >= BATCH_EVENTS
                or self.evaluator.pending() + len(batch.messages) >= COMMIT_MESSAGES
                or batch.size >= COMMIT_BYTES
                or self._stopping
            ):
                break
            now = monotonic()
            if now > slice_end:
                if now > batch.started + BATCH_S:
                    break
                self._at_hand.nothing()
                await asyncio.sleep(0)
                slice_end = monotonic() + SLICE_S
        self._at_hand.nothing()
        self._decided(decisions)
        self.observer.evaluated(self.shard, batch.events, decisions, batch.firings)
        if last is not None:
            self._clock.batch_read(last, is_tick=last.subject.startswith("ticks."))
            behind = max(0.0, (self._wall_us() - last.time_us) / 1e6)
            self.observer.lag(self.shard, self._cursor.pending, behind if self._cursor.pending else 0.0)
        return batch

    def _evaluate_message(self, batch: CommitBatch, message: Received, decisions: list[Decision]) -> None:
        if message.seq in self._skips.ahead:
            log.warning("shard %d: the event at position %d is passed over: it is set aside", self.shard, message.seq)
            return
        self._at_hand.event(self.shard, message.seq)
        now_us = max(message.time_us, self.evaluator.clock_us)
        try:
            if message.subject.startswith("events."):
                event = decode_event(message.data, message.seq)
                outcome = self.evaluator.process(event, now_us)
                if outcome.decisions and self.observer.wants_events:
                    self.observer.decided(self.shard, event, outcome.decisions, message.time_us)
            elif message.subject.startswith("pauses."):
                change = PauseChange.decode(message.data)
                outcome = self.evaluator.advance(now_us)  # what is due before is decided as it stood
                self.evaluator.take_pause(change)
            else:  # a tick, or a marker
                if message.subject.startswith("ticks."):
                    self._clock.tick_done()
                outcome = self.evaluator.advance(now_us)
        except Exception as error:  # one message must not stop the shard for ever; it is reported and counted
            log.exception("shard %d: the message at position %d is skipped", self.shard, message.seq)
            self.observer.unreadable(self.shard, message.seq, error)
            return
        decisions.extend(outcome.decisions)
        for sentence in outcome.orphan_notes:
            log.warning("shard %d: %s", self.shard, sentence)
        if outcome.stopped:
            now = from_us(self._wall_us())
            batch.notices += [loop_stopped_event(stopped, now=now) for stopped in outcome.stopped]
            self.observer.stopped(self.shard, outcome.stopped)
        if outcome.firings:
            largest = self._log.largest
            left_out = self._encoder.add_firings(
                batch, outcome.firings, message, self.evaluator.rules.actions, largest=largest
            )
            batch.notices += [self._aside.for_firing(firing, size, largest=largest) for firing, size in left_out]

    # -- idle

    async def _idle(self) -> None:
        """Nothing to read: store the position now and then, and publish a tick when a deadline is due."""
        await self._commits.store_position(soon=True)
        if self._cursor.caught_up:
            self.observer.lag(self.shard, 0, 0.0)
            due = self.evaluator.next_deadline_us()
            is_due = due is not None and self._clock.is_due(due)
            if (is_due or self._stands_still()) and not self._clock.tick_outstanding():
                await self._publish_tick()

    def _stands_still(self) -> bool:
        """Whether the clock is to move although nothing comes: see `STANDS_US`."""
        clock_us = self.evaluator.clock_us
        if self._encoder.placed_s:
            self._places_us = max(self._places_us, clock_us + self._encoder.placed_s * 1_000_000)
            self._encoder.placed_s = 0
        return clock_us < self._places_us and self._clock.now_us() - clock_us >= STANDS_US

    def _idle_wait_s(self) -> float:
        """How long to wait for events before looking at the clock."""
        due = self.evaluator.next_deadline_us()
        return IDLE_COMMIT_S if due is None else min(IDLE_COMMIT_S, self._clock.wait_s(due))

    async def _publish_tick(self) -> None:
        """Ask the event log for its time; the shard's clock moves when the tick is read."""
        self._clock.tick_sent()
        try:
            await self._events.publish_tick(self.shard)
        except BusUnavailable as error:
            self._clock.tick_done()
            log.warning("shard %d: no tick: %s", self.shard, error)
            await asyncio.sleep(TICK_EVERY_S)
