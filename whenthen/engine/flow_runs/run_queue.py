"""Runs that wait for a worker, in the work queue `RUNS` (`runs.stores.RunQueue`).

The subject is `runs.<pool>.<deployment>.<run>`; a subject holds one message at most. The workers of a pool share a durable
consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

from whenthen.cancellation import wait_event
from whenthen.engine.bus.buckets import WrongRevision, publish_expecting
from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.request_client import BusReason, RequestClient, unavailable
from whenthen.engine.bus.streams import RUNS
from whenthen.engine.bus.subjects import pool_consumer, pool_subject, queued_run_subject
from whenthen.engine.flow_runs.pulled_message import PulledMessage
from whenthen.schemas.errors import BusUnavailable

__all__ = ["NatsQueuedRun", "NatsRunQueue"]

_GRACE_S = 5.0  #: how much longer than asked for the server may take to say that there is none
_MIN_WAIT_S = 0.001  #: the shortest pull request that the server takes


class NatsQueuedRun:
    """See `runs.stores.QueuedRun`."""

    def __init__(self, message: PulledMessage) -> None:
        self._message = message

    @property
    def run_id(self) -> str:
        return self._message.data.decode("utf-8", "replace")

    @property
    def deliveries(self) -> int:
        return self._message.position.delivered

    async def ack(self) -> None:
        await self._message.ack()

    async def nak(self, delay: timedelta) -> None:
        self._message.nak(delay)

    async def in_progress(self) -> None:
        self._message.in_progress()


class NatsRunQueue:
    """See `runs.stores.RunQueue`."""

    def __init__(self, client: RequestClient, ack_wait: timedelta) -> None:
        self.ack_wait = ack_wait
        self._client = client
        self._existing: set[str] = set()  #: pools whose consumer was created

    async def put(self, run_id: str, *, pool: str, deployment: str) -> bool:
        subject = queued_run_subject(pool, deployment, run_id)
        try:
            await publish_expecting(self._client, subject, run_id.encode(), 0)
        except WrongRevision:
            return False
        return True

    async def fetch(self, pool: str, *, wait: timedelta) -> NatsQueuedRun | None:
        wait_s = max(wait.total_seconds(), _MIN_WAIT_S)
        taken: list[PulledMessage] = []
        changed = asyncio.Event()

        def deliver(position: Position, reply: bytes, subject: bytes, head: bytes, data: bytes) -> None:
            taken.append(PulledMessage(self._client, position, reply, data))
            changed.set()

        consumer = PullConsumer(
            self._client,
            self._settings(pool, wait_s),
            deliver,
            demand=lambda asked: 0 if asked or taken or consumer.ended else 1,
            changed=changed.set,
            exists=pool in self._existing,
        )
        consumer.start()
        try:
            try:
                await _answered(consumer, changed, taken, wait_s + _GRACE_S)
            finally:
                if not taken and not consumer.ended:
                    await consumer.drain()  # a run in flight would wait for its ack wait
                else:
                    await consumer.stop()
                (self._existing.add if consumer.exists else self._existing.discard)(pool)
        except BaseException:
            _hand_back(taken)
            raise
        _hand_back(taken[1:])  # a request that seemed lost was answered, too
        if not taken and not consumer.ended:
            raise unavailable(f"NATS did not say within {wait_s + _GRACE_S:g} s whether a run waits", BusReason.TIMEOUT)
        return NatsQueuedRun(taken[0]) if taken else None

    def _settings(self, pool: str, wait_s: float) -> ConsumerSettings:
        config = {
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait.total_seconds() * 1e9),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": -1,  # runs that wait for their time are taken and put off
            "filter_subject": pool_subject(pool),
        }
        return ConsumerSettings(stream=RUNS, durable=pool_consumer(pool), config=config, expires_s=wait_s)


async def _answered(
    consumer: PullConsumer, changed: asyncio.Event, taken: Sequence[PulledMessage], timeout_s: float
) -> None:
    """Wait until the server has given a run or has said that there is none, at most `timeout_s`.

    Raises:
        BusUnavailable: it can not be asked.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + timeout_s
    while not taken and not consumer.ended and now() < deadline:
        consumer.check()
        if consumer.trouble is not None:
            raise consumer.trouble
        changed.clear()
        await wait_event(changed, deadline - now())


def _hand_back(messages: Sequence[PulledMessage]) -> None:
    for message in messages:
        with contextlib.suppress(BusUnavailable):
            message.nak(timedelta(0))
