"""Reading `EVENTS` in order and without gaps from a given position: pull requests into one inbox, with a callback.

Called by the evaluation loop. The consumer is ephemeral, in memory and acknowledges nothing, as the position is the
shard's offset alone. It is created anew after the last message received when the connection or the server went away,
when the server forgot it, when a gap shows, and when it falls silent. What is buffered is bounded in messages and
bytes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import nats.errors
import orjson
from nats.aio.subscription import Subscription

from whenthen.cancellation import end_task, wait_event
from whenthen.engine.bus import ACK, EVENTS, Bus, BusReason, Receive, read_headers, read_position, unavailable
from whenthen.schemas import BusUnavailable

__all__ = ["EventReader", "Received"]

log = logging.getLogger(__name__)

PULL_MESSAGES = 2000
PULL_BYTES = 32 << 20  #: of one pull request; above max_payload, or a large message would never come
LOW_WATER = 1000  #: buffered and asked-for messages below which more are asked for
EXPIRES_S = 30.0  #: of a pull request
HEARTBEAT_S = 1.0
SILENCE_S = 3.0  #: without message or heartbeat: the consumer is gone
INACTIVE_S = 60.0  #: after which the server forgets an abandoned consumer
#: how long a new consumer may take, while fewer than so many tries in a row failed, and after that: a cluster whose leader
#: died does not answer, nor does it when it has given the consumer to the server that died; the next try goes elsewhere
CREATE_S = (0.75, 5.0)
CREATE_HASTY = 12
RETRY_S = (0.05, 0.25)


class Received(NamedTuple):
    """One message of `EVENTS`."""

    seq: int
    time_us: int  #: when the server stored it
    pending: int  #: how many more the server had when it sent this one
    subject: str
    data: bytes


class EventReader:
    """A self-healing reader. `start`, then `wait` and `take`, and `stop`. For one task."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.received = 0  #: messages, over all consumers
        self.consumers = 0  #: how many were created
        self._buffer: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._filters: list[str] = []
        self._last_seq = 0
        self._pending = 0
        self._created = False
        self._task: asyncio.Task[None] | None = None
        self._renew = asyncio.Event()
        self._failed = 0  #: tries to create a consumer, since one worked
        self._reconnected = False  #: and the consumer may have outlived the connection
        self._sub: Subscription | None = None
        self._name = ""
        self._inbox = ""
        self._consumer_seq = 0
        self._asked = 0
        self._bytes = 0  #: of what is buffered
        self._heard = 0.0
        self._unlisten = bus.on_connection(self._connection)

    async def start(self, after: int, filters: Sequence[str]) -> None:
        """Read what follows position `after` on subjects that pass `filters`; what was buffered is dropped."""
        await self._halt()
        self._buffer.clear()
        self._bytes = 0
        self._last_seq, self._filters = after, list(filters)
        self._task = asyncio.create_task(self._keep(), name="event reader")

    async def stop(self) -> None:
        self._unlisten()
        await self._halt()

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def pending(self) -> int:
        """Messages known to wait: buffered here and not sent yet."""
        return self._pending + len(self._buffer)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there has been taken."""
        return self._created and not self._buffer and self._pending == 0

    def take(self) -> Received | None:
        """The next message, or None when none has arrived."""
        if not self._buffer:
            return None
        message = self._buffer.popleft()
        self._bytes -= len(message.data)
        if self._low():
            self._renew.set()  # wakes the task that asks for more
        return message

    async def wait(self, timeout_s: float) -> bool:
        """Wait until a message is buffered, at most `timeout_s`; whether there is one."""
        if not self._buffer:
            self._arrived.clear()
            await wait_event(self._arrived, timeout_s)
        return bool(self._buffer)

    def _low(self) -> bool:
        """Whether it is time to ask for more."""
        return self._asked + len(self._buffer) < LOW_WATER and self._bytes < PULL_BYTES

    def wake(self) -> None:
        """End a `wait` early."""
        self._arrived.set()

    def _connection(self, connected: bool) -> None:
        self._created = False
        self._reconnected = True
        self._renew.set()

    async def _halt(self) -> None:
        if self._task is not None:
            await end_task(self._task)
            self._task = None
        await self._drop()

    async def _keep(self) -> None:
        """Keep a consumer alive and asked."""
        pause = RETRY_S[0]
        loop = asyncio.get_running_loop()
        while True:
            try:
                if not self._created:
                    if not await self._outlived():
                        await self._drop()
                        await self._create()
                    pause = RETRY_S[0]
                if self._low():
                    self._ask()
            except BusUnavailable as error:
                log.info("reading %s from %d on: %s; trying again", EVENTS, self._last_seq + 1, error)
                self._created = False
                self._failed += error.reason != BusReason.DISCONNECTED
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])
                continue
            self._renew.clear()
            if self._created and not self._low():
                woken = await wait_event(self._renew, HEARTBEAT_S)
                if not woken and self._asked > 0 and loop.time() - self._heard > SILENCE_S:
                    log.warning("the consumer of %s fell silent; creating it again", EVENTS)
                    self._created = False

    async def _outlived(self) -> bool:
        """Whether the consumer outlived the connection, and nothing that it sent was lost; then it need not be created.

        In a cluster that lacks the leader who creates consumers this is how reading goes on. Its own server answers.
        """
        if not self._reconnected or not self._inbox:
            return False
        try:
            answer = await self.bus.client.api(f"CONSUMER.INFO.{EVENTS}.{self._name}", timeout_s=CREATE_S[0])
        except BusUnavailable as error:
            self._reconnected = error.reason == BusReason.DISCONNECTED
            if self._reconnected:
                raise
            return False
        self._reconnected = False
        if answer.get("error") or answer["delivered"]["consumer_seq"] != self._consumer_seq or not self._inbox:
            return False
        self._pending = answer["num_pending"]
        if not answer.get("num_waiting"):
            self._asked = 0  # else what was asked for before the connection was lost is still to come
        self._failed = 0
        self._heard = asyncio.get_running_loop().time()
        self._created = True
        log.info("reading %s from %d on: the consumer is still there", EVENTS, self._last_seq + 1)
        return True

    async def _create(self) -> None:
        self._name = f"wt-eval-{uuid.uuid4().hex}"
        self._inbox = self.bus.nc.new_inbox()
        self._consumer_seq = self._asked = 0
        receive = self._receiver(self._inbox)
        try:
            self._sub = await self.bus.protocol.subscribe(self._inbox, receive)
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"no subscription: {error!r}", BusReason.DISCONNECTED) from error
        config: dict[str, object] = {
            "name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last_seq + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": int(INACTIVE_S * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
            "max_waiting": 16,
        }
        if len(self._filters) == 1:
            config["filter_subject"] = self._filters[0]
        elif self._filters:
            config["filter_subjects"] = self._filters
        patience = CREATE_S[self._failed >= CREATE_HASTY]
        body = {"stream_name": EVENTS, "config": config, "action": "create"}
        answer = await self.bus.client.api(f"CONSUMER.CREATE.{EVENTS}.{self._name}", body, timeout_s=patience)
        if refusal := answer.get("error"):
            why = f"no consumer: {refusal.get('description')} ({refusal.get('err_code')})"
            raise unavailable(why, BusReason.REFUSED)
        self._pending = answer.get("num_pending", 0)
        self._heard = asyncio.get_running_loop().time()
        self._created = True
        self._reconnected = False
        self._failed = 0
        self.consumers += 1
        if self._pending == 0:
            self._arrived.set()  # whoever waits may want to know that it has caught up

    def _ask(self) -> None:
        request = {
            "batch": PULL_MESSAGES,
            "max_bytes": PULL_BYTES,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{self._name}"
        self.bus.client.tell(subject, orjson.dumps(request), reply=self._inbox)
        self._asked += PULL_MESSAGES

    async def _drop(self) -> None:
        """Forget the consumer here and, where there is a connection, on the server."""
        sub, self._sub = self._sub, None
        self._created = False
        self._inbox = ""
        if sub is None:
            return
        await self.bus.protocol.unsubscribe(sub)
        try:
            self.bus.client.tell(f"$JS.API.CONSUMER.DELETE.{EVENTS}.{self._name}", b"")
        except BusUnavailable as error:
            log.debug("consumer %s is left to expire: %s", self._name, error)

    def _receiver(self, inbox: str) -> Receive:
        """What takes the messages of one consumer. It runs for every event, so it does no more than it must."""
        now = asyncio.get_running_loop().time
        buffer = self._buffer
        arrived = self._arrived

        def receive(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
            if inbox != self._inbox:
                return  # of a consumer that was given up
            self._heard = now()
            if not reply.startswith(ACK):
                self._status(read_headers(head))
                return
            _, seq, consumer_seq, time_us, pending = read_position(reply)
            if consumer_seq != self._consumer_seq + 1:
                self._gap()
                return
            self._consumer_seq += 1
            self._asked -= 1
            self.received += 1
            self._last_seq = seq
            self._pending = pending
            self._bytes += len(data)
            buffer.append(Received(seq, time_us, pending, subject.decode(), data))
            arrived.set()

        return receive

    def _gap(self) -> None:
        log.warning("messages of %s were lost on the way; reading again from %d", EVENTS, self._last_seq + 1)
        self._created = False
        self._inbox = ""
        self._renew.set()

    def _status(self, headers: dict[str, str]) -> None:
        status = headers.get("Status")
        if status is None:
            return
        if status == "100":
            if int(headers.get("Nats-Last-Consumer") or 0) > self._consumer_seq:
                self._gap()  # the last message that was sent is not here, and none after it would show that
            return
        left = headers.get("Nats-Pending-Messages")
        if left is not None and status in ("408", "409"):
            self._asked = max(0, self._asked - int(left))  # that request is over
        else:
            self._created = False
        if "Deleted" in headers.get("Description", "") or "Leadership" in headers.get("Description", ""):
            self._created = False
        self._renew.set()
