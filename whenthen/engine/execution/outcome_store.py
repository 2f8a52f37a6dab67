"""Stores outcomes of actions and dead letters in `ENGINE`, and publishes their events.

Called by the execution loop, which acknowledges a task after `store` or `store_dead` returned and not before. Everything sent here
may be sent twice: an outcome replaces the last one of its subject, an event has an id made of the action's key.

What a crash leaves behind: `store` sends the event and then the outcome, in one write and without waiting in between. When
the server has neither, or the event alone, the task comes again, is performed under its key, and its event is
recognised by its id. When it has both, the task comes again and its outcome is found. The outcome can be there without the
event when `EVENTS` refused it (it is full, or has no leader) or nats-server died between the two; the event is then sent
until it is stored, and is lost only if this process dies before that, too.
A dead letter and its outcome are one atomic batch, stored before the event says that no attempt follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import nats.errors
import orjson

from whenthen.engine.bus.batches import publish_batch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery, encode_headers
from whenthen.engine.bus.records import Message, Outcome, OutcomeState
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import (
    dead_subject,
    event_subject,
    header_id,
    outcome_subject,
)
from whenthen.schemas.errors import ActionError, BusUnavailable, InvalidEvent
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask
from whenthen.schemas.times import format_time

__all__ = ["Outcomes"]

log = logging.getLogger(__name__)

ANSWER_S = 2.5  #: a leader that died does not answer; what was sent is then sent again
TRIES = 30  #: to store something, with a pause that doubles up to 2 seconds


class Outcomes:
    """Where the execution loop looks up and writes how actions stand."""

    def __init__(self, bus: Bus, *, ttl_s: int, dead_ttl_s: int, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._ttl_s = ttl_s
        self._dead_ttl_s = dead_ttl_s
        self._now = now
        self._ttl = encode_headers({"Nats-TTL": f"{ttl_s}s"}) if ttl_s else b""

    async def find(self, task: ActionTask) -> Outcome | None:
        """How the action stood after its last attempt; None before the first one.

        Raises:
            BusUnavailable: no answer.
        """
        subject = outcome_subject(task.firing.automation, task.firing.id, task.index)
        message = await self._bus.client.request(
            f"$JS.API.DIRECT.GET.{ENGINE}", orjson.dumps({"last_by_subj": subject})
        )
        if "Status" in message.headers or not message.data:
            return None
        return Outcome.decode(message.data)

    async def store(
        self,
        task: ActionTask,
        state: OutcomeState,
        *,
        result: Any = None,
        error: ActionError | None = None,
        next_at: datetime | None = None,
        event: Event | None = None,
    ) -> None:
        """Store how the action stands and tell `event`; tries until both are stored or the connection is gone.

        Raises:
            BusUnavailable: at least one is not known to be stored.
        """
        message = self._message(task, state, event, result=result, error=error, next_at=next_at)
        published, stored = await self._send_both(event, message) if event is not None else (True, False)
        if not stored:
            await _persist(lambda: publish_batch(self._bus.client, [message], expect=None))
        if not published and event is not None:
            await self._tell(event)

    async def store_dead(self, task: ActionTask, data: bytes, error: ActionError, *, event: Event | None) -> None:
        """Make a dead letter of a task, `data` as it lies in the stream, and tell `event`. Errors: see `store`."""
        letter = {
            "task": orjson.Fragment(data),
            "error": str(error),
            "reason": error.reason,
            "attempts": task.attempt,
            "at": self._ended(event),
        }
        subject = dead_subject(task.firing.automation, task.firing.id, task.index)
        dead = Message(subject, orjson.dumps(letter), self._dead_ttl_s)
        message = self._message(task, OutcomeState.DEAD, event, error=error)
        await _persist(lambda: publish_batch(self._bus.client, [dead, message], expect=None))
        if event is not None:
            await self._tell(event)

    async def _send_both(self, event: Event, message: Message) -> tuple[bool, bool]:
        """Send event and outcome in one turn of the loop; which of them the server has acknowledged."""
        client = self._bus.client
        waiting: list[asyncio.Future[Delivery]] = []
        try:
            head = encode_headers({"Nats-Msg-Id": header_id(event.id)})
            waiting.append(await client.start(event_subject(event.name), event.encode(), head, timeout_s=ANSWER_S))
            waiting.append(await client.start(message.subject, message.data, self._ttl, timeout_s=ANSWER_S))
            return await _stored(waiting[0]), await _stored(waiting[1])
        except (BusUnavailable, nats.errors.MaxPayloadError) as error:  # not sent; the patient way says why
            log.debug("not sent: %r", error)
            return False, False
        finally:
            for future in waiting:
                future.cancel()

    async def _tell(self, event: Event) -> None:
        try:
            await _persist(lambda: self._bus.publish(event))
        except InvalidEvent as error:  # the outcome is stored; the task must not come back for this
            log.error("the event %s of an action is not published: %s", event.name, error)

    def _message(
        self,
        task: ActionTask,
        state: OutcomeState,
        event: Event | None,
        *,
        result: Any = None,
        error: ActionError | None = None,
        next_at: datetime | None = None,
    ) -> Message:
        outcome = Outcome.of(
            task,
            state,
            attempt=task.attempt,
            at=self._ended(event),
            error=str(error) if error is not None else "",
            result=_plain(result),
            next_at=format_time(next_at) if next_at is not None else None,
            sent=getattr(result, "sent", None) if error is None else error.sent,
        )
        subject = outcome_subject(task.firing.automation, task.firing.id, task.index)
        return Message(subject, outcome.encode(), self._ttl_s)

    def _ended(self, event: Event | None) -> str:
        """When the try ended: outcome, dead letter and event say the same."""
        return format_time(event.occurred if event is not None else self._now())


async def _stored(answer: asyncio.Future[Delivery]) -> bool:
    try:
        data = (await answer).data
    except BusUnavailable:
        return False
    return bool(data) and "error" not in orjson.loads(data)


async def _persist(send: Callable[[], Awaitable[Any]]) -> None:
    """Send until it is acknowledged."""
    pause = 0.05
    for _ in range(TRIES):
        try:
            await send()
            return
        except BusUnavailable as error:
            log.info("not stored yet: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
    await send()


def _plain(result: Any) -> Any:
    """What of an action's result goes into its outcome: JSON values as they are, details of an `ActionResult`."""
    details = getattr(result, "details", result)
    try:
        orjson.dumps(details)
    except TypeError:
        return str(details)
    return details
