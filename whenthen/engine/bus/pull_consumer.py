"""Reading one JetStream consumer with pull requests: the messages go to a function, and interruptions are repaired.

Used by every reader of a stream: `engine.bus.stream_reader` (events, and what is stored now), the executor, the run queue and the run
events. A consumer is either *ordered* (ephemeral, of this reader alone, nothing acknowledged: each gap is noticed, and reading goes
on after the last message that was handed over) or *durable* (shared, acknowledged: the server delivers again what was lost).

A status of the server that comes instead of a message is recognised by its code and by numeric headers; the text after the code is
logged, and nothing depends on it:

- 100, idle heartbeat: the consumer is alive. For an ordered one it says whether the last message that was sent is here.
- 404, 408, 409 with `Nats-Pending-Messages`: this pull request is over, and so many messages of it will not come. Another
  one is sent. (It expired, is complete, or the next message did not fit in. If the reason was that the consumer was deleted or has no
  leader, the next request is answered by 503, or not at all.)
- 503: nothing serves the consumer. It is created again.
- everything else (a 409 without that header, a code that is not known): the consumer information is asked for. An ordered consumer that
  is there and has lost nothing goes on, else it is created again; a durable one is created again in any case, which
  changes nothing when it exists.

Requests that end at once without a message are repeated with a growing pause. Without a message or heartbeat for `SILENCE_S`
the consumer is created again. An unexpected exception, in here or in the function that takes the messages, ends the reading: it is
logged, `check` raises it from then on, and `changed` is called so that the owner looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.subscription import Subscription

from whenthen.cancellation import end_task, wait_event
from whenthen.engine.bus.consumer_settings import HEARTBEAT_S, ConsumerSettings
from whenthen.engine.bus.protocol import ACK, Meaning, Position, Receive, read_position, read_status
from whenthen.engine.bus.request_client import BusReason, RequestClient, refusal, unavailable
from whenthen.schemas.errors import BusUnavailable

__all__ = ["ConsumerSettings", "Deliver", "PullConsumer"]

log = logging.getLogger(__name__)

#: gets position, reply subject (which acknowledges), subject, header block and data of one message
Deliver = Callable[[Position, bytes, bytes, bytes, bytes], None]

#: how long a new consumer may take, while fewer than so many attempts in a row failed, and after that: a cluster whose leader
#: died does not answer, nor does it when it has given the consumer to the server that died; the next try goes elsewhere
CREATE_S = (0.75, 5.0)
CREATE_HASTY = 12
RETRY_S = (0.05, 0.25)  #: the pause after a failure, and the longest that it grows to
FRUITLESS_S = 1.0  #: the longest pause between requests that end at once without a message
FRUITLESS_LIMIT = 3  #: after so many of them an ordered consumer that seems to be there is created again all the same
WARN_EVERY_S = 10.0


class PullConsumer:
    """One consumer, kept alive and asked for messages. `start`, then messages go to `deliver`, until `stop` or `drain`.

    `demand(asked)` says how many more messages to ask for now, given that so many are still to come; it is called again when
    a pull request is over, and after `wake`. `changed` is called when the consumer was created, a pull request ended, reading
    met trouble, or failed.
    """

    def __init__(
        self,
        client: RequestClient,
        settings: ConsumerSettings,
        deliver: Deliver,
        *,
        demand: Callable[[int], int],
        changed: Callable[[], None] = lambda: None,
        after: int = 0,
        exists: bool = False,
    ) -> None:
        """`after`: read on from this position of the stream (ordered; 0 for what the settings say). `exists`: a durable
        consumer was created before, and need not be again unless the server says so."""
        self.client = client
        self.settings = settings
        self.live = False  #: the consumer is there, as far as is known
        self.exists = exists
        self.pending = 0  #: messages that the server has for the consumer and has not sent yet
        self.last_seq = after  #: of the stream: the last message that was handed over
        self.asked = 0  #: messages that are still to come for pull requests
        self.received = 0
        self.created = 0  #: how many consumers were created
        self.ended = 0  #: pull requests that the server has ended
        self.trouble: BusUnavailable | None = None  #: why reading is interrupted now
        self.failure: BaseException | None = None  #: why reading has ended
        self._deliver = deliver
        self._demand = demand
        self._changed = changed
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None
        self._sub: Subscription | None = None
        self._name = settings.durable
        self._inbox = ""
        self._consumer_seq = 0
        self._verify = False  #: the consumer may be there still; ask before it is created again
        self._ask_again = False  #: all pull requests count as ended
        self._interruptions = 0
        self._failed = 0  #: attempts to create a consumer, since one worked
        self._fruitless = 0  #: pull requests in a row that ended at once without a message
        self._heard = 0.0
        self._asked_at = 0.0
        self._received_before = 0  #: before the last pull request
        self._warned = float("-inf")

    def start(self) -> None:
        """Begin to read."""
        assert self._task is None, "started already"
        self._unlisten = self.client.on_connection(self._connection_changed)
        self._task = asyncio.create_task(self._run(), name=f"consumer of {self.settings.stream}")
        self._task.add_done_callback(self._task_ended)

    async def stop(self) -> None:
        """End reading; nothing is delivered afterwards, and by an ordered consumer, which is deleted, nothing from now on."""
        if not self.settings.durable:
            self._inbox = ""
        await self._end_task()
        await self._drop()

    async def drain(self) -> None:
        """End reading after what the server has sent already was delivered.

        Without a connection it ends at once; messages in flight are redelivered.
        """
        await self._end_task()
        sub = self._sub
        try:
            if sub is not None and self.client.nc.is_connected:
                await self.client.protocol.drain(sub)
                self._sub = None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.debug("messages of %s in flight will be redelivered: %r", self.settings.stream, error)
        finally:
            await self._drop()

    def wake(self) -> None:
        """Look at `demand` again."""
        self._wake.set()

    def check(self) -> None:
        """Raise what ended the reading, if anything did."""
        if self.failure is not None:
            raise self.failure

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if task is not None:
            await end_task(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return  # by `stop` or `drain`
        error = RuntimeError("the task was cancelled from outside") if task.cancelled() else task.exception()
        self._fail(error or RuntimeError("the task ended by itself"))

    def _fail(self, error: BaseException) -> None:
        if self.failure is not None:
            return
        log.error("reading %s has ended: %r", self.settings.stream, error, exc_info=error)
        self.failure = error
        self.live = False
        self._inbox = ""
        if self._task is not None:
            self._task.cancel()
        self._changed()

    def _connection_changed(self) -> None:
        if self.settings.durable:
            self._inbox = ""  # pull requests through it may be lost or not; nobody counts on them any more
        self._interrupt(verify=True)

    def _interrupt(self, *, verify: bool = False, ask_again: bool = False) -> None:
        """Have the task check the consumer before the next pull request."""
        self.live = False
        self._verify, self._ask_again = verify, ask_again
        self._interruptions += 1
        self._wake.set()

    # -- the task

    async def _run(self) -> None:
        pause = RETRY_S[0]
        now = asyncio.get_running_loop().time
        while True:
            try:
                if not self.live:
                    if not await self._open():
                        continue
                    pause = RETRY_S[0]
                if self._fruitless and self.received == self._received_before:
                    await asyncio.sleep(min(RETRY_S[0] * 2 ** min(self._fruitless - 1, 10), FRUITLESS_S))
                if self.live and (batch := self._demand(self.asked)) > 0:
                    self._ask(batch)
            except BusUnavailable as error:
                self._interrupted(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])
                continue
            self._wake.clear()
            if self.live and self._demand(self.asked) <= 0:
                woken = await wait_event(self._wake, HEARTBEAT_S)
                if not woken and self.asked > 0 and now() - self._heard > self.settings.silence_s:
                    log.warning("the consumer of %s fell silent; creating it again", self.settings.stream)
                    self._inbox = ""
                    self._interrupt()

    def _interrupted(self, error: BusUnavailable) -> None:
        self.live = False
        self._failed += error.reason != BusReason.DISCONNECTED
        self.trouble = error
        level = self._level(serious=self._failed >= CREATE_HASTY)
        log.log(level, "reading %s from %d on: %s; trying again", self.settings.stream, self.last_seq + 1, error)
        self._changed()

    def _level(self, *, serious: bool) -> int:
        """How loud to be about what repeats several times a second."""
        now = asyncio.get_running_loop().time()
        if not serious or now < self._warned + WARN_EVERY_S:
            return logging.INFO
        self._warned = now
        return logging.WARNING

    async def _open(self) -> bool:
        """Make sure that the consumer exists and that what it sends arrives here. False when it was interrupted again
        meanwhile."""
        interruptions = self._interruptions
        if self.settings.durable:
            await self._open_durable()
        elif not (self._verify and self._inbox and await self._still_there()):
            await self._drop()
            await self._create_ordered()
        else:
            log.info("reading %s from %d on: the consumer is still there", self.settings.stream, self.last_seq + 1)
        self._failed = 0
        if interruptions != self._interruptions:
            return False
        self._heard = asyncio.get_running_loop().time()
        self._verify = self._ask_again = False
        self.trouble = None
        self.live = True
        self._changed()
        return True

    async def _still_there(self) -> bool:
        """Whether the ordered consumer is there, and nothing that it sent was lost.

        In a cluster that lacks the leader who creates consumers this is how reading goes on after a lost connection: the
        consumer's own server answers.
        """
        if self._fruitless >= FRUITLESS_LIMIT:
            return False
        inbox = self._inbox
        try:
            answer = await self.client.api(f"CONSUMER.INFO.{self.settings.stream}.{self._name}", timeout_s=CREATE_S[0])
        except BusUnavailable as error:
            if error.reason == BusReason.DISCONNECTED:
                raise
            self._verify = False
            return False
        if answer.get("error") or answer["delivered"]["consumer_seq"] != self._consumer_seq or inbox != self._inbox:
            return False
        self.pending = answer["num_pending"]
        if self._ask_again or not answer.get("num_waiting"):
            self.asked = 0  # else what was asked for before the connection was lost is still to come
        return True

    async def count_again(self) -> None:
        """Ask how many messages the server still has for an ordered consumer. Those that expire first are never sent, and would be
        waited for.

        Raises:
            BusUnavailable: no answer.
        """
        answer = await self.client.api(f"CONSUMER.INFO.{self.settings.stream}.{self._name}")
        if "error" not in answer and answer["delivered"]["consumer_seq"] == self._consumer_seq:  # nothing is on the way
            self.pending = answer["num_pending"]

    async def _create_ordered(self) -> None:
        settings = self.settings
        self._name = f"wt-{settings.stream.lower()}-{uuid.uuid4().hex}"
        self._consumer_seq = 0
        await self._subscribe()
        config = settings.ordered_config(self._name, after=self.last_seq)
        answer = await self._create(f"{settings.stream}.{self._name}", config, action="create")
        self.pending = answer.get("num_pending", 0)

    async def _open_durable(self) -> None:
        settings = self.settings
        if not self.exists:
            await self._create(settings.durable_subject, {**settings.config, "durable_name": settings.durable})
            self.exists = True
        if not self._inbox or self._sub is None or self._fruitless >= FRUITLESS_LIMIT:
            await self._drop()
            await self._subscribe()
        elif self._ask_again:
            self.asked = 0

    async def _create(self, subject: str, config: Mapping[str, object], *, action: str = "") -> dict[str, Any]:
        stream = self.settings.stream
        body: dict[str, object] = {"stream_name": stream, "config": config}
        if action:
            body["action"] = action
        timeout_s = CREATE_S[self._failed >= CREATE_HASTY]
        answer = await self.client.api(f"CONSUMER.CREATE.{subject}", body, timeout_s=timeout_s)
        if error := answer.get("error"):
            raise refusal(f"no consumer of {stream}", error)
        self.created += 1
        return answer

    async def _subscribe(self) -> None:
        inbox = self.client.nc.new_inbox()
        try:
            self._sub = await self.client.protocol.subscribe(inbox, self._receiver(inbox))
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"no subscription: {error!r}", BusReason.DISCONNECTED) from error
        self._inbox = inbox
        self.asked = 0

    def _ask(self, batch: int) -> None:
        settings = self.settings
        request = settings.pull_request(batch, max_payload=self.client.nc.max_payload)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{self._name}"
        self.client.send(subject, request, reply=self._inbox)
        self._asked_at = asyncio.get_running_loop().time()
        self._received_before = self.received
        if self.asked <= 0:
            self._heard = self._asked_at  # nobody had a reason to say anything before
        self.asked += batch

    async def _drop(self) -> None:
        """Forget the subscription, and delete an ordered consumer where there is a connection."""
        sub, self._sub = self._sub, None
        name = self._name
        self.live = False
        self._inbox = ""
        if sub is not None:
            await self.client.protocol.unsubscribe(sub)
        if name and not self.settings.durable:
            self._name = ""
            try:
                self.client.send(f"$JS.API.CONSUMER.DELETE.{self.settings.stream}.{name}", b"")
            except BusUnavailable as error:
                log.debug("consumer %s is left to expire: %s", name, error)

    # -- messages

    def _receiver(self, inbox: str) -> Receive:
        """What takes the messages of one inbox. It runs for every event, so it does no more than it must."""
        now = asyncio.get_running_loop().time
        deliver = self._deliver
        ordered = not self.settings.durable

        def receive(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
            if inbox != self._inbox and (ordered or self.failure is not None):
                return  # of a consumer that was given up
            self._heard = now()
            try:
                if not reply.startswith(ACK):
                    if inbox == self._inbox:
                        self._take_status(reply, head)
                    return
                position = read_position(reply)
                _, seq, consumer_seq, _, pending = position
                if ordered:
                    if consumer_seq != self._consumer_seq + 1:
                        self._lost_messages()
                        return
                    self._consumer_seq = consumer_seq
                asked = self.asked - 1
                if asked > 0:
                    self.asked = asked
                else:
                    self.asked = 0
                    self._wake.set()
                self.received += 1
                self.last_seq = seq
                self.pending = pending
                deliver(position, reply, subject, head, data)
            except Exception as error:  # noqa: BLE001 - handed to the owner by `check`
                self._fail(error)

        return receive

    def _lost_messages(self) -> None:
        log.warning(
            "messages of %s were lost on the way; reading again from %d", self.settings.stream, self.last_seq + 1
        )
        self._inbox = ""
        self._interrupt()

    def _take_status(self, reply: bytes, head: bytes) -> None:
        status = read_status(head)
        if status is None:
            log.debug("a message that is none of the consumer's came to the inbox of %s", self.settings.stream)
            return
        meaning = status.meaning
        if meaning is Meaning.ALIVE:
            if reply:
                with contextlib.suppress(BusUnavailable):
                    self.client.send(reply.decode(), b"")  # flow control waits for this
            if status.last_consumer_seq > self._consumer_seq and not self.settings.durable:
                self._lost_messages()  # the last message that was sent is not here, and none after it would show that
            return
        at_once = asyncio.get_running_loop().time() - self._asked_at < HEARTBEAT_S
        self._fruitless = self._fruitless + 1 if at_once and self.received == self._received_before else 0
        level = self._level(serious=self._fruitless >= FRUITLESS_LIMIT)
        what = "%s answers a pull request with %d %s"
        if meaning is Meaning.ENDED:
            self.ended += 1
            self.asked = max(0, self.asked - (status.left or 0))
            log.log(
                level if level > logging.INFO else logging.DEBUG, what, self.settings.stream, status.code, status.text
            )
        else:
            log.log(level, what, self.settings.stream, status.code, status.text)
            self.exists = False
            if meaning is Meaning.GONE:
                self.asked = 0
            self._interrupt(verify=meaning is Meaning.UNCLEAR, ask_again=True)
        self._changed()
        self._wake.set()
