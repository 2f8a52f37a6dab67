"""The stores of the built-in orchestrator over NATS: runs, flags, heartbeats and slots in KV, logs in a stream, and the queue.

Implements the protocols of `runs.stores`; their guarantees are there. Runs are read from the stream's leader, not from a
replica, so that what was acknowledged is seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
import nats.js.errors
import orjson
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from whenthen.engine.bus import RUN_STATES, RUNS, STATE, short_token
from whenthen.runs import Flag, LogLine, Stored, Stores, run_from_record
from whenthen.schemas import BusUnavailable, Conflict, FlowRun, InvalidInput, RunState, SetupError

__all__ = ["FlowStoreSettings", "ensure_flow_stores", "nats_stores", "run_of_message"]

HEARTBEATS = "WT_heartbeats"
SLOTS = "WT_slots"
LOGS = "LOGS"

_WRONG_SEQUENCE = frozenset({10071, 10164})  #: JetStream's error codes of a failed compare-and-set
_MAX_LOG_MESSAGE_BYTES = 512 * 1024
_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStoreSettings:
    """How much is kept. -1 bytes means no limit but the disk's."""

    replicas: int = 1
    logs_max_age: timedelta = timedelta(days=14)
    logs_max_bytes: int = 2 << 30  #: the oldest lines make room
    heartbeat_max_age: timedelta = timedelta(minutes=15)  #: far above the time after which a worker counts as gone
    queue_patience: timedelta = timedelta(seconds=30)


async def ensure_flow_stores(js: JetStreamContext, settings: FlowStoreSettings | None = None) -> None:
    """Create what `streams.ensure_streams` does not: heartbeats, slots and logs. Called again it changes nothing.

    Raises:
        SetupError: the server refuses one of them.
    """
    settings = settings or FlowStoreSettings()
    try:
        for bucket in (
            api.KeyValueConfig(
                bucket=HEARTBEATS, ttl=settings.heartbeat_max_age.total_seconds(), replicas=settings.replicas
            ),
            api.KeyValueConfig(bucket=SLOTS, replicas=settings.replicas),
        ):
            try:
                await js.key_value(bucket.bucket)
            except nats.js.errors.NotFoundError:
                await js.create_key_value(bucket)
        logs = api.StreamConfig(
            name=LOGS,
            subjects=["logs.*"],
            discard=api.DiscardPolicy.OLD,
            max_age=settings.logs_max_age.total_seconds(),
            max_bytes=settings.logs_max_bytes,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        )
        try:
            await js.stream_info(LOGS)
            await js.update_stream(logs)
        except nats.js.errors.NotFoundError:
            await js.add_stream(logs)
    except nats.js.errors.APIError as error:
        raise SetupError(f"the NATS server refuses the stores of flow runs: {error.description}") from error


async def nats_stores(js: JetStreamContext, settings: FlowStoreSettings | None = None) -> Stores:
    """The stores on this connection. The streams and buckets exist (`ensure_streams`, `ensure_flow_stores`)."""
    settings = settings or FlowStoreSettings()
    buckets = {name: await js.key_value(name) for name in (RUN_STATES, STATE, HEARTBEATS, SLOTS)}
    return Stores(
        runs=NatsRunStore(js, buckets[RUN_STATES]),
        flags=NatsFlagStore(js, buckets[STATE]),
        logs=NatsLogStore(js),
        queue=NatsRunQueue(js, settings.queue_patience),
        heartbeats=NatsHeartbeats(js, buckets[HEARTBEATS]),
        slots=NatsSlotStore(js, buckets[SLOTS]),
    )


def run_of_message(message: Msg) -> Stored | None:
    """The revision that a message of the bucket's stream holds; None for the marker of a deletion."""
    if not message.data:
        return None
    return Stored(run_from_record(orjson.loads(message.data)), message.metadata.sequence.stream)


