"""The ports of the evaluation over NATS: `EVENTS`, `ENGINE`, the bucket `WT_leases`, and a shard's loop over them.

Called by the wiring. What each operation guarantees is said in `engine.evaluation.log_ports`; here is only which request it is.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from whenthen.engine.bus.batches import HEADER_BYTES, publish_batch, publish_fenced
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, RequestClient, stream_info, unavailable
from whenthen.engine.bus.streams import (
    ENGINE,
    EVENTS,
    LEASES,
    make_room_for,
)
from whenthen.engine.bus.subjects import PAUSES, RULE_MARKERS, marker_number, tick_subject
from whenthen.engine.decisions import DecisionRecorder, NatsDecisionLog
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.commits.commit_messages import EvaluationSettings
from whenthen.engine.evaluation.event_reader import EventReader
from whenthen.engine.evaluation.log_ports import LeaseEntry, StoredRecord, WrongRevision
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer, PublishSpecs, RuleRevisions
from whenthen.engine.evaluation.recent_ids import recent_ids
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.engine.hangs import NatsSkipLog, ShardSkips
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.events import Event
from whenthen.supervision import AtHand

__all__ = ["NatsEngineStore", "NatsEventLog", "NatsLeaseStore", "nats_shard_loop"]

READ_MESSAGES = 10_000  #: of one request of `NatsEngineStore.read`
READ_BYTES = 16 << 20
LEASES_IDLE_S = 2.0
_NO_MESSAGE = 10037  #: error code: no message found


class NatsEventLog:
    """The `EventLog` in the stream `EVENTS`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def cursor(self) -> EventReader:
        """A consumer of its own."""
        return EventReader(self._bus)

    async def publish(self, event: Event) -> None:
        """See `EventLog.publish`. `InvalidEvent`: larger than the server accepts."""
        await self._bus.publish(event)

    async def publish_tick(self, shard: int) -> None:
        """See `EventLog.publish_tick`."""
        await self._bus.store(tick_subject(shard), b"")

    async def next_marker(self, after: int) -> int:
        """See `EventLog.next_marker`. The stream's leader answers."""
        answer = await self._bus.client.api(
            f"STREAM.MSG.GET.{EVENTS}", {"seq": after + 1, "next_by_subj": RULE_MARKERS}
        )
        error = answer.get("error")
        if error is None:
            return marker_number(answer["message"]["subject"]) or 0
        if error.get("err_code") == _NO_MESSAGE:
            return 0
        raise unavailable(f"markers of rules can not be read: {error.get('description')}", BusReason.REFUSED)

    async def pauses_after(self, position: int) -> list[PauseChange]:
        """See `EventLog.pauses_after`."""
        found: dict[str, PauseChange] = {}
        seq, more = position, True

        def receive(message: Delivery) -> None:
            nonlocal seq
            seq = int(message.headers["Nats-Sequence"])
            with suppress(ValueError):  # of another program: the loop passes it over, too
                change = PauseChange.decode(message.data)
                found.setdefault(change.automation, change)

        while more:
            request = {"seq": seq + 1, "next_by_subj": PAUSES, "batch": READ_MESSAGES, "max_bytes": READ_BYTES}
            more = await self._bus.client.read_stored(EVENTS, request, receive)
        return list(found.values())

    async def recent_ids(self, *, since_us: int, before: int) -> list[tuple[str, int]]:
        """See `EventLog.recent_ids`."""
        return await recent_ids(self._bus.client, since_us=since_us, before=before)


