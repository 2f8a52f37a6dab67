"""Publishes one event for each revision of each flow run, in order, none lost.

Reads the stream under the bucket `WT_runs` with a durable consumer and acknowledges a revision after its event was published. After a
crash between the two the event is published again with the same id. At most one revision is unacknowledged (`max_ack_pending`), so several publishers
keep the order, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import RUN_STATES
from whenthen.engine.flow_runs.pulled_message import PulledMessage
from whenthen.engine.flow_runs.run_store import run_of_message
from whenthen.runs import Stored, flow_run_event
from whenthen.schemas.deployments import TERMINAL, FlowRun
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event

__all__ = ["RunEventPublisher"]

log = logging.getLogger(__name__)

_STREAM = f"KV_{RUN_STATES}"
_CONSUMER = "announcer"  #: kept by servers: another name would publish everything again
_LEFT_OUT = "(parameters, result and related resources are left out: they can not be part of an event)"


class RunEventPublisher:
    """Publishes the state changes of flow runs. `publish` returns once JetStream has the event."""

    def __init__(
        self,
        client: RequestClient,
        publish: Callable[[Event], Awaitable[object]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ack_wait: timedelta = timedelta(seconds=15),
        retry_pause: timedelta = timedelta(seconds=0.5),
        count_set_aside: Callable[[], None] = lambda: None,
        ended: Callable[[FlowRun], None] = lambda run: None,
    ) -> None:
        """`count_set_aside` is called for each revision whose event is published without its data, or not at all; `ended` for each that ends
        its run."""
        self._client = client
        self._publish = publish
        self._clock = clock
        self._retry_pause = retry_pause
        self._count_set_aside = count_set_aside
        self._ended = ended
        self._waiting: deque[PulledMessage] = deque()
        self._changed = asyncio.Event()
        config = {
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait.total_seconds() * 1e9),
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": 1,
        }
        self._settings = ConsumerSettings(stream=_STREAM, durable=_CONSUMER, config=config)

    async def run(self) -> None:
        """Publish until cancelled. Raises whatever ended the reading of revisions unexpectedly."""
        self._waiting.clear()
        consumer = PullConsumer(
            self._client,
            self._settings,
            self._deliver,
            demand=lambda asked: 0 if asked else 1,
            changed=self._changed.set,
        )
        consumer.start()
        try:
            while True:
                consumer.check()
                self._changed.clear()
                while self._waiting:
                    await self._handle(self._waiting.popleft())
                await self._changed.wait()
        finally:
            await consumer.stop()

    def _deliver(self, position: Position, reply: bytes, subject: bytes, head: bytes, data: bytes) -> None:
        self._waiting.append(PulledMessage(self._client, position, reply, data))
        self._changed.set()

    async def _handle(self, message: PulledMessage) -> None:
        """Publish and acknowledge; what fails is delivered again."""
        try:
            await self._publish_event(message)
            await message.ack()
        except BusUnavailable as error:
            log.info("an event of a flow run is not published yet, trying again: %s", error)
            with contextlib.suppress(BusUnavailable):
                message.nak(self._retry_pause)
            await asyncio.sleep(self._retry_pause.total_seconds())

    async def _publish_event(self, message: PulledMessage) -> None:
        """Publish the event of a revision. What can not become an event is set aside: the revisions behind it wait."""
        try:
            stored = run_of_message(message.data, message.position.seq)
        except Exception as error:  # noqa: BLE001 - a record that this version can not read fails at any place
            self._set_aside(f"revision {message.position.seq} of the flow runs can not be read", error)
            return
        if stored is None:
            return
        await self._publish_change(stored)
        if stored.run.state in TERMINAL:
            self._ended(stored.run)

    async def _publish_change(self, stored: Stored) -> None:
        run = stored.run
        try:
            await self._publish(flow_run_event(run, stored.version, self._clock()))
            return
        except BusUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - any other error comes again with the same record
            self._set_aside(f"flow run {run.id}: its change to {run.state} is published without its data", error)
        bare = replace(run, parameters={}, result=None, related=(), message=f"{run.message[:200]} {_LEFT_OUT}".lstrip())
        try:
            await self._publish(flow_run_event(bare, stored.version, self._clock()))
        except BusUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._set_aside(f"flow run {run.id}: its change to {run.state} can not be published", error)

    def _set_aside(self, what: str, error: Exception) -> None:
        log.error("%s: %s: %s", what, type(error).__name__, str(error)[:500])
        self._count_set_aside()