class NatsRunStore:
    """One key for each run; the revision is the version."""

    def __init__(self, js: JetStreamContext, bucket: KeyValue) -> None:
        self._js = js
        self._bucket = bucket

    async def create(self, run: FlowRun) -> Stored:
        async with _answers("creating a flow run"):
            try:
                return Stored(run, await self._bucket.create(run.id, _encode(run)))
            except nats.js.errors.KeyWrongLastSequenceError:
                pass
        stored = await self.get(run.id)
        if stored is None:
            raise Conflict(f"flow run {run.id} was deleted while it was created; try again")
        return stored

    async def get(self, run_id: str) -> Stored | None:
        found = await _newest(self._js, RUN_STATES, run_id)
        return None if found is None else Stored(run_from_record(orjson.loads(found.data or b"")), found.seq or 0)

    async def update(self, run: FlowRun, version: int) -> Stored:
        async with _answers("storing a flow run"):
            try:
                return Stored(run, await self._bucket.update(run.id, _encode(run), last=version))
            except nats.js.errors.KeyWrongLastSequenceError:
                raise _stale(f"flow run {run.id}", version) from None

    async def delete(self, run_id: str, version: int) -> None:
        if await self.get(run_id) is None:
            return
        async with _answers("deleting a flow run"):
            try:
                await self._bucket.delete(run_id, last=version)
            except nats.js.errors.APIError as error:
                if error.err_code in _WRONG_SEQUENCE:
                    raise _stale(f"flow run {run_id}", version) from None
                raise

    async def list(
        self, *, deployment: str | None = None, states: frozenset[RunState] | None = None, limit: int = 100
    ) -> list[Stored]:
        found = []
        async for message in _scan(
            self._js, f"KV_{RUN_STATES}", f"$KV.{RUN_STATES}.>", api.DeliverPolicy.LAST_PER_SUBJECT
        ):
            stored = run_of_message(message)
            if (
                stored is not None
                and (deployment is None or stored.run.deployment == deployment)
                and (states is None or stored.run.state in states)
            ):
                found.append(stored)
        return sorted(found, key=lambda stored: (stored.run.created, stored.run.id), reverse=True)[:limit]

    async def watch(self, run_id: str | None = None) -> AsyncGenerator[Stored | None, None]:
        async with _answers("watching flow runs"):
            watcher = await (self._bucket.watch(run_id) if run_id else self._bucket.watchall())
        try:
            async for entry in watcher:
                if entry is None:
                    yield None
                elif entry.operation is None and entry.value:
                    yield Stored(run_from_record(orjson.loads(entry.value)), entry.revision or 0)
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await watcher.stop()  # type: ignore[no-untyped-call]


class NatsFlagStore:
    """Keys under `flow.` in the bucket that automations keep their flags in, too. The value holds the key as text."""

    def __init__(self, js: JetStreamContext, bucket: KeyValue) -> None:
        self._js = js
        self._bucket = bucket

    async def get(self, key: str) -> tuple[Flag, int] | None:
        found = await _newest(self._js, STATE, _flag_key(key))
        return None if found is None else (_flag(orjson.loads(found.data or b"")), found.seq or 0)

    async def put(self, key: str, flag: Flag, version: int) -> int:
        data = orjson.dumps({"key": key, **asdict(flag)})
        async with _answers("storing a flag"):
            try:
                if version == 0:
                    return await self._bucket.create(_flag_key(key), data)
                return await self._bucket.update(_flag_key(key), data, last=version)
            except nats.js.errors.KeyWrongLastSequenceError:
                raise _stale(f"flag {key!r}", version) from None

    async def all(self) -> dict[str, Flag]:
        flags = {}
        async for message in _scan(self._js, f"KV_{STATE}", f"$KV.{STATE}.flow.>", api.DeliverPolicy.LAST_PER_SUBJECT):
            if message.data:
                record = orjson.loads(message.data)
                flags[record["key"]] = _flag(record)
        return flags


