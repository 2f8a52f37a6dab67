"""The execution loop: action tasks from `ENGINE`, each performed at least once, with retries and dead letters.

Called by the wiring; several processes share the work through one durable consumer, oldest first. A task is
acknowledged only after its outcome is stored; a crash in between performs it again under the same key. What a task
does is not known here: `resolve` gives it the specification that it names, `perform` does one attempt and raises `ActionError`,
`describe` makes the outcome event, `target` names what is called. A task that names what nobody published becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from whenthen.actions import next_delay
from whenthen.cancellation import end_task, wait_unless
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.records import OutcomeState, decode_task
from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.execution.circuit_breaker import CircuitBreakerSettings
from whenthen.engine.execution.concurrency_limits import ConcurrencyLimits
from whenthen.engine.execution.outcome_store import Outcomes
from whenthen.engine.hangs import MOST_TRIES
from whenthen.schemas.actions import Retry
from whenthen.schemas.errors import ActionError, BusUnavailable
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask
from whenthen.supervision import AtHand, Work, noted

__all__ = ["CONSUMER", "ExecutionObserver", "ExecutionSettings", "Executor"]

log = logging.getLogger(__name__)

CONSUMER = "actions"  #: the durable consumer of all executors
CLOSE_S = 0.02  #: how long the acknowledgement of a finished task may wait for company
DELETE = f"$JS.API.STREAM.MSG.DELETE.{ENGINE}"
#: the delay of what is handed back at once: the server keeps the moment of a delayed redelivery and forgets one without
AT_ONCE_S = 0.001
HAND_BACK_S = 1.0  #: after which a task is offered again that the loss of the connection has cut off
#: a task that was delivered so often beyond its attempts may bring its executor down; its attempts are counted from their start
SUSPECT = 20
#: deliveries after which a task that cannot be handled, for reasons that nobody foresaw, becomes a dead letter
UNFORESEEN = 30
#: errors of the bus that trying again at once does not mend; they are a failure of the action that met them
_LASTING = frozenset({BusReason.FULL, BusReason.REFUSED})

Describe = Callable[[ActionTask, Any, timedelta, timedelta | None], Event | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSettings:
    concurrency: int = 128  #: tasks that run at once in this process
    circuit_breaker: CircuitBreakerSettings = dataclasses.field(default_factory=CircuitBreakerSettings)
    ack_wait_s: float = 15.0  #: after which a task of a dead executor is given to another one
    stop_s: float = 20.0  #: how long tasks may go on when the loop stops, before they are handed back
    outcome_ttl_s: int = 30 * 86400
    dead_ttl_s: int = 0  #: dead letters stay until they are redriven or dropped


class ExecutionObserver:
    """Callbacks of the executor, which do nothing here; `engine.execution.action_runner` overrides them for metrics and logs."""

    def executed(self, task: ActionTask, seconds: float) -> None:
        """An action is done, and that is stored."""

    def failed(self, task: ActionTask, error: ActionError, seconds: float, *, final: bool) -> None:
        """An attempt failed, and that is stored. `final`: the task is a dead letter."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A task that is to be tried."""

    reply: str  #: the subject that acknowledges
    seq: int
    data: bytes  #: as it lies in the stream
    task: ActionTask

    @property
    def attempts(self) -> int:
        """Which attempt this is since the task was made or redriven."""
        return self.task.attempt - int(self.task.extra.get("attempts", 0))


