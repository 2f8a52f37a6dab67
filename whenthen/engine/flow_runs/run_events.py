"""Publishes one event for each revision of each flow run, in order, none lost.

Reads the stream under the bucket `WT_runs` with a durable consumer and acknowledges a revision after its event was. After a
crash between the two the event is published again with the same id. One revision is out at a time, so several announcers
keep the order, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from whenthen.engine.bus import RUN_STATES
from whenthen.engine.flow_runs.run_stores import run_of_message
from whenthen.runs import flow_run_event
from whenthen.schemas import BusUnavailable, Event, InvalidInput

__all__ = ["RunEventPublisher"]

log = logging.getLogger(__name__)

_STREAM = f"KV_{RUN_STATES}"
_CONSUMER = "announcer"


class RunEventPublisher:
    """Tells the world how flow runs move. `publish` returns once JetStream has the event."""

    def __init__(
        self,
        js: JetStreamContext,
        publish: Callable[[Event], Awaitable[object]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience: timedelta = timedelta(seconds=15),
        wait: timedelta = timedelta(seconds=5),
        retry_pause: timedelta = timedelta(seconds=0.5),
    ) -> None:
        self._js = js
        self._publish = publish
        self._clock = clock
        self._patience = patience
        self._wait = wait
        self._retry_pause = retry_pause
        self._ready = False

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            try:
                if not self._ready:
                    await self._make_consumer()
                message = await self._next()
                if message is not None:
                    await self._announce(message)
            except (BusUnavailable, nats.errors.Error, OSError, TimeoutError) as error:
                log.info("flow runs can not be announced, trying again: %r", error)
                await asyncio.sleep(self._retry_pause.total_seconds())

    async def _announce(self, message: Msg) -> None:
        stored = run_of_message(message)
        if stored is not None:
            try:
                await self._publish(flow_run_event(stored.run, stored.version, self._clock()))
            except InvalidInput as error:
                # trying again can not help, and the revisions behind it must not wait for ever
                log.error(
                    "flow run %s: its change to %s can not be announced: %s", stored.run.id, stored.run.state, error
                )
            except BusUnavailable:
                with contextlib.suppress(nats.errors.Error, OSError):
                    await message.nak(delay=self._retry_pause.total_seconds())
                raise
        await message.ack()

    async def _next(self) -> Msg | None:
        request = json.dumps({"batch": 1, "expires": int(self._wait.total_seconds() * 1e9)}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{_CONSUMER}"
        try:
            message = await self._js._nc.request(
                subject, request, timeout=self._wait.total_seconds() + 2, old_style=True
            )
        except nats.errors.NoRespondersError:
            self._ready = False
            raise
        if (message.headers or {}).get("Status") is None or message.reply:
            return message
        self._ready = (message.headers or {}).get("Status") != "409"
        return None

    async def _make_consumer(self) -> None:
        await self._js.add_consumer(
            _STREAM,
            api.ConsumerConfig(
                durable_name=_CONSUMER,
                deliver_policy=api.DeliverPolicy.ALL,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=self._patience.total_seconds(),
                max_deliver=-1,
                max_ack_pending=1,
            ),
        )
        self._ready = True
