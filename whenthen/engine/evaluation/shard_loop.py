"""The evaluation loop of one shard: events in, decisions, and one commit after another.

Called by `engine.evaluation.leases` for each shard that this process holds. The only position is the shard's offset
(`engine.evaluation.commit`); time is the stream's (docs/architecture.md, "Time"). While a commit is under way the next batch is
evaluated already. The loop ends with `Fenced` when another process took the shard; everything in memory is void then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import orjson

from whenthen.actions import actions_of
from whenthen.cancellation import end_task
from whenthen.engine.bus import (
    ALL_EVENTS,
    Bus,
    Message,
    action_subject,
    as_json,
    encode_firing,
    encode_task,
    encode_window,
    filters_for,
    firing_subject,
    tick_subject,
    window_subject,
)
from whenthen.engine.evaluation.commit import ShardLog
from whenthen.engine.evaluation.event_reader import EventReader, Received
from whenthen.engine.evaluation.loop_stopped import loop_stopped_event
from whenthen.engine.evaluation.recent_ids import recent_ids
from whenthen.schemas import Automation, BusUnavailable, Decision, Event, Firing, decode_event, from_us

__all__ = ["Evaluates", "EvaluationSettings", "Observer", "Rules", "ShardLoop"]

log = logging.getLogger(__name__)

#: a commit is closed at the first event after which it has this many messages
COMMIT_MESSAGES = 900
#: or after this many events, or this many microseconds of evaluation
BATCH_EVENTS = 2000
BATCH_S = 0.05
SLICE_S = 0.005  #: evaluation without letting the connection breathe
#: events that changed nothing move the offset only this often
IDLE_EVENTS = 20_000
IDLE_COMMIT_S = 1.0
TICK_EVERY_S = 0.05  #: at most one tick in this time
TICK_LOST_S = 2.0  #: a tick that was not read back is sent again
NOTIFY_RETRY_S = 0.2
#: in an event as it is stored: it names a predecessor
FOLLOWS = b'"follows":"'
#: how far back predecessors are looked for, as far as the evaluator remembers
RECALL_US = 30 * 60 * 1_000_000
TOMBSTONE_S = 3600  #: how long a forgotten window stays in the stream as an empty one


class Outcome(Protocol):
    @property
    def firings(self) -> Sequence[Firing]: ...
    @property
    def decisions(self) -> Sequence[Decision]: ...
    @property
    def stopped(self) -> Sequence[Any]: ...


class Rules(Protocol):
    """A compiled set of rules; `whenthen.triggers.RuleSet` is one."""

    def patterns(self) -> Iterable[str]: ...
    def actions(self, automation: str) -> Automation: ...


class Evaluates(Protocol):
    """What the loop needs of `whenthen.triggers.Evaluator`."""

    clock_us: int

    @property
    def rules(self) -> Any: ...
    def process(self, event: Event, now_us: int) -> Any: ...
    def advance(self, now_us: int) -> Any: ...
    def next_deadline_us(self) -> int | None: ...
    def wants_all_events(self) -> bool: ...
    def remember(self, event_id: str, at_us: int) -> None: ...
    def holds(self, event_id: str) -> bool: ...
    def pending(self) -> int: ...
    def drain(self) -> list[tuple[str, str, bytes | None]]: ...
    def restore(self, trigger: str, key: str, state: bytes) -> bool: ...
    def replace_rules(self, rules: Any) -> Any: ...


class Observer:
    """Told what happens; does nothing. Metrics and the decision log override what they want to know."""

    def evaluated(self, shard: int, events: int, decisions: Sequence[Decision], firings: Sequence[Firing]) -> None:
        """A batch was evaluated; its firings are not committed yet."""

    def committed(self, shard: int, firings: Sequence[Firing], messages: int, seconds: float) -> None:
        """A batch is stored."""

    def stopped(self, shard: int, stopped: Sequence[Any]) -> None:
        """Firings that were not made, as too many firings led to them."""

    def lag(self, shard: int, messages: int, seconds: float) -> None:
        """How far the shard is behind the stream."""

    def unreadable(self, shard: int, seq: int, error: Exception) -> None:
        """The message at `seq` is no event, or the evaluator failed on it; it was passed over."""


class EvaluationSettings:
    """How long firings, and tasks that nobody finished, are kept."""

    __slots__ = ("firing_ttl_s", "task_ttl_s")

    def __init__(self, *, firing_ttl_s: int = 30 * 86400, task_ttl_s: int = 30 * 86400) -> None:
        self.firing_ttl_s = firing_ttl_s
        self.task_ttl_s = task_ttl_s


class _Batch:
    """What was evaluated and is not committed yet."""

    __slots__ = ("events", "firings", "messages", "notices", "started")

    def __init__(self) -> None:
        self.events = 0
        self.firings: list[Firing] = []
        self.messages: list[Message] = []
        self.notices: list[Event] = []  #: published before the commit: their ids make a repetition harmless
        self.started = time.monotonic()


class ShardLoop:
    """Evaluates one shard. `run` loads it and goes on until `stop`, which commits what was evaluated."""

    def __init__(
        self,
        bus: Bus,
        shard: int,
        evaluator: Evaluates,
        *,
        settings: EvaluationSettings | None = None,
        observer: Observer | None = None,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        writer: str = "",
    ) -> None:
        self.bus = bus
        self.shard = shard
        self.evaluator = evaluator
        self.settings = settings or EvaluationSettings()
        self.observer = observer or Observer()
        self.ready = asyncio.Event()  #: set when the shard is loaded and reads
        self.seq = 0  #: last position that was evaluated
        self._wall_us = wall_us
        self._log = ShardLog(bus.client, shard, writer=writer)
        self._reader = EventReader(bus)
        self._rules: Rules | None = None
        self._actions: dict[str, list[orjson.Fragment]] = {}
        self._filters: list[str] = []
        self._stopping = False
        self._recalled = False
        self._commit: asyncio.Task[None] | None = None
        self._stream_clock: tuple[int, float] | None = None  # server's time, and ours (monotonic) when we read it
        self._tick_sent: float | None = None
        self._tick_read = False  #: the last message was a tick, which nobody kept waiting
        self._moved = time.monotonic()

    @property
    def committed(self) -> int:
        """Last position that is stored, and everything that came of it."""
        return self._log.stored

    @property
    def caught_up(self) -> bool:
        return self.ready.is_set() and self._reader.caught_up and self._commit is None

    def replace_rules(self, rules: Rules) -> None:
        """Go on with other rules after the batch at hand."""
        self._rules = rules
        self._reader.wake()

    def stop(self) -> None:
        """Finish the batch at hand, commit it, and let `run` return."""
        self._stopping = True
        self._reader.wake()

    async def run(self) -> None:
        """Load the shard and evaluate it.

        Raises:
            Fenced: another process has the shard.
            SetupError: the shard's state can not be trusted.
        """
        try:
            await self._load()
            await self._read()
            self.ready.set()
            while not self._stopping:
                await self._step()
            await self._settle()
            if self._behind():
                await self._log.commit([], seq=self.seq, clock_us=self.evaluator.clock_us)
        finally:
            self.ready.clear()
            if self._commit is not None:
                await end_task(self._commit)
            await self._reader.stop()

    async def _load(self) -> None:
        """Bring the evaluator to the shard's last commit."""
        unknown: set[tuple[str, str]] = set()
        latest: dict[tuple[str, str], bytes] = {}
        while True:
            try:
                await self._log.load(lambda trigger, key, state: latest.__setitem__((trigger, key), state))
                break
            except BusUnavailable as error:
                log.warning("shard %d is not loaded yet: %s", self.shard, error)
                latest.clear()
                await asyncio.sleep(0.2)
        offset = self._log.offset
        self.evaluator.clock_us = max(self.evaluator.clock_us, offset.clock_us)
        for count, ((trigger, key), state) in enumerate(latest.items(), 1):
            if state and not self.evaluator.restore(trigger, key, state):
                unknown.add((trigger, key))
            if count % 2000 == 0:
                await asyncio.sleep(0)
        self.seq = offset.seq
        if self.evaluator.wants_all_events():
            await self._recall(offset.seq + 1)
        log.info("shard %d: loaded %d windows at position %d", self.shard, len(latest) - len(unknown), offset.seq)
        if unknown:
            log.info("shard %d: forgetting %d windows of rules that are gone", self.shard, len(unknown))
            forgotten = [self._window(trigger, key, None) for trigger, key in unknown]
            await self._log.commit(forgotten, seq=offset.seq, clock_us=offset.clock_us)

    async def _recall(self, before: int) -> None:
        """Learn which events came lately, for one that names its predecessor. Done once: from then on all are read."""
        since_us = self.evaluator.clock_us - RECALL_US
        while not self._recalled and not self._stopping:
            try:
                for event_id, at_us in await recent_ids(self.bus.client, since_us=since_us, before=before):
                    if not self.evaluator.holds(event_id):
                        self.evaluator.remember(event_id, at_us)
                self._recalled = True
            except BusUnavailable as error:
                log.warning("shard %d: recent events are not read yet: %s", self.shard, error)
                await asyncio.sleep(NOTIFY_RETRY_S)

    def _wanted(self) -> list[str]:
        """The subjects that the evaluator must see now."""
        patterns = ["*"] if self.evaluator.wants_all_events() else self.evaluator.rules.patterns()
        return [*filters_for(patterns), tick_subject(self.shard)]

    async def _read(self) -> None:
        self._filters = self._wanted()
        await self._reader.start(self.seq, self._filters)

    async def _step(self) -> None:
        """One batch: wait for events, evaluate them, start their commit."""
        if self._rules is not None:
            await self._swap(self._rules)
        if not self._reader.buffered:
            # idle: a commit that failed for good shows here as well; its end wakes the reader
            if self._commit is not None:
                if not self._commit.done():
                    await self._reader.wait(IDLE_COMMIT_S)
                if self._commit.done():
                    await self._settle()
            else:
                await self._idle()
                await self._reader.wait(self._patience())
            if not self._reader.buffered:
                return
        batch = await self._evaluate()
        await self._settle()
        self._start_commit(batch)
        if self.evaluator.wants_all_events() and ALL_EVENTS not in self._filters:
            await self._read()

    async def _swap(self, rules: Rules) -> None:
        self._rules = None
        await self._settle()
        self.evaluator.replace_rules(rules)
        self._actions = {}
        self._start_commit(_Batch(), always=True)
        if self._wanted() != self._filters:
            await self._read()

    async def _evaluate(self) -> _Batch:
        batch = _Batch()
        slice_end = batch.started + SLICE_S
        decisions: list[Decision] = []
        last: Received | None = None
        while (message := self._reader.take()) is not None:
            last = message
            if not self._recalled and FOLLOWS in message.data:
                await self._recall(message.seq)
            if message.pending == 0:
                self._stream_clock = (message.time_us, time.monotonic())
            self._one(batch, message, decisions)
            self.seq = message.seq
            batch.events += 1
            if (
                batch.events >= BATCH_EVENTS
                or self.evaluator.pending() + len(batch.messages) >= COMMIT_MESSAGES
                or self._stopping
                or self._rules is not None
            ):
                break
            now = time.monotonic()
            if now > slice_end:
                if now > batch.started + BATCH_S:
                    break
                await asyncio.sleep(0)
                slice_end = time.monotonic() + SLICE_S
        self.observer.evaluated(self.shard, batch.events, decisions, batch.firings)
        if last is not None:
            behind = max(0.0, (self._wall_us() - last.time_us) / 1e6)
            self.observer.lag(self.shard, self._reader.pending, behind if self._reader.pending else 0.0)
        return batch

    def _one(self, batch: _Batch, message: Received, decisions: list[Decision]) -> None:
        now_us = max(message.time_us, self.evaluator.clock_us)
        try:
            if message.subject.startswith("ticks."):
                self._tick_sent = None
                self._tick_read = True
                outcome = self.evaluator.advance(now_us)
            else:
                self._tick_read = False
                outcome = self.evaluator.process(decode_event(message.data, message.seq), now_us)
        except Exception as error:  # one message must not stop the shard for ever; it is reported and counted
            log.exception("shard %d: the message at position %d is passed over", self.shard, message.seq)
            self.observer.unreadable(self.shard, message.seq, error)
            return
        decisions.extend(outcome.decisions)
        if outcome.stopped:
            now = from_us(self._wall_us())
            batch.notices += [loop_stopped_event(stopped, now=now) for stopped in outcome.stopped]
            self.observer.stopped(self.shard, outcome.stopped)
        if outcome.firings:
            self._collect(batch, outcome, message)

    def _collect(self, batch: _Batch, outcome: Outcome, message: Received | None) -> None:
        """Turn firings into messages. `message` is the event at hand, which most of them carry."""
        for firing in outcome.firings:
            batch.firings.append(firing)
            event = None
            if firing.event is not None:
                at_hand = message is not None and message.seq == firing.seq
                event = message.data if message is not None and at_hand else orjson.dumps(firing.event)
            encoded = encode_firing(firing, event)
            batch.messages.append(
                Message(firing_subject(firing.automation, firing.id), orjson.dumps(encoded), self.settings.firing_ttl_s)
            )
            for index, action in enumerate(self._specs(firing)):
                batch.messages.append(
                    Message(
                        action_subject(firing.automation, firing.id, index),
                        encode_task(firing, encoded, index, action),
                        self.settings.task_ttl_s,
                    )
                )

    def _specs(self, firing: Firing) -> list[orjson.Fragment]:
        kind = f"{firing.automation}/{firing.state}/{firing.edge}"
        specs = self._actions.get(kind)
        if specs is None:
            automation = self.evaluator.rules.actions(firing.automation)
            specs = self._actions[kind] = [as_json(action) for action in actions_of(automation, firing)]
        return specs

    def _window(self, trigger: str, key: str, state: bytes | None) -> Message:
        subject = window_subject(self.shard, trigger, key)
        return Message(subject, encode_window(trigger, key, state or b""), 0 if state else TOMBSTONE_S)

    def _start_commit(self, batch: _Batch, *, always: bool = False) -> None:
        """Commit in the background; the one before must be settled."""
        changed = self.evaluator.drain()
        messages = [self._window(*window) for window in changed]
        messages += batch.messages
        unmoved = self.seq - self.committed
        now = time.monotonic()
        if (
            not messages
            and not batch.notices
            and not always
            and unmoved < IDLE_EVENTS
            and now < self._moved + IDLE_COMMIT_S
        ):
            return
        self._moved = now
        self._commit = asyncio.create_task(self._store(messages, batch, self.seq, self.evaluator.clock_us))
        self._commit.add_done_callback(lambda _: self._reader.wake())

    async def _store(self, messages: list[Message], batch: _Batch, seq: int, clock_us: int) -> None:
        for notice in batch.notices:
            await self._notify(notice)
        started = time.monotonic()
        await self._log.commit(messages, seq=seq, clock_us=clock_us)
        self.observer.committed(self.shard, batch.firings, len(messages) + 1, time.monotonic() - started)

    async def _notify(self, notice: Event) -> None:
        """Publish, until it is acknowledged."""
        while True:
            try:
                await self.bus.publish(notice)
                return
            except BusUnavailable as error:
                log.warning("shard %d: %s is not published yet: %s", self.shard, notice.name, error)
                await asyncio.sleep(NOTIFY_RETRY_S)

    async def _settle(self) -> None:
        """Wait for the commit under way, and raise what became of it."""
        commit, self._commit = self._commit, None
        if commit is not None:
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                commit.cancel()
                raise

    def _behind(self) -> bool:
        """Whether there is something that an empty commit would store: the position, or that a small one is finished."""
        return self.seq > self.committed or not self._log.settled

    async def _idle(self) -> None:
        """Nothing to read: store the position now and then, and send a tick when something is due."""
        now = time.monotonic()
        if self._behind() and now >= self._moved + IDLE_COMMIT_S:
            self._moved = now
            await self._log.commit([], seq=self.seq, clock_us=self.evaluator.clock_us)
        if self._reader.caught_up:
            self.observer.lag(self.shard, 0, 0.0)
            due = self.evaluator.next_deadline_us()
            if due is not None and (due <= self._now_us() or self._passed_unread(due)):
                await self._tick(now)

    def _now_us(self) -> int:
        """The stream's time now: what its server said last, and how long ago that is by a clock that is never set."""
        if self._stream_clock is None:
            return self._wall_us()
        at_us, mono = self._stream_clock
        return at_us + int((time.monotonic() - mono) * 1e6)

    def _passed_unread(self, due: int) -> bool:
        """Whether `due` may have come while the last event waited to be read, so that its time is long ago.

        Only the wall clock can tell, and it may be wrong: the stream is asked, once after events that were read.
        """
        return not self._tick_read and due <= self._wall_us()

    def _patience(self) -> float:
        """How long to wait for events before looking at the clock."""
        due = self.evaluator.next_deadline_us()
        wait = IDLE_COMMIT_S
        if due is not None:
            wait = min(wait, max((due - self._now_us()) / 1e6, TICK_EVERY_S))
        return wait

    async def _tick(self, now: float) -> None:
        """Ask the stream what time it is; the shard moves its clock when it reads the tick."""
        if self._tick_sent is not None and now < self._tick_sent + TICK_LOST_S:
            return
        self._tick_sent = now
        try:
            await self.bus.store(tick_subject(self.shard), b"")
        except BusUnavailable as error:
            self._tick_sent = None
            log.warning("shard %d: no tick: %s", self.shard, error)
            await asyncio.sleep(TICK_EVERY_S)
