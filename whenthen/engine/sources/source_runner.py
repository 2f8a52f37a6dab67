"""The sources of the rules in force, each read for as long as it is among them.

Built by `engine.process`. A source that can not be read is tried again, after a time that grows; the others do not notice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import orjson

from whenthen.cancellation import end_task, wait_event
from whenthen.engine.bus.buckets import KvBucket
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.bus.streams import SOURCES
from whenthen.engine.evaluation import LeaseSettings, NatsLeaseStore
from whenthen.engine.metrics import Metrics
from whenthen.engine.sources.edges.broker_edges import MqttEdge, RabbitEdge, RedisEdge
from whenthen.engine.sources.edges.folder_edge import FolderEdge
from whenthen.engine.sources.edges.kafka_edge import KafkaEdge
from whenthen.engine.sources.edges.nats_edge import NatsEdge
from whenthen.engine.sources.edges.poll_edge import PollEdge
from whenthen.engine.sources.edges.postgres_edge import PostgresEdge
from whenthen.engine.sources.edges.sqs_edge import SqsEdge
from whenthen.engine.sources.message_intake import KeepAside, MessageIntake, SourceTrouble, SourceWatch
from whenthen.engine.sources.source_lease import SourceLease
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.event_sources import (
    FolderReading,
    KafkaReading,
    MqttReading,
    NatsReading,
    PostgresReading,
    RabbitReading,
    RedisReading,
    SqsReading,
)
from whenthen.schemas.events import Event
from whenthen.sources.readings import SourceTranslator

__all__ = ["SourceRunner"]

log = logging.getLogger(__name__)

AGAIN_S = (1.0, 30.0)  #: until a source that failed is read again; doubled up to the second
WELL_S = 60.0  #: a source that was read for so long is believed to be well
SHOW_EVERY_S = 1.0


class Edge(Protocol):
    """Reads one source. It raises what it can not go on for, and is cancelled to stop."""

    async def run(self, intake: MessageIntake) -> None: ...


class SourceRunner:
    """`sources` gives those of the rules in force; `replace` is called when they are others."""

    def __init__(
        self,
        bus: Bus,
        sources: Callable[[], Mapping[str, SourceTranslator]],
        *,
        publish: Callable[[Event], Awaitable[Ack]],
        resolve_secret: Callable[[str], str],
        metrics: Metrics,
        keep_aside: KeepAside,
        lease: LeaseSettings | None = None,
        host: str = "",
    ) -> None:
        self.watches: dict[str, SourceWatch] = {}
        self._bus = bus
        self._sources = sources
        self._publish = publish
        self._resolve_secret = resolve_secret
        self._metrics = metrics
        self._keep_aside = keep_aside
        self._lease = lease
        self._leases = NatsLeaseStore(bus, SOURCES)
        self._host = host or socket.gethostname()
        self._member = uuid.uuid4().hex
        self._tasks: dict[str, tuple[SourceTranslator, asyncio.Task[None]]] = {}
        self._replaced = asyncio.Event()

    def replace(self) -> None:
        """Look at the rules in force again."""
        self._replaced.set()

    async def run(self) -> None:
        """Read all sources until it is cancelled."""
        try:
            while True:
                self._replaced.clear()
                await self._follow(self._sources())
                while not await wait_event(self._replaced, SHOW_EVERY_S):
                    self._show()
        finally:
            await end_task(*(task for _, task in self._tasks.values()))
            self._tasks.clear()
            self._show()

    async def _follow(self, wanted: Mapping[str, SourceTranslator]) -> None:
        """Stop what left the rules or was changed, and start what came; a source that is the same goes on."""
        ended = [
            name
            for name, (translator, _) in self._tasks.items()
            if name not in wanted or not wanted[name].reads_as(translator)
        ]
        await end_task(*(self._tasks[name][1] for name in ended))
        for name in ended:
            del self._tasks[name]
            del self.watches[name]
        for name, translator in wanted.items():
            if name not in self._tasks and self._is_here(translator):
                self.watches[name] = watch = SourceWatch()
                task = asyncio.create_task(self._read(translator, watch), name=f"source {name}")
                self._tasks[name] = (translator, task)

    def _is_here(self, translator: SourceTranslator) -> bool:
        reading = translator.model.read
        return not isinstance(reading, FolderReading) or reading.host in (None, self._host)

    async def _read(self, translator: SourceTranslator, watch: SourceWatch) -> None:
        """Read one source, again whenever it fails."""
        intake = MessageIntake(
            translator, self._publish, metrics=self._metrics, keep_aside=self._keep_aside, watch=watch
        )
        loop = asyncio.get_running_loop()
        wait_s = AGAIN_S[0]
        while True:
            began = loop.time()
            try:
                await self._read_once(translator, intake)
            except WhenthenError as error:
                if watch.in_trouble(error) or not isinstance(error, SourceTrouble):
                    log.warning("source %s: %s", translator.name, error)
            except Exception as error:
                log.exception("source %s failed and is read again", translator.name)
                watch.in_trouble(error)
            wait_s = AGAIN_S[0] if loop.time() - began > WELL_S else min(wait_s * 2, AGAIN_S[1])
            await asyncio.sleep(wait_s)

    async def _read_once(self, translator: SourceTranslator, intake: MessageIntake) -> None:
        edge, shared = self._edge(translator)

        async def read() -> None:
            intake.watch.state = "starting"
            await edge.run(intake)

        if shared:
            await read()
            return
        if intake.watch.state != "trouble":
            intake.watch.state = "elsewhere"
        lease = SourceLease(self._leases, f"lease.{_key(translator.name)}", member=self._member, settings=self._lease)
        await lease.hold(read)

    def _edge(self, translator: SourceTranslator) -> tuple[Edge, bool]:
        """What reads a source, and whether every process may at the same time."""
        reading = translator.model.read
        if isinstance(reading, FolderReading):
            state = self._state(translator.name, reading.type, reading.host or "", reading.path)
            return FolderEdge(reading, state, host=self._host), False
        if isinstance(reading, NatsReading):
            return NatsEdge(reading, translator.name, resolve_secret=self._resolve_secret), True
        if isinstance(reading, RedisReading):
            return RedisEdge(reading, resolve_secret=self._resolve_secret, consumer=self._host), True
        if isinstance(reading, RabbitReading):
            return RabbitEdge(reading, resolve_secret=self._resolve_secret), True
        if isinstance(reading, KafkaReading):
            return KafkaEdge(reading, translator.name, resolve_secret=self._resolve_secret), True
        if isinstance(reading, SqsReading):
            return SqsEdge(reading, resolve_secret=self._resolve_secret), True
        if isinstance(reading, MqttReading):
            return MqttEdge(reading, translator.name, resolve_secret=self._resolve_secret), False
        if isinstance(reading, PostgresReading):
            return PostgresEdge(reading, resolve_secret=self._resolve_secret), False
        state = self._state(translator.name, reading.type, reading.url)
        meaning = _key(orjson.dumps(translator.model.model_dump(mode="json")).decode())
        return PollEdge(reading, state, resolve_secret=self._resolve_secret, meaning=meaning), False

    def _state(self, *names: str) -> SourceState:
        """What is remembered of a source; another folder or address of the same source is another memory."""
        return SourceState(KvBucket(self._bus.client, SOURCES), _key(*names))

    def _show(self) -> None:
        for name, watch in self.watches.items():
            self._metrics.show_source(
                name, reading=name in self._tasks and watch.state == "reading", heard_at=watch.heard_at
            )


def _key(*names: str) -> str:
    """A legal token of a bucket's key for any names."""
    text = "\x00".join(names).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=12).hexdigest()
