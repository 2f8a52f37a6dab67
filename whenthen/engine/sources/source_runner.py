"""The sources of the rules in force, each read for as long as it is among them.

Built by `engine.process`. A source that can not be read is tried again, after a time that grows; the others do not notice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
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
from whenthen.engine.sources.forgotten_states import LOOK_EVERY_S, forget_states
from whenthen.engine.sources.message_intake import WELL_S, KeepAside, MessageIntake, SourceWatch
from whenthen.engine.sources.source_lease import SourceLease
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.errors import BusUnavailable, WhenthenError
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
SHOW_EVERY_S = 1.0
REPORT_EVERY_S = 5.0  #: and at once when the state of a source changed
BALANCE_EVERY_S = 10.0
LEAVE_S = 2.0  #: that a process that stops waits for its report to be taken away


class Edge(Protocol):
    """Reads one source. It raises what it can not go on for, and is cancelled to stop."""

    async def run(self, intake: MessageIntake) -> None: ...


class Reports(Protocol):
    """Where processes tell each other how their sources do. Each may raise BusUnavailable."""

    async def store(self, watches: Mapping[str, SourceWatch]) -> None: ...
    async def leave(self) -> None: ...
    async def others(self) -> Sequence[Mapping[str, str]]:
        """The state of each source in each other process that lives."""


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
        reports: Reports,
        member: str,
        host: str,
        lease: LeaseSettings | None = None,
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
        self._reports = reports
        self._host = host
        self._member = member
        self._tasks: dict[str, tuple[SourceTranslator, asyncio.Task[None]]] = {}
        self._held: dict[str, SourceLease] = {}  #: by source, those that one process reads
        self._replaced = asyncio.Event()

    def replace(self) -> None:
        """Look at the rules in force again."""
        self._replaced.set()

    async def run(self) -> None:
        """Read all sources until it is cancelled."""
        telling = asyncio.create_task(self._tell(), name="reports of sources")
        try:
            while True:
                self._replaced.clear()
                await self._follow(self._sources())
                while not await wait_event(self._replaced, SHOW_EVERY_S):
                    self._show()
        finally:
            await end_task(telling, *(task for _, task in self._tasks.values()))
            self._tasks.clear()
            self._show()
            with suppress(BusUnavailable, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._reports.leave()

    async def _tell(self) -> None:
        """Say how the sources do, and let others have some of those that one process reads."""
        loop = asyncio.get_running_loop()
        told: list[tuple[str, str, str]] = []
        told_at, balanced_at, swept_at = -REPORT_EVERY_S, loop.time(), loop.time()
        while True:
            now = loop.time()
            states = [(name, watch.state, watch.detail) for name, watch in self.watches.items()]
            try:
                if states != told or (self.watches and now - told_at >= REPORT_EVERY_S):
                    await (self._reports.store(self.watches) if self.watches else self._reports.leave())
                    told, told_at = states, now
                if now - balanced_at >= BALANCE_EVERY_S:
                    balanced_at = now
                    self._give_way(await self._reports.others() if self.watches else ())
                if now - swept_at >= LOOK_EVERY_S:
                    swept_at = now
                    await forget_states(KvBucket(self._bus.client, SOURCES), self._remembered())
            except WhenthenError as error:
                log.debug("how the sources do is not told yet: %s", error)
            await asyncio.sleep(SHOW_EVERY_S)

    def _give_way(self, others: Sequence[Mapping[str, str]]) -> None:
        """Give back what is beyond a fair share, where another process waits for it."""
        mine = [name for name in self._held if self.watches[name].state == "reading"]
        waited_for = [name for name in mine if any(states.get(name) == "elsewhere" for states in others)]
        waiting = [states for states in others if any(states.get(name) == "elsewhere" for name in mine)]
        theirs = [sum(states.get(name) == "reading" for name in self._held) for states in waiting]
        fair = math.ceil((len(mine) + sum(theirs)) / (1 + len(theirs)))
        for name in waited_for[: max(0, len(mine) - fair)]:
            log.info("source %s: another process reads it from now on", name)
            self._held[name].give_way()

    async def _follow(self, wanted: Mapping[str, SourceTranslator]) -> None:
        """Stop what left the rules or was changed, and start what came; a source that is the same goes on."""
        ended = [
            name
            for name, (translator, _) in self._tasks.items()
            if name not in wanted or not wanted[name].reads_as(translator)
        ]
        await end_task(*(self._tasks[name][1] for name in ended))
        for name in ended:
            if name not in wanted:
                log.info("source %s: it is not in the rules any more, and is read no longer", name)
            del self._tasks[name]
            del self.watches[name]
            self._held.pop(name, None)
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
        edge, shared = self._edge(translator)
        wait_s = AGAIN_S[0]
        while True:
            began = loop.time()
            try:
                await self._read_once(translator.name, edge, shared, intake)
            except WhenthenError as error:
                if watch.in_trouble(error):
                    log.warning("source %s: %s; it is tried again", translator.name, error)
            except Exception as error:
                if watch.in_trouble(error):
                    log.exception("source %s failed and is read again", translator.name)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                if watch.in_trouble("its client was cancelled by itself"):  # a library that lets one of its own through
                    log.exception("source %s failed and is read again", translator.name)
            wait_s = AGAIN_S[0] if loop.time() - began > WELL_S else min(wait_s * 2, AGAIN_S[1])
            await asyncio.sleep(wait_s)

    async def _read_once(self, name: str, edge: Edge, shared: bool, intake: MessageIntake) -> None:
        async def read() -> None:
            if intake.watch.state != "trouble":  # which lasts until it is read again
                intake.watch.become("starting")
            await edge.run(intake)

        if shared:
            await read()
            return
        lease = SourceLease(
            self._leases,
            f"lease.{_key(name)}",
            member=self._member,
            settings=self._lease,
            elsewhere=lambda: intake.watch.become("elsewhere"),
        )
        self._held[name] = lease
        await lease.hold(read)

    def _edge(self, translator: SourceTranslator) -> tuple[Edge, bool]:
        """What reads a source, and whether every process may at the same time."""
        reading = translator.model.read
        state = SourceState(KvBucket(self._bus.client, SOURCES), _state_key(translator))
        if isinstance(reading, FolderReading):
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
        meaning = _key(orjson.dumps(translator.model.model_dump(mode="json")).decode())
        return PollEdge(reading, state, resolve_secret=self._resolve_secret, meaning=meaning), False

    def _remembered(self) -> set[str]:
        """Where the sources of the rules have what is remembered of them."""
        translators = self._sources().values()
        states = {f"state.{_state_key(each)}" for each in translators}
        return states | {f"lease.{_key(each.name)}" for each in translators}

    def _show(self) -> None:
        for name, watch in self.watches.items():
            self._metrics.show_source(
                name, reading=name in self._tasks and watch.state == "reading", heard_at=watch.heard_at
            )


def _state_key(translator: SourceTranslator) -> str:
    """Another folder or address of the same source is another memory."""
    reading = translator.model.read
    if isinstance(reading, FolderReading):
        return _key(translator.name, reading.type, reading.host or "", reading.path)
    return _key(translator.name, reading.type, getattr(reading, "url", ""))


def _key(*names: str) -> str:
    """A legal token of a bucket's key for any names."""
    text = "\x00".join(names).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=12).hexdigest()