class NatsLogStore:
    """One message for each batch of lines, in order of their storing."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def append(self, run_id: str, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        data = orjson.dumps([(line.at, line.stream, line.attempt, line.text) for line in lines])
        if len(data) > _MAX_LOG_MESSAGE_BYTES and len(lines) > 1:
            middle = len(lines) // 2
            await self.append(run_id, lines[:middle])
            await self.append(run_id, lines[middle:])
            return
        async with _answers("storing log lines"):
            await self._js.publish(f"logs.{run_id}", data, stream=LOGS)

    async def read(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        lines: list[LogLine] = []
        async for message in _scan(self._js, LOGS, f"logs.{run_id}", api.DeliverPolicy.ALL):
            lines.extend(_lines(message.data))
        return lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]

    async def follow(self, run_id: str) -> AsyncGenerator[LogLine, None]:
        async with _answers("reading a log"):
            subscription = await self._js.subscribe(f"logs.{run_id}", stream=LOGS, ordered_consumer=True)
        try:
            while True:
                try:
                    message = await subscription.next_msg(timeout=5)
                except nats.errors.TimeoutError:
                    continue
                except nats.errors.Error as error:
                    raise BusUnavailable(f"reading a log: {error!r}") from error
                for line in _lines(message.data):
                    yield line
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()


class NatsQueuedRun:
    """A message of the queue."""

    def __init__(self, message: Msg) -> None:
        self._message = message

    @property
    def run_id(self) -> str:
        return self._message.data.decode()

    @property
    def deliveries(self) -> int:
        return self._message.metadata.num_delivered or 1

    async def ack(self) -> None:
        async with _answers("acknowledging a flow run"):
            await self._message.ack_sync(timeout=5)

    async def nak(self, delay: timedelta) -> None:
        async with _answers("handing a flow run back"):
            await self._message.nak(delay=max(delay.total_seconds(), 0))

    async def in_progress(self) -> None:
        async with _answers("keeping a flow run"):
            await self._message.in_progress()


class NatsRunQueue:
    """`runs.<pool>.<deployment>.<run>` in the work queue; a subject with a message in it takes no second one."""

    def __init__(self, js: JetStreamContext, patience: timedelta) -> None:
        self.patience = patience
        self._js = js
        self._consumers: dict[str, str] = {}

    async def put(self, run_id: str, *, pool: str, deployment: str) -> bool:
        subject = f"{_pool_subject(pool)}.{short_token(deployment)}.{run_id}"
        headers = {api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: "0"}
        async with _answers("queueing a flow run"):
            try:
                await self._js.publish(subject, run_id.encode(), stream=RUNS, headers=headers)
            except nats.js.errors.APIError as error:
                if error.err_code in _WRONG_SEQUENCE:
                    return False
                raise
        return True

    async def take(self, pool: str, *, wait: timedelta) -> NatsQueuedRun | None:
        async with _answers("taking a flow run"):
            consumer = await self._consumer(pool)
            request = json.dumps({"batch": 1, "expires": max(int(wait.total_seconds() * 1e9), 1_000_000)})
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{RUNS}.{consumer}"
            try:
                message = await self._js._nc.request(
                    subject, request.encode(), timeout=wait.total_seconds() + 5, old_style=True
                )
            except nats.errors.NoRespondersError:
                self._consumers.pop(pool, None)  # deleted behind our back: made anew next time
                raise
        status = (message.headers or {}).get("Status")
        if status == "409" and "Consumer Deleted" in (message.headers or {}).get("Description", ""):
            self._consumers.pop(pool, None)
        return NatsQueuedRun(message) if status is None else None

    async def _consumer(self, pool: str) -> str:
        name = self._consumers.get(pool)
        if name is None:
            name = "workers-" + _key(pool)
            await self._js.add_consumer(
                RUNS,
                api.ConsumerConfig(
                    durable_name=name,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=self.patience.total_seconds(),
                    max_deliver=-1,
                    max_ack_pending=-1,  # runs that wait for their time are taken and put off
                    filter_subject=f"{_pool_subject(pool)}.>",
                ),
            )
            self._consumers[pool] = name
        return name


class NatsHeartbeats:
    """The server's time of the last beat, so that clocks of workers do not matter."""

    def __init__(self, js: JetStreamContext, bucket: KeyValue) -> None:
        self._js = js
        self._bucket = bucket

    async def beat(self, run_id: str, worker: str) -> None:
        async with _answers("a heartbeat"):
            await self._bucket.put(run_id, worker.encode())

    async def last(self, run_id: str) -> datetime | None:
        found = await _newest(self._js, HEARTBEATS, run_id)
        if found is None or found.time is None:
            return None
        return found.time if found.time.tzinfo else found.time.replace(tzinfo=UTC)

    async def clear(self, run_id: str) -> None:
        async with _answers("ending heartbeats"):
            await self._bucket.purge(run_id)