class Executor:
    """Takes action tasks and performs them. `run` until `stop`."""

    def __init__(
        self,
        bus: Bus,
        perform: Callable[[ActionTask], Coroutine[Any, Any, Any]],
        *,
        resolve: Callable[[ActionTask], Awaitable[ActionTask]] | None = None,
        describe: Describe | None = None,
        target: Callable[[ActionTask], str] | None = None,
        settings: ExecutionSettings | None = None,
        observer: ExecutionObserver | None = None,
        hangs: Callable[[str], Awaitable[int]] | None = None,
        at_hand: AtHand | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.bus = bus
        self.settings = settings or ExecutionSettings()
        self.observer = observer or ExecutionObserver()
        self.limits = ConcurrencyLimits(self.settings.concurrency, self.settings.circuit_breaker)
        self.outcomes = Outcomes(bus, ttl_s=self.settings.outcome_ttl_s, dead_ttl_s=self.settings.dead_ttl_s, now=now)
        self.ready = asyncio.Event()
        self._perform = perform
        self._resolve = resolve
        self._describe = describe or (lambda task, result, duration, retry_in: None)
        self._target = target or (lambda task: str(task.action.get("type")))
        self._now = now
        self._hangs = hangs  #: how many processes hung on the action with a key
        self._at_hand = at_hand or AtHand()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by the reply subject that acknowledges
        self._at_work: set[int] = (
            set()
        )  # positions of these; one that comes again, as its keep-alive was late, is done once
        self._closing: list[tuple[str, int]] = []  # done, and the server does not know
        self._closer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._hurry = asyncio.Event()
        self._consumer = self._make_consumer()

    def stop(self) -> None:
        """Take no more; `run` returns when what was taken is done or handed back."""
        self._stopping = True
        self._wake.set()

    def hurry(self) -> None:
        """After `stop`: wait no longer for what was taken, and hand it back."""
        self._hurry.set()

    async def run(self) -> None:
        """Perform tasks until `stop`.

        Raises whatever ended the reading of tasks, or keeping them alive, unexpectedly.
        """
        keeper = asyncio.create_task(self._keep_alive(), name="action keep-alive")
        keeper.add_done_callback(lambda _: self._wake.set())
        self._consumer.start()
        try:
            while not self._stopping:
                self._consumer.check()
                if keeper.done():
                    keeper.result()
                if self._consumer.live:
                    self.ready.set()
                self._wake.clear()
                await self._wake.wait()
        finally:
            try:
                await self._finish()
            finally:
                self._send_closing()
                await end_task(keeper)

    def _make_consumer(self) -> PullConsumer:
        """The durable consumer that all executors share."""
        config = {
            "filter_subject": "engine.action.>",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self.settings.ack_wait_s * 1e9),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "max_waiting": 4096,
            "replay_policy": "instant",
        }
        settings = ConsumerSettings(stream=ENGINE, durable=CONSUMER, config=config)
        return PullConsumer(self.bus.client, settings, self._receive, demand=self._room, changed=self._wake.set)

    def _room(self, asked: int) -> int:
        """For how many tasks to ask now, while so many are still to come; 0 when it is not worth a request."""
        room = 2 * self.settings.concurrency - len(self._tasks) - asked
        return 0 if room <= 0 or (asked and room < self.settings.concurrency // 2) else room

    def _receive(self, position: Position, reply: bytes, subject: bytes, head: bytes, data: bytes) -> None:
        name, seq = reply.decode(), position.seq
        if seq in self._at_work:
            return
        work = self._handle(name, position, data) if not self._stopping else self._nak(name, AT_ONCE_S)
        task = asyncio.create_task(work)
        self._tasks[name] = task
        self._at_work.add(seq)
        task.add_done_callback(lambda done: self._done(name, seq, done))

    def _done(self, reply: str, seq: int, done: asyncio.Task[None]) -> None:
        self._tasks.pop(reply, None)
        self._at_work.discard(seq)
        if self._room(self._consumer.asked):
            self._consumer.wake()
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("an action task could not be handled; it will be delivered again", exc_info=error)

    async def _handle(self, reply: str, position: Position, data: bytes) -> None:
        """One delivery: decide whether it still is to be done, do it, store what came of it, acknowledge."""
        if not data:
            await self._answer(reply, b"+ACK")
            return
        delivered, seq = position.delivered, position.seq
        try:
            task, event_seq = decode_task(data)
        except (ValueError, KeyError, TypeError) as error:
            log.error("sequence %d of %s is no action task (%r); it is passed over", seq, ENGINE, error)
            await self._answer(reply, b"+TERM")
            return
        try:
            attempt = int(task.extra.get("attempts", 0)) + 1
            hung = 0
            if delivered > 1:
                before = await self.outcomes.find(task)
                if before is not None:
                    if before.final:
                        await self._close(reply, seq)
                        return
                    attempt = before.attempt + 1
                hung = await self._hangs(task.key) if self._hangs is not None else 0
            if attempt != task.attempt:
                task = dataclasses.replace(task, attempt=attempt)
            refused: ActionError | None = None
            if self._resolve is not None:
                try:
                    task = await self._resolve(task)
                except ActionError as error:
                    # nothing of what it says is for us, but its type is for people
                    task, refused = dataclasses.replace(task, action={"type": str(task.action["type"])[:64]}), error
            if event_seq:
                event = await self.bus.event_at(event_seq)
                data_of_event = event.data if event is not None else None
                task = dataclasses.replace(task, firing=dataclasses.replace(task.firing, event=data_of_event))
            one = _Delivery(reply, seq, data, task)
            if refused is not None:
                await self._failed(one, refused, 0.0)
            elif event_seq and task.firing.event is None:
                why = f"the triggering event (position {event_seq}) is no longer kept"
                await self._failed(one, ActionError(why, retryable=False), 0.0)
            elif hung >= MOST_TRIES:
                why = f"{hung} processes hung on it; redrive it once the cause is mended"
                await self._failed(one, ActionError(why, retryable=False, reason="hung"), 0.0)
            elif one.attempts > 1 and one.attempts > _retry(task).most_attempts:
                why = "its last attempt was begun and never ended; it seems to bring its executor down"
                await self._failed(one, ActionError(why, retryable=False), 0.0)
            else:
                # a nak, as while the circuit breaker of its target is open, counts as a delivery, too
                await self._try(one, suspect=delivered > SUSPECT + attempt)
        except BusUnavailable as error:
            log.warning("action %s: %s; it will be delivered again", task.key, error)
        except Exception as error:
            if delivered < UNFORESEEN:
                raise
            log.exception(
                "action %s: unforeseen errors in %d deliveries; it becomes a dead letter", task.key, delivered
            )
            await self._mark_dead(reply, seq, task, data, error)

    async def _mark_dead(self, reply: str, seq: int, task: ActionTask, data: bytes, error: Exception) -> None:
        """Make a dead letter of a task that can not be handled, whatever its outcomes are."""
        why = ActionError(f"it could not be handled: {type(error).__name__}: {str(error)[:300]}", retryable=False)
        try:
            await self.outcomes.store_dead(task, data, why, event=None)
        except BusUnavailable as gone:
            log.warning("action %s: %s; it will be delivered again", task.key, gone)
            return
        await self._close(reply, seq)

    async def _try(self, one: _Delivery, *, suspect: bool = False) -> None:
        task = one.task
        target = self._target(task)
        if hold_s := self.limits.refuse_s(target, time.monotonic()):
            await self._nak(one.reply, hold_s * random.uniform(1.0, 1.5))
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self.limits.enter(target, lambda: None if turn.done() else turn.set_result(None))
        succeeded: bool | None = None
        failure: ActionError | None = None
        cut_off: BusUnavailable | None = None
        result: Any = None
        try:
            if not ticket.running:
                await turn
            if suspect:
                begun = ActionError("the attempt was begun, and no end of it was stored")
                await self.outcomes.store(task, OutcomeState.RETRYING, error=begun)
            started = time.monotonic()
            try:
                result = await noted(self._at_hand, Work.ACTION, task.key.encode(), self._perform(task))
                succeeded = True
            except ActionError as error:
                succeeded, failure = not error.retryable, error
            except BusUnavailable as error:
                # our own connection is away: no fault of the action, and none of its attempts
                if error.reason in _LASTING:
                    failure = ActionError(str(error), retryable=True)
                else:
                    cut_off = error
            except Exception as error:  # a defect in an action is its failure, not the loop's
                log.exception("action %s failed in an unforeseen way", task.key)
                succeeded, failure = None, ActionError(f"{type(error).__name__}: {error}", retryable=True)
        finally:
            self.limits.leave(ticket, succeeded=succeeded, now=time.monotonic())
        seconds = time.monotonic() - started
        if cut_off is not None:
            log.info("action %s was cut off: %s; it is handed back", task.key, cut_off)
            await self._nak(one.reply, HAND_BACK_S)
            return
        if failure is not None:
            await self._failed(one, failure, seconds)
            return
        event = self._describe(task, result, timedelta(seconds=seconds), None)
        self._send_closing()
        await self.outcomes.store(task, OutcomeState.EXECUTED, result=result, event=event)
        await self._close(one.reply, one.seq)
        self.observer.executed(task, seconds)

    async def _failed(self, one: _Delivery, error: ActionError, seconds: float) -> None:
        task = one.task
        before = await self.outcomes.find(task)
        if before is not None and before.state is OutcomeState.EXECUTED:
            # the task came again while this attempt hung, as after a crash of NATS, and the other attempt is done
            log.info("action %s: an attempt failed (%s) after another one was done", task.key, error)
            await self._close(one.reply, one.seq)
            return
        delay = None
        if error.retryable:
            delay = next_delay(_retry(task), one.attempts, random=random.random(), retry_after=error.retry_after)
        event = self._describe(task, error, timedelta(seconds=seconds), delay)
        if delay is not None:
            next_at = self._now() + delay
            await self.outcomes.store(task, OutcomeState.RETRYING, error=error, next_at=next_at, event=event)
            await self._nak(one.reply, delay.total_seconds())
            self.observer.failed(task, error, seconds, final=False)
            return
        await self.outcomes.store_dead(task, one.data, error, event=event)
        await self._close(one.reply, one.seq)
        self.observer.failed(task, error, seconds, final=True)

    async def _close(self, reply: str, seq: int) -> None:
        """Have the task acknowledged and taken out of the stream, with the next outcome that is sent or after `CLOSE_S`.

        Its outcome is stored: nothing waits for this, and each write costs the process and the server more than what is
        in it. When it gets lost the task comes again, and its outcome is found.
        """
        self._closing.append((reply, seq))
        if self._closer is None:
            self._closer = asyncio.get_running_loop().call_later(CLOSE_S, self._send_closing)

    def _send_closing(self) -> None:
        if self._closer is not None:
            self._closer.cancel()
            self._closer = None
        closing, self._closing = self._closing, []
        try:
            for reply, seq in closing:
                self.bus.client.send(reply, b"+ACK")
                # a copy that stays behind expires with its time to live
                self.bus.client.send(DELETE, b'{"seq":%d,"no_erase":true}' % seq)
        except BusUnavailable:
            log.debug("some of %d tasks were not acknowledged; they will be delivered again", len(closing))

    async def _nak(self, reply: str, delay_s: float) -> None:
        await self._answer(reply, b"-NAK " + orjson.dumps({"delay": int(delay_s * 1e9)}))

    async def _answer(self, reply: str, verb: bytes) -> None:
        """Tell the consumer; when that is lost the task comes again after `ack_wait_s` and its outcome is found."""
        try:
            self.bus.client.send(reply, verb)
        except BusUnavailable:
            log.debug("%r was not sent; the task will be delivered again", verb)

    async def _keep_alive(self) -> None:
        """Tell the server about every task that is still being succeeded on."""
        while True:
            await asyncio.sleep(self.settings.ack_wait_s / 3)
            for reply in list(self._tasks):
                await self._answer(reply, b"+WPI")

    async def _finish(self) -> None:
        """Let tasks end for a while, then hand the others back.

        The consumer goes first: what is handed back must not come here again through a pull request that is still open.
        """
        await self._consumer.drain()
        if self._tasks:
            await wait_unless(self._hurry, self._tasks.values(), timeout_s=self.settings.stop_s)
        late = dict(self._tasks)
        for reply, task in late.items():
            await end_task(task)
            await self._nak(reply, AT_ONCE_S)
        if late:
            log.info("handed back %d unfinished actions", len(late))


def _retry(task: ActionTask) -> Retry:
    return _read_retry(orjson.dumps(task.action.get("retry") or {}))


@lru_cache(maxsize=1024)  # the same for all tasks of a rule
def _read_retry(data: bytes) -> Retry:
    return Retry.model_validate(orjson.loads(data))
