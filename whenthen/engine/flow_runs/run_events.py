"""Publishes one event for each revision of each flow run, in order, none lost.

Reads the stream under the bucket `WT_runs` with a durable consumer and acknowledges a revision after its event was published. After a
crash between the two the event is published again with the same id. At most one revision is unacknowledged (`max_ack_pending`), so several publishers
keep the order, too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import RUN_STATES
from whenthen.engine.flow_runs.pulled_message import MessageHandler, PulledMessage
from whenthen.engine.flow_runs.run_store import run_of_message
from whenthen.runs import Stored
from whenthen.runs.run_states import flow_run_event
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
        self._publish = publish
        self._clock = clock
        self._count_set_aside = count_set_aside
        self._ended = ended
        self._messages = MessageHandler(
            client,
            self._publish_event,
            stream=_STREAM,
            durable=_CONSUMER,
            most_pending=1,
            ack_wait=ack_wait,
            retry_pause=retry_pause,
            what="an event of a flow run",
        )

    async def run(self) -> None:
        """Publish until cancelled. Raises whatever ended the reading unexpectedly."""
        await self._messages.run()

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
