"""Subjects of NATS and streams of JetStream that are the user's. The server shares the work: every process takes part.

A stream is read through a durable consumer, `whenthen-<source>`, and a message is acknowledged once its events are stored. A subject
alone is read in a queue group of that name, and has no acknowledgement at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from whenthen.cancellation import end_task
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.base import REFERENCE
from whenthen.schemas.event_sources import NatsReading, reader_name
from whenthen.sources.readings import SourceMessage

__all__ = ["NatsEdge"]

BATCH = 100  #: messages that are read, and not acknowledged, at one time
FETCH_S = 5.0  #: that a fetch waits for the first message
ACK_WAIT_S = 30.0  #: until the server sends a message again whose reader says nothing
SIGN_OF_LIFE_S = 10.0  #: how often it is told that messages are still worked on
CONNECT_S = 5.0
#: what the subjects of the engine's streams and of its questions begin with
_OURS = frozenset(
    {
        "events", "ticks", "skips", "rules", "pauses", "format", "engine", "rulesets", "decisions", "audit", "senders", "runs",
        "logs", "task-runs", "told-events", "artifacts", "history",
    }
)  # fmt: skip
_OUR_BUCKETS = "WT_"
_WILD = frozenset({"*", ">"})


class NatsEdge:
    def __init__(self, reading: NatsReading, name: str, *, resolve_secret: Callable[[str], str]) -> None:
        self._reading = reading
        self._group = reader_name(name)
        self._resolve_secret = resolve_secret

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: the server, or the stream, can not be read.
        """
        reading = self._reading
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        failed: list[
            Exception
        ] = []  #: what the client met last; while it connects it says no more than that there is no server

        async def on_error(error: Exception) -> None:
            failed[:] = [error]
            if "permissions violation" in repr(error).lower() and not lost.done():
                lost.set_result(
                    f"the server refuses it: {error}; let the user read {reading.stream or reading.subject}"
                )

        async def on_lost() -> None:
            if not lost.done():
                lost.set_result("the connection was lost")

        url = self._resolve_secret(reading.url) if REFERENCE.fullmatch(reading.url) else reading.url
        try:
            client = await nats.connect(
                url,
                name=self._group,
                connect_timeout=CONNECT_S,
                # whoever runs this connects again, and looks at the stream again
                allow_reconnect=False,
                max_reconnect_attempts=1,  # which counts for the first connection, too
                reconnect_time_wait=0,
                ping_interval=5,
                error_cb=on_error,
                disconnected_cb=on_lost,
                user_credentials=reading.credentials,
            )
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            why = failed[0] if failed else error
            raise SourceTrouble(
                f"NATS can not be read: {str(why) or type(why).__name__}; check the address and login in `url` and `credentials`, and "
                "that a server runs there"
            ) from None
        read = asyncio.ensure_future(self._read(client, intake))
        try:
            waited: set[asyncio.Future[Any]] = {read, lost}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if read.done():
                read.result()
            raise SourceTrouble(f"nats: {lost.result()}")
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise SourceTrouble(f"nats: {error or type(error).__name__}") from error
        finally:
            await end_task(read, lost)
            await client.close()

    async def _read(self, client: Client, intake: MessageIntake) -> None:
        js = client.jetstream(timeout=CONNECT_S)
        await self._refuse_ours(js)
        if self._reading.stream is None:
            subscription = await client.subscribe(self._reading.subject, queue=self._group)
            await client.flush()
            intake.reads()
            async for message in subscription.messages:
                await intake.deliver(_of(message, message.headers.get("Nats-Msg-Id") if message.headers else None))
            raise SourceTrouble("nats: the subscription has ended")
        pull = await self._consumer(js)
        intake.reads()
        while True:
            try:
                messages = await pull.fetch(BATCH, timeout=FETCH_S)
            except (TimeoutError, nats.errors.TimeoutError):
                await js.consumer_info(self._reading.stream, self._group)  # that it is still there
                continue
            alive = asyncio.create_task(_say_alive(messages))
            try:
                await asyncio.gather(*(self._take(message, intake) for message in messages))
            finally:
                await end_task(alive)

    async def _take(self, message: Msg, intake: MessageIntake) -> None:
        await intake.deliver(_of(message, f"{message.metadata.stream}/{message.metadata.sequence.stream}"))
        await message.ack()

    async def _consumer(self, js: JetStreamContext) -> JetStreamContext.PullSubscription:
        reading = self._reading
        assert reading.stream is not None
        new = reading.existing == "skip"
        config = api.ConsumerConfig(
            durable_name=self._group,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            deliver_policy=api.DeliverPolicy.NEW if new else api.DeliverPolicy.ALL,
            filter_subject=reading.subject,
            max_ack_pending=10 * BATCH,
        )
        try:
            found = await js.consumer_info(reading.stream, self._group)
        except nats.js.errors.NotFoundError:
            found = None
        try:
            if found is None:
                await js.add_consumer(reading.stream, config)
            elif found.config.filter_subject != reading.subject:
                found.config.filter_subject = reading.subject
                await js.add_consumer(reading.stream, found.config)
        except nats.js.errors.APIError as error:
            raise SourceTrouble(
                f"nats: stream {reading.stream}: {error.description}; is it there, and may this user read it?"
            ) from None
        return await js.pull_subscribe_bind(self._group, reading.stream)

    async def _refuse_ours(self, js: JetStreamContext) -> None:
        """What is read from where the engine keeps its own would come again for ever, or be taken from it."""
        reading = self._reading
        read = [reading.subject] if reading.stream is None else await _subjects(js, reading.stream)
        # who reads other subjects may not be allowed to look at any other stream
        if not any(map(_is_ours, read)):
            return
        ours = await _subjects(js, "EVENTS")
        if "ticks.*" in ours and "skips.*" in ours:
            what = reading.stream or reading.subject
            raise SourceTrouble(
                f"nats: {what} is the engine's own, or has what is; read other subjects, or write an automation for its events"
            )


async def _subjects(js: JetStreamContext, stream: str) -> list[str]:
    """What is stored in a stream, also of the streams that it copies. Empty for one that is not there or may not be looked at."""
    try:
        config = (await js.stream_info(stream)).config
        found = list(config.subjects or [])
        for copied in filter(None, (config.mirror, *(config.sources or ()))):
            found += (await js.stream_info(copied.name)).config.subjects or []
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
        return []
    return found


def _is_ours(subject: str) -> bool:
    first, _, rest = subject.partition(".")
    if first == "$KV":
        bucket = rest.partition(".")[0]
        return bucket in _WILD or bucket.startswith(_OUR_BUCKETS)
    return first in _WILD or first in _OURS


def _of(message: Msg, delivery: str | None) -> SourceMessage:
    return SourceMessage(
        body=message.data,
        headers=dict(message.headers or {}),
        delivery=delivery,
        about={"subject": message.subject},
    )


async def _say_alive(messages: list[Msg]) -> None:
    """Tell the server that messages are worked on for as long as the bus takes none, and it is there."""
    with suppress(nats.errors.Error):  # whoever reads hears of it
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_S)
            for message in messages:
                if not message.is_acked:
                    await message.in_progress()