class NatsSlotStore:
    """One record for each limited deployment: who holds its slots."""

    def __init__(self, js: JetStreamContext, bucket: KeyValue) -> None:
        self._js = js
        self._bucket = bucket

    async def acquire(self, name: str, holder: str, limit: int, alive: Callable[[str], Awaitable[bool]]) -> bool:
        for _ in range(_TRIES):
            held, version = await self._read(name)
            if holder in held:
                return True
            if len(held) >= limit:
                held = [other for other in held if await alive(other)]
            if len(held) >= limit:
                return False
            if await self._write(name, [*held, holder], version):
                return True
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def release(self, name: str, holder: str) -> None:
        for _ in range(_TRIES):
            held, version = await self._read(name)
            if holder not in held or await self._write(name, [other for other in held if other != holder], version):
                return
        raise Conflict(f"the slots of {name!r} keep changing; try again")

    async def holders(self, name: str) -> list[str]:
        return (await self._read(name))[0]

    async def _read(self, name: str) -> tuple[list[str], int]:
        found = await _newest(self._js, SLOTS, _key(name))
        return ([], 0) if found is None else (orjson.loads(found.data or b"[]"), found.seq or 0)

    async def _write(self, name: str, held: list[str], version: int) -> bool:
        async with _answers("taking a slot"):
            try:
                if version == 0:
                    await self._bucket.create(_key(name), orjson.dumps(held))
                else:
                    await self._bucket.update(_key(name), orjson.dumps(held), last=version)
            except nats.js.errors.KeyWrongLastSequenceError:
                return False
        return True


@asynccontextmanager
async def _answers(what: str) -> AsyncIterator[None]:
    """Turn whatever goes wrong between us and the server into one error."""
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise InvalidInput(f"{what}: larger than the NATS server's max_payload") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BusUnavailable(f"{what}: NATS did not answer as it should: {error!r}") from error


async def _newest(js: JetStreamContext, bucket: str, key: str) -> api.RawStreamMsg | None:
    """The newest revision, from the leader; None when there is none or it is a deletion."""
    async with _answers(f"reading {bucket}"):
        try:
            found = await js.get_msg(f"KV_{bucket}", subject=f"$KV.{bucket}.{key}", direct=False)
        except nats.js.errors.NotFoundError:
            return None
    return found if found.data else None


async def _scan(
    js: JetStreamContext, stream: str, subject: str, policy: api.DeliverPolicy
) -> AsyncGenerator[Msg, None]:
    """What the stream holds under `subject` now, in order."""
    async with _answers(f"reading {stream}"):
        subscription = await js.subscribe(subject, stream=stream, ordered_consumer=True, deliver_policy=policy)
    try:
        async with _answers(f"reading {stream}"):
            info = await subscription.consumer_info()
        left = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
        while left:
            async with _answers(f"reading {stream}"):
                message = await subscription.next_msg(timeout=5)
            left = message.metadata.num_pending
            yield message
    finally:
        with contextlib.suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()


def _encode(run: FlowRun) -> bytes:
    return orjson.dumps(run)


def _flag(record: dict[str, Any]) -> Flag:
    return Flag(paused=record["paused"], changed=record["changed"], note=record.get("note", ""))


def _lines(data: bytes) -> list[LogLine]:
    return [
        LogLine(at=at, stream=stream, attempt=attempt, text=text) for at, stream, attempt, text in orjson.loads(data)
    ]


def _pool_subject(pool: str) -> str:
    return f"runs.{short_token(pool)}"


def _flag_key(key: str) -> str:
    return "flow." + _key(key)


def _key(text: str) -> str:
    """A legal KV key, also a consumer's name, for any text: `=XX` for bytes that are not letters, digits, `_` or `-`.

    Long ones are cut and end in a hash; `=-` before it occurs in no other key.
    """
    key = re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"=%02X" % found[0][0], text.encode(errors="surrogatepass")).decode()
    if len(key) <= 160:
        return key or "="
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{key[:48]}=-{digest}"


def _stale(what: str, version: int) -> Conflict:
    return Conflict(f"{what} changed since version {version} was read; read it again")
