"""Topics of Kafka, read in a consumer group with aiokafka (extra `kafka`). The group shares the partitions over the processes.

An offset is committed once the events of all messages before it are stored. aiokafka is used itself: FastStream's subscriber passes over
a message whose headers are no UTF-8 before anybody has seen it, and keeps the group's errors to itself.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whenthen.cancellation import end_task, until_all_end, until_one_ends
from whenthen.engine.log_lines import one_line
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.actions import Tls
from whenthen.schemas.event_sources import KafkaReading
from whenthen.sources.readings import SourceMessage

__all__ = ["KafkaEdge"]

log = logging.getLogger(__name__)

AT_ONCE = 200  #: messages that are read, and not committed, at one time
POLL_MS = 1000  #: that a fetch waits for the first message
LOOK_EVERY_S = 10.0  #: that the brokers and the topic are still there
START_S = 20.0
PROBE_S = 3.0
REQUEST_MS = 10_000
#: of which aiokafka makes a KeyError or a ValueError, when the server says it in the words of SCRAM or has another password itself
_REFUSED = "the login is refused; check `username`, `password` and `mechanism`"
MECHANISMS = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}


class KafkaEdge:
    def __init__(self, reading: KafkaReading, name: str, *, resolve_secret: Callable[[str], str]) -> None:
        self._reading = reading
        self._name = name
        self._resolve_secret = resolve_secret

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: no broker can be reached, the topic can not be read, or aiokafka is not installed.
        """
        try:
            from aiokafka import AIOKafkaConsumer
            from aiokafka.errors import KafkaError
        except ImportError:
            raise SourceTrouble("Kafka is read with aiokafka: pip install 'whenthen[kafka]'") from None
        reading = self._reading
        context = self._tls(reading.tls)

        def make() -> Any:
            return AIOKafkaConsumer(
                bootstrap_servers=reading.servers,
                client_id=f"whenthen-{self._name}",
                group_id=reading.group,
                enable_auto_commit=False,
                isolation_level="read_committed",  # what a producer took back has not happened
                auto_offset_reset="earliest",  # where a partition has no offset, it was made after the first look
                request_timeout_ms=REQUEST_MS,
                **self._security(context),
            )

        consumer = make()
        try:
            try:
                async with asyncio.timeout(START_S):
                    await consumer.start()
                    await self._check_topic(consumer)
                if reading.existing == "skip":
                    await self._skip_existing(make())
            except (KafkaError, OSError, TimeoutError) as error:
                raise SourceTrouble(f"Kafka can not be read: {await self._explain(error, context)}") from error
            except (KeyError, ValueError) as error:
                if reading.username is None:
                    raise
                raise SourceTrouble(f"Kafka can not be read: {_REFUSED}") from error
            consumer.subscribe([reading.topic])
            intake.reads()
            await self._read_while_there(consumer, intake)
        except (KafkaError, TimeoutError) as error:
            raise SourceTrouble(f"Kafka can not be read: {await self._probe(context) or _text(error)}") from error
        finally:
            await asyncio.shield(_stop(consumer))

    async def _read_while_there(self, consumer: Any, intake: MessageIntake) -> None:
        """Read, and look beside it: with its brokers gone aiokafka waits for ever, for messages as well as for a commit."""
        await until_one_ends(self._read(consumer, intake), self._look(consumer))

    async def _look(self, consumer: Any) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            async with asyncio.timeout(START_S):
                await self._check_topic(consumer)

    async def _read(self, consumer: Any, intake: MessageIntake) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)
            if not found:
                continue
            await until_all_end(intake.deliver(_message(each)) for part in found.values() for each in part)
            await self._commit(consumer, {part: records[-1].offset + 1 for part, records in found.items()})

    async def _commit(self, consumer: Any, offsets: dict[Any, int]) -> None:
        from aiokafka.errors import CommitFailedError, IllegalStateError

        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # the group has given the partition to another process, which reads the messages again; their events are known
            log.info("source %s: offsets are not committed, as the group was divided anew: %s", self._name, error)

    async def _check_topic(self, consumer: Any) -> None:
        """Look for the topic in the list of all: to ask for it by its name would have some brokers make it."""
        topic = self._reading.topic
        if topic not in await consumer.topics():
            raise SourceTrouble(
                f"Kafka: there is no topic {topic}, or this user may not see it; make it, or correct `topic`"
            )

    async def _skip_existing(self, consumer: Any) -> None:
        """Begin the group at the end of the topic, where it has not begun. It is written down at once: a message that comes before the
        first one is committed must not be skipped by the next process.

        The consumer does nothing else: one that is given partitions and subscribes while it looks for the group's coordinator fails.
        """
        try:
            async with asyncio.timeout(START_S):
                await consumer.start()
                await self._begin_at_end(consumer)
        finally:
            await asyncio.shield(_stop(consumer))

    async def _begin_at_end(self, consumer: Any) -> None:
        from aiokafka import TopicPartition
        from aiokafka.errors import KafkaError

        topic = self._reading.topic
        first = TopicPartition(topic, 0)
        consumer.assign([first])
        await consumer.end_offsets([first])  # learns of all partitions
        parts = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or {0})]
        consumer.assign(parts)
        for part in parts:
            if await consumer.committed(part) is not None:
                return
        ends = await consumer.end_offsets(parts)
        try:
            await consumer.commit(ends)
        except KafkaError as error:
            log.info("source %s: another process has begun the group: %s", self._name, error)

    def _security(self, context: ssl.SSLContext | None) -> dict[str, Any]:
        reading = self._reading
        found: dict[str, Any] = {"ssl_context": context}
        if reading.username is not None and reading.password is not None:
            found |= {
                "sasl_mechanism": MECHANISMS[reading.mechanism],
                "sasl_plain_username": reading.username,
                "sasl_plain_password": self._resolve_secret(reading.password).rstrip("\r\n"),
            }
        names = {(False, False): "PLAINTEXT", (False, True): "SSL", (True, False): "SASL_PLAINTEXT"}
        found["security_protocol"] = names.get((reading.username is not None, context is not None), "SASL_SSL")
        return found

    def _tls(self, tls: bool | Tls) -> ssl.SSLContext | None:
        """The context; None for connections in the clear."""
        if tls is False:
            return None
        try:
            if tls is True:
                return ssl.create_default_context()
            context = ssl.create_default_context(cadata=None if tls.ca is None else self._resolve_secret(tls.ca))
            if tls.certificate is not None:
                key = "" if tls.key is None else self._resolve_secret(tls.key)
                # OpenSSL reads certificates and keys from files alone
                with tempfile.TemporaryDirectory(prefix="whenthen-") as folder:
                    path = Path(folder) / "client.pem"
                    path.touch(mode=0o600)
                    path.write_text(f"{self._resolve_secret(tls.certificate)}\n{key}", encoding="utf-8")
                    context.load_cert_chain(path, password="")  # a passphrase would be asked for at the terminal
            return context
        except (ssl.SSLError, ValueError) as error:
            raise SourceTrouble(
                f"Kafka: `tls` is not usable: {_text(error)}; authorities, certificate and key are PEM, the key without a passphrase"
            ) from None

    async def _explain(self, error: BaseException, context: ssl.SSLContext | None) -> str:
        """What is wrong at the start."""
        from aiokafka.errors import KafkaConnectionError

        if not isinstance(error, (KafkaConnectionError, OSError, TimeoutError)):
            return _text(error)
        found = await self._probe(context)
        return found or f"{_text(error)}; is `tls`, or a `username`, to be given or left out?"

    async def _probe(self, context: ssl.SSLContext | None) -> str:
        """Why the first server lets nobody in; empty when it does. aiokafka does not say why it can not connect."""
        from aiokafka.conn import create_conn
        from aiokafka.errors import KafkaError

        server = self._reading.servers[0]
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(PROBE_S):
                connection = await create_conn(host.strip("[]"), int(port), **self._security(context))
            connection.close()
        except TimeoutError:
            return f"no answer from {server}, as it may be where it wants `tls`"
        except (KafkaError, OSError) as found:
            return f"{server}: {_text(found)}"
        except (KeyError, ValueError):
            return f"{server}: {_REFUSED}"
        return ""


