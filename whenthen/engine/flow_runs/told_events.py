"""Events that runs told their workers: put into the work queue `TOLD_EVENTS` by workers, and published from there as events of the engine.

Workers are given no right to publish events: whoever reads the queue checks what is in it, and takes lineage and trace from the run's own
record. A message is removed when its event is stored; after a crash between the two the event is published again with the same id.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from whenthen.engine.bus.buckets import publish_with
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import told_event_subject
from whenthen.engine.flow_runs.flow_streams import TOLD_EVENTS
from whenthen.engine.flow_runs.pulled_message import MessageHandler, PulledMessage
from whenthen.runs import Stores
from whenthen.runs.reports import reported_events
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.events import Event

__all__ = ["NatsToldEvents", "ToldEventPublisher"]

log = logging.getLogger(__name__)

_CONSUMER: Final = "publisher"  #: kept by servers
_AT_ONCE: Final = 100  #: messages that are delivered and not answered
_KNOWN_RUNS: Final = 1000  #: whose records are remembered; what is needed of them never changes
_ACK_WAIT: Final = timedelta(seconds=15)


class NatsToldEvents:
    """See `runs.stores.ToldEvents`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client

    async def put(self, run_id: str, told: dict[str, Any], *, id: str) -> None:
        data = orjson.dumps({"run": run_id, **told})
        await publish_with(self._client, told_event_subject(run_id), data, {"Nats-Msg-Id": orjson.dumps(id).decode()})


class ToldEventPublisher:
    """Publishes what is in the queue. `publish` returns once JetStream has the event."""

    def __init__(
        self,
        client: RequestClient,
        stores: Stores,
        publish: Callable[[Event], Awaitable[object]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_pause: timedelta = timedelta(seconds=0.5),
        count_set_aside: Callable[[], None] = lambda: None,
    ) -> None:
        """`count_set_aside` is called for each message that is no event."""
        self._stores = stores
        self._publish = publish
        self._clock = clock
        self._count_set_aside = count_set_aside
        self._runs: OrderedDict[str, FlowRun] = OrderedDict()
        self._messages = MessageHandler(
            client,
            self._publish_one,
            stream=TOLD_EVENTS,
            durable=_CONSUMER,
            most_pending=_AT_ONCE,
            ack_wait=_ACK_WAIT,
            retry_pause=retry_pause,
            what="an event that a run told",
        )

    async def run(self) -> None:
        """Publish until cancelled. Raises whatever ended the reading unexpectedly."""
        await self._messages.run()

    async def _publish_one(self, message: PulledMessage) -> None:
        """Publish the event of a message. What can not become one is set aside: it would not the next time either."""
        try:
            told = orjson.loads(message.data)
            run = await self._run(str(told["run"]))
            if run is None:
                raise InvalidInput(f"there is no flow run {str(told['run'])[:80]!r}")
            await self._publish(reported_events.event_of_told(told, run, self._clock()))
        except BusUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - any other error comes again with the same message
            log.error("message %d of the told events is no event: %r", message.position.seq, error)
            self._count_set_aside()

    async def _run(self, run_id: str) -> FlowRun | None:
        known = self._runs.get(run_id)
        if known is None:
            stored = await self._stores.runs.get(run_id)
            if stored is None:
                return None
            known = self._runs[run_id] = stored.run
            if len(self._runs) > _KNOWN_RUNS:
                self._runs.popitem(last=False)
        return known
