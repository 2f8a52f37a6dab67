"""Redis streams, queues of RabbitMQ and MQTT (extras `redis`, `rabbitmq`, `mqtt`).

FastStream's brokers connect to Redis and MQTT, log in, and are asked whether they are still there; what is read is read with the client
that they give, redis-py and zmqtt, and RabbitMQ with aio-pika alone. FastStream's subscribers take more time for a message than all that
becomes of it here, acknowledge one at a time, and try again for ever what they can not read. A message is acknowledged once its events
are stored. A broker that does not answer is left and connected to anew by whoever runs the edge, so that one thing alone decides when
that is tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from whenthen.cancellation import end_task, until_all_end, until_one_ends
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
START_S = 15.0
AT_ONCE = 100  #: messages that are read, and not acknowledged, at one time
POLL_MS = 1000  #: that Redis waits for the first entry
CLAIM_AFTER_S = 30.0  #: until a message of Redis whose reader died is another's
CLAIM_EVERY_S = 1.0
SESSION_S = 7 * 86400  #: that an MQTT broker keeps messages for while nobody reads


class BrokerEdge(ABC):
    """Connects, takes messages until the broker does not answer any more, and disconnects."""

    kind: str  #: in messages
    library: str  #: by which it is read
    extra: str  #: what installs that
    remedy: str  #: what to look at when it can not be read
    _ping: asyncio.Future[bool] | None = None

    @abstractmethod
    def connect(self) -> Any:
        """A broker of FastStream's, or what is like one, not connected yet: it has `connect`, `ping` and `stop`.

        Raises ImportError without its library.
        """

    @abstractmethod
    async def begin(self, client: Any) -> Any:
        """Make ready what is read, with the broker's own client."""

    @abstractmethod
    async def read(self, begun: Any, intake: MessageIntake) -> None:
        """Take messages until it is cancelled, or one can not be read or acknowledged."""

    @abstractmethod
    def message(self, found: Any) -> SourceMessage:
        """What the client gave."""

    async def ping(self, broker: Any, client: Any) -> bool:
        """Whether the broker answers; may raise why not."""
        return bool(await broker.ping(timeout=PING_S))

    async def check(self, client: Any) -> None:  # noqa: B027 - most need nothing
        """Raise what a ping does not tell, such as that what is read is gone."""

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: the broker can not be reached, or does not answer any more, or its library is not installed.
        """
        try:
            broker = self.connect()
        except ImportError:
            raise SourceTrouble(
                f"{self.kind} is read with {self.library}: pip install 'whenthen[{self.extra}]'"
            ) from None
        except WhenthenError:
            raise
        except Exception as error:  # such as an address that is none
            raise self._trouble(_text_of(error)) from error
        try:
            async with asyncio.timeout(START_S):
                client = await broker.connect()
                begun = await self.begin(client)
            await until_one_ends(self.read(begun, intake), self._watch(broker, client, intake))
        except SourceTrouble:
            raise
        except Exception as error:  # each client has errors of its own
            raise self._trouble(_text_of(error)) from error
        finally:
            await asyncio.shield(self._stop(broker))

    async def deliver(self, found: Any, intake: MessageIntake) -> None:
        """Return once what the client gave may be acknowledged."""
        try:
            message = self.message(found)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it would come again for ever
            await intake.give_up(SourceMessage(body=repr(found).encode("utf-8", "backslashreplace")), error)
        else:
            await intake.deliver(message)

    def _trouble(self, why: str) -> SourceTrouble:
        return SourceTrouble(f"{self.kind} can not be read: {one_line(why).rstrip('.')}; {self.remedy}")

    async def _watch(self, broker: Any, client: Any, intake: MessageIntake) -> None:
        """Raise when the broker does not answer any more."""
        while True:
            self._ping, before = asyncio.ensure_future(self.ping(broker, client)), intake.watch.messages
            await asyncio.wait({self._ping})
            # what gives messages is there: behind many of them an answer may take long
            if (self._ping.exception() or not self._ping.result()) and intake.watch.messages == before:
                raise self._ping.exception() or self._trouble("it does not answer any more")
            async with asyncio.timeout(START_S):
                await self.check(client)
            await asyncio.sleep(PING_EVERY_S)

    async def _stop(self, broker: Any) -> None:
        try:
            async with asyncio.timeout(START_S):
                await broker.stop()
        except Exception as error:  # noqa: BLE001 - each client has errors of its own, and the broker may be gone
            log.debug("%s was not left cleanly: %r", self.kind, error)
        if self._ping is not None:
            # only now: a client fails its pings as it disconnects, and one that nobody waits for is an error that asyncio logs
            self._ping.cancel()
            await asyncio.gather(self._ping, return_exceptions=True)


class _InOrder:
    """Delivers messages side by side, and has them acknowledged in the order in which they came: as many at one time as are there."""

    def __init__(
        self, deliver: Callable[[Any], Coroutine[Any, Any, None]], done: Callable[[Sequence[Any]], Awaitable[None]]
    ) -> None:
        self._deliver = deliver
        self._done = done
        self._under_way: asyncio.Queue[tuple[Any, asyncio.Task[None]]] = asyncio.Queue(AT_ONCE)

    async def take(self, found: Any) -> None:
        """Begin with a message; waits while there are many under way."""
        await self._under_way.put((found, asyncio.create_task(self._deliver(found))))

    async def acknowledge(self) -> None:
        while True:
            some = [await self._under_way.get()]
            while not self._under_way.empty():
                some.append(self._under_way.get_nowait())
            await asyncio.gather(*(delivering for _, delivering in some))
            await self._done([found for found, _ in some])

    async def __aenter__(self) -> _InOrder:
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_task(*(self._under_way.get_nowait()[1] for _ in range(self._under_way.qsize())))


class RedisEdge(BrokerEdge):
    kind = "Redis"
    library = "FastStream"
    extra = "redis"

    def __init__(self, reading: RedisReading, *, resolve_secret: Callable[[str], str], consumer: str) -> None:
        self.remedy = (
            f"check the address and login in `url`, and that its user may read the stream {reading.stream} in a group"
        )
        self._reading = reading
        self._resolve_secret = resolve_secret
        self._consumer = consumer

    def connect(self) -> Any:
        from faststream.redis import RedisBroker

        return RedisBroker(_secret(self._reading.url, self._resolve_secret), logger=log)

    async def begin(self, client: Any) -> Any:
        """Make the group, from the beginning of the stream where what is there is to be reported."""
        reading = self._reading
        groups = await client.xinfo_groups(reading.stream) if await client.exists(reading.stream) else []
        if reading.group.encode() not in {group["name"] for group in groups}:
            begin = "0" if reading.existing == "report" else "$"
            await client.xgroup_create(reading.stream, reading.group, id=begin, mkstream=True)
        return client

    async def read(self, begun: Any, intake: MessageIntake) -> None:
        intake.reads()
        await until_one_ends(self._read_new(begun, intake), self._read_left(begun, intake))

    async def _read_new(self, client: Any, intake: MessageIntake) -> None:
        reading = self._reading
        while True:
            found = await client.xreadgroup(
                reading.group, self._consumer, {reading.stream: ">"}, count=AT_ONCE, block=POLL_MS
            )
            for entries in dict(found).values():
                await self._take(client, entries, intake)

    async def _read_left(self, client: Any, intake: MessageIntake) -> None:
        """Read what readers left that died."""
        reading = self._reading
        start: bytes | str = "0-0"
        while True:
            start, entries, *_ = await client.xautoclaim(
                reading.stream,
                reading.group,
                self._consumer,
                min_idle_time=int(CLAIM_AFTER_S * 1000),
                start_id=start,
                count=AT_ONCE,
            )
            await self._take(client, entries, intake)
            if start in (b"0-0", "0-0"):
                await asyncio.sleep(CLAIM_EVERY_S)

    async def _take(self, client: Any, entries: Sequence[tuple[Any, Any]], intake: MessageIntake) -> None:
        there = [each for each in entries if each[1] is not None]  # an older server claims what was deleted, too
        if not there:
            return
        await until_all_end(self.deliver(each, intake) for each in there)
        await client.xack(self._reading.stream, self._reading.group, *(number for number, _ in there))

    def message(self, found: Any) -> SourceMessage:
        number, fields = found[0].decode(), found[1]
        stream = self._reading.stream
        body, headers = _entry(fields)
        return SourceMessage(
            body=body,
            headers=_texts(headers),
            delivery=f"{stream}/{number}",
            about={"stream": stream, "id": number},
        )


class RabbitConnection:
    """A connection of aio-pika. FastStream's broker makes one that connects again by itself, for ever, beside whoever runs the edge; also
    when it is stopped before it is there.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self._connection: Any = None

    async def connect(self) -> Any:
        self._connection = await self._client.connect(self._url)
        return self._connection

    async def ping(self, timeout: float) -> bool:
        return not self._connection.is_closed

    async def stop(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class RabbitEdge(BrokerEdge):
    kind = "RabbitMQ"
    library = "aio-pika"
    extra = "rabbitmq"

    def __init__(self, reading: RabbitReading, *, resolve_secret: Callable[[str], str]) -> None:
        self.remedy = f"check the address and login in `url`, and that the queue {reading.queue} is there and its user may read it"
        self._reading = reading
        self._resolve_secret = resolve_secret
        self._acknowledged = 0  #: the number of the last message

    def connect(self) -> Any:
        import aio_pika

        return RabbitConnection(aio_pika, _secret(self._reading.url, self._resolve_secret))

    async def begin(self, client: Any) -> Any:
        channel = await client.channel()
        await channel.set_qos(prefetch_count=AT_ONCE)
        self._acknowledged = 0  # each channel counts anew
        return client, await channel.get_queue(
            self._reading.queue
        )  # one that is not there is a mistake, not to be made

    async def read(self, begun: Any, intake: MessageIntake) -> None:
        connection, queue = begun
        closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def close(_closed: Any, error: BaseException | None) -> None:
            if not closed.done():
                closed.set_result("the connection was closed" if error is None else _text_of(error))

        async def acknowledge(taken: Sequence[Any]) -> None:
            last = taken[-1].delivery_tag
            if last == self._acknowledged + len(taken):  # all up to this one
                await taken[-1].ack(multiple=True)
            else:
                for each in taken:
                    await each.ack()
            self._acknowledged = max(last, self._acknowledged)

        async def until_closed() -> None:
            raise self._trouble(await closed)

        for each in (connection, queue.channel):
            each.close_callbacks.add(close)
        async with _InOrder(lambda found: self.deliver(found, intake), acknowledge) as messages:
            await queue.consume(messages.take)
            intake.reads()
            await until_one_ends(messages.acknowledge(), until_closed())

    async def check(self, client: Any) -> None:
        """Of a queue that is deleted its readers hear nothing."""
        channel = await client.channel()
        try:
            await channel.declare_queue(self._reading.queue, passive=True)
        finally:
            await channel.close()

    def message(self, found: Any) -> SourceMessage:
        headers = _texts(found.headers or {})
        if found.content_type:
            headers["content-type"] = found.content_type
        return SourceMessage(
            body=found.body,
            headers=headers,
            delivery=found.message_id or None,
            about={
                "queue": self._reading.queue,
                "exchange": found.exchange or "",
                "routing_key": found.routing_key or "",
            },
        )


class MqttEdge(BrokerEdge):
    kind = "MQTT"
    library = "FastStream"
    extra = "mqtt"

    def __init__(self, reading: MqttReading, name: str, *, resolve_secret: Callable[[str], str]) -> None:
        self.remedy = f"check `url`, `username` and `password`, and that the user may subscribe to {reading.topic}"
        self._reading = reading
        self._name = reader_name(name)
        self._resolve_secret = resolve_secret

    def connect(self) -> Any:
        import zmqtt
        from faststream.mqtt import MQTTBroker
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
        return MQTTBroker(
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
            logger=log,
        )

    async def begin(self, client: Any) -> Any:
        """Subscribe, with room for all that a session has, at most 65,535 messages that wait for an acknowledgement: the client takes none
        before its subscription is there, which comes behind them.

        It is not ended, as a session without one keeps no messages.
        """
        from zmqtt import QoS

        subscription = client.subscribe(
            self._reading.topic, qos=QoS(self._reading.qos), auto_ack=False, receive_buffer_size=0
        )
        await subscription.start()
        return subscription

    async def ping(self, broker: Any, client: Any) -> bool:
        """Asked of the client, which says why: FastStream's broker does not."""
        await client.ping(timeout=PING_S)
        return True

    async def read(self, begun: Any, intake: MessageIntake) -> None:
        intake.reads()

        async def acknowledge(taken: Sequence[Any]) -> None:
            for each in taken:
                await each.ack()

        async with _InOrder(lambda found: self.deliver(found, intake), acknowledge) as messages:

            async def take() -> None:
                async for found in begun:
                    await messages.take(found)

            await until_one_ends(take(), messages.acknowledge())

    def message(self, found: Any) -> SourceMessage:
        properties = found.properties
        return SourceMessage(
            body=bytes(found.payload),
            headers={} if properties is None else _texts(dict(properties.user_properties)),
            about={"topic": str(found.topic), "qos": int(found.qos)},
        )


def _entry(fields: Mapping[bytes, bytes]) -> tuple[bytes, Mapping[str, Any]]:
    """Body and headers of an entry of Redis: its fields as one object, or what FastStream has packed. Bytes that are no text are escapes."""
    from faststream.redis import BinaryMessageFormatV1

    packed = fields.get(b"__data__")
    if packed is not None:
        return BinaryMessageFormatV1.parse(packed)
    texts = {_escaped(name): _escaped(value) for name, value in fields.items()}
    return json.dumps(texts).encode(), {}


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
