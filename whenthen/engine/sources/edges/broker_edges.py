"""Redis streams, queues of RabbitMQ and MQTT, through FastStream's brokers (extras `redis`, `rabbitmq`, `mqtt`).

FastStream reads; a message is acknowledged here, once its events are stored. A broker that does not answer is left and connected to
anew by whoever runs the edge, so that one thing alone decides when that is tried again.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from whenthen.cancellation import end_task
from whenthen.engine.log_lines import one_line
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.base import REFERENCE
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.event_sources import MqttReading, RabbitReading, RedisReading, reader_name
from whenthen.sources.readings import SourceMessage

__all__ = ["MqttEdge", "RabbitEdge", "RedisEdge"]

log = logging.getLogger(__name__)

PING_EVERY_S = 2.0
PING_S = 3.0
KEEPALIVE_S = 60  #: of MQTT, besides these pings: what it asks itself is an error that asyncio logs when the connection ends meanwhile
WHY_S = 0.5  #: that a client may need to say why a ping has no answer
START_S = 15.0
AT_ONCE = 100  #: messages that are read, and not acknowledged, at one time
CLAIM_AFTER_S = 30.0  #: until a message of Redis whose reader died is another's
SESSION_S = 7 * 86400  #: that an MQTT broker keeps messages for while nobody reads


class Failures:
    """What goes wrong in what a client does by itself, of which it tells nobody who could end it."""

    def __init__(self) -> None:
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def note(self, why: str) -> None:
        if not self.first.done():
            self.first.set_result(why)

    def log(self, level: int, msg: Any, *_args: Any, exc_info: Any = None, **_options: Any) -> None:
        """In the place of FastStream's log: it tells there of what it would try again for ever."""
        if level >= logging.ERROR:
            error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
            self.note(_text_of(error) if error is not None else str(msg))

    def watch(self, broker: Any) -> None:
        """Look at the end of each task that a subscriber of FastStream's starts. FastStream itself starts one that failed again, at once
        and for ever, tells of an error that it has told of once an hour, and looks at none of a task that fails as it is stopped.
        """
        for subscriber in broker.subscribers:
            if hasattr(subscriber, "add_task"):
                subscriber.add_task = functools.partial(self._start, subscriber.tasks)

    def _start(
        self,
        tasks: list[asyncio.Task[Any]],
        work: Callable[..., Coroutine[Any, Any, Any]],
        args: Sequence[Any] | None = None,
        named: Mapping[str, Any] | None = None,
        **_options: Any,
    ) -> None:
        task = asyncio.create_task(work(*(args or ()), **(named or {})))
        task.add_done_callback(self._ended)
        tasks.append(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.note(_text_of(error))


class BrokerEdge(ABC):
    """Connects, takes messages until the broker does not answer any more, and disconnects."""

    kind: str  #: in messages
    extra: str  #: what installs its library
    remedy: str  #: what to look at when it can not be read

    @abstractmethod
    def connect(self, take: Callable[[Any], Any], failures: Failures) -> Any:
        """A broker of FastStream's with a subscriber that hands messages to `take`, and what goes wrong to `failures`.

        Raises ImportError without its library.
        """

    @abstractmethod
    def message(self, found: Any) -> SourceMessage:
        """What FastStream gave."""

    async def prepare(self, broker: Any) -> None:  # noqa: B027 - most need nothing
        """Make what the subscriber needs to be there."""

    async def check(self, broker: Any) -> None:  # noqa: B027 - most need nothing
        """Raise what a ping does not tell, such as that what is read is gone."""

    async def leave(self, broker: Any) -> None:  # noqa: B027 - most need nothing
        """Do what comes before the broker is stopped."""

    async def release(self, broker: Any) -> None:  # noqa: B027 - most need nothing
        """Let go of what is left once the broker was stopped, or did not let itself be stopped."""

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: the broker can not be reached, or does not answer any more, or its library is not installed.
        """

        async def take(found: Any) -> None:
            try:
                message = self.message(found)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it would come again for ever
                await intake.give_up(SourceMessage(body=repr(found).encode("utf-8", "backslashreplace")), error)
            else:
                await intake.deliver(message)
            await found.ack()

        failures = Failures()
        try:
            broker = self.connect(take, failures)
        except ImportError:
            raise SourceTrouble(f"{self.kind} is read with FastStream: pip install 'whenthen[{self.extra}]'") from None
        except WhenthenError:
            raise
        except Exception as error:  # such as an address that is none
            raise self._trouble(_text_of(error)) from error
        failures.watch(broker)
        pings: set[asyncio.Future[bool]] = set()
        reading = asyncio.ensure_future(self._read(broker, intake, failures, pings))
        try:
            either: list[asyncio.Future[Any]] = [reading, failures.first]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not failures.first.done() and reading.exception() is None:
                await asyncio.wait({failures.first}, timeout=WHY_S)
            if failures.first.done():
                raise self._trouble(failures.first.result())
            try:
                reading.result()
            except Exception as error:  # each client has errors of its own
                raise self._trouble(_text_of(error)) from error
            raise self._trouble("it does not answer any more")
        finally:
            await asyncio.shield(self._stop(broker, reading, pings))

    async def _read(
        self, broker: Any, intake: MessageIntake, failures: Failures, pings: set[asyncio.Future[bool]]
    ) -> None:
        """Connect, and return once the broker does not answer. What is asked of it meanwhile is among the `pings`."""
        async with asyncio.timeout(START_S):
            await self.prepare(broker)
            await broker.start()
        if not failures.first.done():
            intake.reads()
        while True:
            ping, before = asyncio.ensure_future(broker.ping(timeout=PING_S)), intake.watch.messages
            pings.add(ping)
            ping.add_done_callback(pings.discard)
            # what gives messages is there: behind many of them an answer may take long
            if not await asyncio.shield(ping) and intake.watch.messages == before:
                return
            async with asyncio.timeout(START_S):
                await self.check(broker)
            await asyncio.sleep(PING_EVERY_S)

    def _trouble(self, why: str) -> SourceTrouble:
        return SourceTrouble(f"{self.kind} can not be read: {one_line(why).rstrip('.')}; {self.remedy}")

    async def _stop(self, broker: Any, reading: asyncio.Future[None], pings: set[asyncio.Future[bool]]) -> None:
        await end_task(reading)
        await asyncio.gather(reading, return_exceptions=True)  # it may have failed besides
        for step in (lambda: self.leave(broker), broker.stop, lambda: self.release(broker)):
            try:
                async with asyncio.timeout(START_S):
                    await step()
            except Exception as error:  # noqa: BLE001 - each client has errors of its own, and the broker may be gone
                log.debug("%s was not left cleanly: %r", self.kind, error)
        # only now: a client fails its pings as it disconnects, and one that nobody waits for is an error that asyncio logs
        for ping in (left := list(pings)):
            ping.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class RedisEdge(BrokerEdge):
    kind = "Redis"
    extra = "redis"

    def __init__(self, reading: RedisReading, *, resolve_secret: Callable[[str], str], consumer: str) -> None:
        self.remedy = (
            f"check the address and login in `url`, and that its user may read the stream {reading.stream} in a group"
        )
        self._reading = reading
        self._resolve_secret = resolve_secret
        self._consumer = consumer

    def connect(self, take: Callable[[Any], Any], failures: Failures) -> Any:
        from faststream import AckPolicy
        from faststream.redis import RedisBroker, StreamSub

        reading = self._reading
        broker = RedisBroker(_secret(reading.url, self._resolve_secret), logger=failures, apply_types=False)
        group: dict[str, Any] = {"group": reading.group, "consumer": self._consumer, "last_id": ">"}
        new = StreamSub(reading.stream, polling_interval=1000, max_records=AT_ONCE, **group)
        left = StreamSub(reading.stream, polling_interval=1000, min_idle_time=int(CLAIM_AFTER_S * 1000), **group)
        for stream in (new, left):  # what comes, and what readers left that died
            broker.subscriber(
                stream=stream,
                parser=_any_entry,
                decoder=_as_it_is,
                ack_policy=AckPolicy.MANUAL,
                max_workers=AT_ONCE,
            )(take)
        return broker

    async def prepare(self, broker: Any) -> None:
        """Make the group, from the beginning of the stream where what is there is to be reported."""
        client, reading = await broker.connect(), self._reading
        groups = await client.xinfo_groups(reading.stream) if await client.exists(reading.stream) else []
        if reading.group.encode() not in {group["name"] for group in groups}:
            begin = "0" if reading.existing == "report" else "$"
            await client.xgroup_create(reading.stream, reading.group, id=begin, mkstream=True)

    def message(self, found: Any) -> SourceMessage:
        (number,) = found.raw_message["message_ids"]
        stream = self._reading.stream
        return SourceMessage(
            body=found.body,
            headers=_texts(found.headers),
            delivery=f"{stream}/{number.decode()}",
            about={"stream": stream, "id": number.decode()},
        )


class RabbitEdge(BrokerEdge):
    kind = "RabbitMQ"
    extra = "rabbitmq"

    def __init__(self, reading: RabbitReading, *, resolve_secret: Callable[[str], str]) -> None:
        self.remedy = f"check the address and login in `url`, and that the queue {reading.queue} is there and its user may read it"
        self._reading = reading
        self._resolve_secret = resolve_secret
        self._connection: Any = None

    def connect(self, take: Callable[[Any], Any], failures: Failures) -> Any:
        from aio_pika.robust_connection import RobustConnection
        from faststream import AckPolicy
        from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

        def make(*args: Any, **named: Any) -> Any:
            self._connection = RobustConnection(*args, **named)
            return self._connection

        def closed(_connection: Any, error: BaseException | None) -> None:
            failures.note("the connection was closed" if error is None else _text_of(error))

        broker = RabbitBroker(
            _secret(self._reading.url, self._resolve_secret),
            default_channel=Channel(prefetch_count=AT_ONCE),
            fail_fast=True,
            on_close=[closed],
            logger=failures,
            apply_types=False,
        )
        broker._connection_kwargs["connection_class"] = make
        queue = RabbitQueue(self._reading.queue, declare=False)  # one that is not there is a mistake, not to be made
        broker.subscriber(queue, decoder=_as_it_is, ack_policy=AckPolicy.MANUAL)(take)
        return broker

    async def check(self, broker: Any) -> None:
        """Of a queue that is deleted its readers hear nothing: FastStream has no ear for the server's cancellation."""
        channel = await (await broker.connect()).channel()
        try:
            await channel.declare_queue(self._reading.queue, passive=True, robust=False)
        finally:
            await channel.close()

    async def release(self, broker: Any) -> None:
        """Close a connection that FastStream has not closed, as it was not made in time or its server is silent: aio-pika would make it
        again, for ever, and go on to take messages.
        """
        if self._connection is not None:
            await self._connection.close()

    def message(self, found: Any) -> SourceMessage:
        raw = found.raw_message
        headers = _texts(raw.headers or {})
        if raw.content_type:
            headers["content-type"] = raw.content_type
        return SourceMessage(
            body=raw.body,
            headers=headers,
            delivery=raw.message_id or None,
            about={"queue": self._reading.queue, "exchange": raw.exchange or "", "routing_key": raw.routing_key or ""},
        )


class MqttEdge(BrokerEdge):
    kind = "MQTT"
    extra = "mqtt"

    def __init__(self, reading: MqttReading, name: str, *, resolve_secret: Callable[[str], str]) -> None:
        self.remedy = f"check `url`, `username` and `password`, and that the user may subscribe to {reading.topic}"
        self._reading = reading
        self._name = reader_name(name)
        self._resolve_secret = resolve_secret

    def connect(self, take: Callable[[Any], Any], failures: Failures) -> Any:
        import zmqtt
        from faststream import AckPolicy
        from faststream.mqtt import MQTTBroker, QoS
        from faststream.security import SASLPlaintext

        reading = self._reading
        url = _secret(reading.url, self._resolve_secret)
        security = None
        if reading.username is not None and reading.password is not None:
            security = SASLPlaintext(
                username=reading.username,
                password=self._resolve_secret(reading.password),
                use_ssl=url.startswith("mqtts://"),
            )
        broker = MQTTBroker(
            url,
            client_id=self._name,
            clean_session=False,
            session_expiry_interval=SESSION_S,
            # no receive_maximum: mosquitto gives a session that comes back more than that, and the client ends the connection then
            # of what a broker gives before the subscription is there; beyond a limit the client ends the connection, and each one after it
            session_replay_buffer_size=0,
            keepalive=KEEPALIVE_S,
            reconnect=zmqtt.ReconnectConfig(enabled=False),
            mqtt_connect_timeout=START_S,
            security=security,
            logger=failures,
            apply_types=False,
        )
        broker.subscriber(reading.topic, qos=QoS(reading.qos), decoder=_as_it_is, ack_policy=AckPolicy.MANUAL)(take)
        return broker

    async def prepare(self, broker: Any) -> None:
        """Make room for all that a session has, at most 65,535 messages that wait for an acknowledgement. FastStream has room for 1,000 and
        takes none before its subscription is there, which comes behind them: with more it would wait for ever.
        """
        client = await broker.connect()
        client.subscribe = functools.partial(client.subscribe, receive_buffer_size=0)

    async def leave(self, broker: Any) -> None:
        """Disconnect first: FastStream ends the subscription when it stops, and a session without one keeps no messages."""
        await broker.config.broker_config.client.disconnect()

    def message(self, found: Any) -> SourceMessage:
        raw = found.raw_message
        return SourceMessage(
            body=bytes(raw.payload), headers=_texts(found.headers), about={"topic": str(raw.topic), "qos": int(raw.qos)}
        )


async def _as_it_is(found: Any) -> Any:
    """In the place of FastStream's decoder: the message itself, which is decoded by its mapping."""
    return found


async def _any_entry(found: Any, parse: Callable[[Any], Any]) -> Any:
    """An entry as FastStream reads it; one that it can not read, as its fields are no text, with these written as escapes."""
    try:
        return await parse(found)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it would come again for ever
        texts = {_escaped(name): _escaped(value) for name, value in found["data"].items()}
        return await parse({**found, "data": {b"__data__": json.dumps(texts).encode()}})


def _escaped(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _text_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _secret(url: str, resolve: Callable[[str], str]) -> str:
    return resolve(url) if REFERENCE.fullmatch(url) else url


def _texts(headers: Any) -> dict[str, str]:
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in headers.items()
    }