class NatsEngineStore:
    """The `EngineStore` in the stream `ENGINE`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._stream_takes = -1  #: bytes of a message, where somebody limited the stream

    async def has_one_copy(self) -> bool:
        """See `EngineStore.has_one_copy`."""
        answer = await stream_info(self._client, ENGINE)
        self._stream_takes = int(answer["config"].get("max_msg_size") or -1)
        return int(answer["config"].get("num_replicas") or 1) == 1

    @property
    def largest(self) -> int:
        """See `EngineStore.largest`."""
        limit = self._client.nc.max_payload
        return (min(limit, self._stream_takes) if self._stream_takes > 0 else limit) - HEADER_BYTES

    async def make_room(self, needed: int) -> int:
        """See `EngineStore.make_room`."""
        return await make_room_for(self._client, needed)

    async def last(self, subject: str, *, timeout_s: float = 5.0) -> StoredRecord | None:
        """See `EngineStore.last`. The stream's leader answers, not a replica as with `DIRECT.GET`."""
        answer = await self._client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": subject}, timeout_s=timeout_s)
        error = answer.get("error")
        if error is None:
            message = answer["message"]
            return StoredRecord(message["seq"], base64.b64decode(message.get("data", "")))
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise unavailable(f"{subject} can not be read: {error.get('description')}", BusReason.REFUSED)

    async def publish_batch(self, messages: Sequence[Message], *, expect: int | None) -> int:
        """See `EngineStore.publish_batch`."""
        return await publish_batch(self._client, messages, expect=expect)

    async def publish_fenced(self, messages: Sequence[Message], *, subject: str, expect: int) -> None:
        """See `EngineStore.publish_fenced`. All messages are in flight at once."""
        await publish_fenced(self._client, messages, subject=subject, expect=expect)

    async def read(self, filter_subject: str, *, after: int, receive: Callable[[str, bytes], None]) -> int:
        """See `EngineStore.read`."""
        seen = after
        more = True

        def deliver(message: Delivery) -> None:
            nonlocal seen
            seen = int(message.header(b"Nats-Sequence"))
            receive(message.header(b"Nats-Subject"), message.data)

        while more:
            request = {
                "seq": seen + 1,
                "next_by_subj": filter_subject,
                "batch": READ_MESSAGES,
                "max_bytes": READ_BYTES,
            }
            more = await self._client.read_stored(ENGINE, request, deliver)
        return seen


class NatsLeaseStore:
    """The `LeaseStore` in the bucket `WT_leases`, or another."""

    def __init__(self, bus: Bus, bucket: str = LEASES) -> None:
        self._bus = bus
        self._name = bucket
        self._bucket: KeyValue | None = None

    async def put(self, key: str, value: bytes) -> None:
        """See `LeaseStore.put`."""
        with _errors():
            await (await self._open()).put(key, value)

    async def update(self, key: str, value: bytes, *, last: int) -> int:
        """See `LeaseStore.update`."""
        with _errors():
            return await (await self._open()).update(key, value, last=last)

    async def get(self, key: str) -> LeaseEntry | None:
        """See `LeaseStore.get`."""
        with _errors():
            try:
                entry = await (await self._open()).get(key)
            except nats.js.errors.KeyNotFoundError:
                return None
        return LeaseEntry(key, entry.value or b"", entry.revision or 0)

    async def delete(self, key: str) -> None:
        """See `LeaseStore.delete`."""
        with _errors():
            await (await self._open()).delete(key)

    async def entries(self) -> list[LeaseEntry]:
        """See `LeaseStore.entries`. One request, whatever their number."""
        prefix = f"$KV.{self._name}."
        found: list[LeaseEntry] = []

        def receive(message: Delivery) -> None:
            headers = message.headers
            value = b"" if "KV-Operation" in headers else message.data
            found.append(LeaseEntry(headers["Nats-Subject"].removeprefix(prefix), value, int(headers["Nats-Sequence"])))

        request = {"seq": 1, "next_by_subj": f"{prefix}>", "batch": READ_MESSAGES}
        await self._bus.client.read_stored(f"KV_{self._name}", request, receive, idle_s=LEASES_IDLE_S)
        return found

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(self._name)
        return self._bucket


@contextmanager
def _errors() -> Iterator[None]:
    """Raise what nats-py raises as the port says it."""
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as error:
        raise WrongRevision(str(error)) from error
    except (nats.errors.Error, OSError) as error:
        raise unavailable(f"the bucket of leases can not be used: {error!r}", BusReason.REFUSED) from error


def nats_shard_loop(
    bus: Bus,
    shard: int,
    evaluator: EventEvaluator,
    *,
    settings: EvaluationSettings | None = None,
    observer: Observer | None = None,
    wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    writer: str = "",
    publish_specs: PublishSpecs | None = None,
    shards: int = 1,
    at_hand: AtHand | None = None,
    revisions: RuleRevisions | None = None,
    decisions_kept: int = 20,
) -> ShardLoop:
    """The loop of a shard over the streams of `bus`."""
    shard_log = FencedShardLog(NatsEngineStore(bus.client), shard, writer=writer)
    return ShardLoop(
        NatsEventLog(bus),
        shard_log,
        evaluator,
        settings=settings,
        observer=observer,
        wall_us=wall_us,
        publish_specs=publish_specs,
        skips=ShardSkips(NatsSkipLog(bus), shard=shard, shards=shards),
        at_hand=at_hand,
        revisions=revisions,
        recorder=DecisionRecorder(NatsDecisionLog(bus), shard, writer=shard_log.writer, keep=decisions_kept),
    )