def _message(record: Any) -> SourceMessage:
    """A record; one without a value, by which a key is deleted in a compacted topic, has the body `null`. What CloudEvents call `ce-type`
    over HTTP is `ce_type` in Kafka.
    """
    headers = {
        f"ce-{name[3:]}" if name.startswith("ce_") else name: (value or b"").decode("utf-8", "replace")
        for name, value in record.headers
    }
    return SourceMessage(
        body=b"null" if record.value is None else record.value,
        headers=headers,
        delivery=f"{record.topic}/{record.partition}/{record.offset}",
        about={
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        },
    )


async def _stop(consumer: Any) -> None:
    """aiokafka's `stop` ends with the first thing that can not be closed, as the group while its broker is silent, or with the cancellation
    of a fetch that is under way, and leaves all that comes after it: connections, and tasks that go on for ever.
    """
    for close in (consumer.stop, consumer._client.close):
        task = asyncio.ensure_future(close())
        await asyncio.wait({task}, timeout=START_S)
        await end_task(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # the brokers may be gone
            log.debug("Kafka was not left cleanly: %r", error)
    parts = filter(None, (consumer._coordinator, consumer._fetcher, consumer._client))
    left = [each for part in parts for each in vars(part).values() if isinstance(each, asyncio.Task)]
    left += () if consumer._fetcher is None else consumer._fetcher._pending_tasks
    await end_task(*left)
    await asyncio.gather(*left, return_exceptions=True)


def _text(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__)
