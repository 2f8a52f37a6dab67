"""The commit: windows, firings, action tasks and the shard's offset are stored together, or not at all.

Called by the evaluation loop, over an `EngineStore` (NATS or memory). Each commit writes the shard's offset with the expected
last sequence of the offset subject: this is the fence, and a process that lost the shard is refused (`Fenced`).

**Small commits** (`SMALL_MESSAGES`, `SMALL_BYTES`) are one message: the offset, with the changes packed behind it. For a
stream with one copy the server keeps a file store for each atomic batch, which takes longer than everything else that
a firing goes through. Once the offset is acknowledged, the changes are published as messages of their own, each
under the fence of this offset's revision. All are acknowledged before the next commit goes out, as that replaces the
pack. When it is not known whether they are all stored, the offset is written again unchanged: its new revision fences
out every publish that is still in flight. Then what is missing is published (`engine.evaluation.commits.commit_recovery`). A process
that loads the shard does the same. With replicas a batch is held in memory, and the server allows one message at a time to expect
something of a subject; there every commit is a batch.

**Other commits** are one atomic batch (NATS ADR-50) to `ENGINE` whose last message is the offset.

**Lost acknowledgements.** Each commit has an id, which is in the offset message. A commit without an answer is sent
again unchanged; if the first one had been applied, the second is refused, and the offset that is read back bears its
id. So a commit that is delivered late, from a buffer or after a leader change, is applied once
(`engine.evaluation.commits.fenced_offset`).

**More than 1,000 messages** (the server's limit). All of them are packed into a few *prepared* messages, and one
batch of these and the offset (`prepared: n, applied: 0`) is the commit: from then on nothing else can happen to the
shard. Then each pack is applied by an ordinary batch of its messages and the offset (`applied: k`), each fenced like
any other. A shard that is loaded with packs left applies these first. The same is done with a commit of more than
`BATCH_BYTES`; what does not fit in the batch that names the packs is put down before it, fenced by the offset unchanged, and
means nothing until then. Tried and dropped: several firings in one
message (executors could not acknowledge, retry and dead-letter them one by one), and publishing the rest outside the
transaction (twice after a crash).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Unpack

from whenthen.engine.bus.batches import BATCH_MESSAGES, MessageTooLarge, StaleBatch
from whenthen.engine.bus.records import Message, NewPosition, Offset, pack, unpack
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import (
    FIRINGS,
    offset_subject,
    prepared_subject,
    probe_subject,
    shard_subjects,
    window_subject,
)
from whenthen.engine.evaluation.commits.commit_division import (
    BATCH_BYTES,
    PACK_BYTES,
    SMALL_BYTES,
    SMALL_MESSAGES,
    groups,
    is_small,
    packed,
    total_bytes,
)
from whenthen.engine.evaluation.commits.commit_recovery import missing
from whenthen.engine.evaluation.commits.fenced_offset import RETRY_S, FencedOffset, read_offset
from whenthen.engine.evaluation.commits.window_parts import MARGIN_BYTES, PART_BYTES, WindowParts
from whenthen.engine.evaluation.log_ports import CommitRefused, EngineStore, Fenced
from whenthen.schemas.errors import BusUnavailable, SetupError, WhenthenError

__all__ = ["SMALL_BYTES", "SMALL_MESSAGES", "FencedShardLog"]

log = logging.getLogger(__name__)

MIN_PART_BYTES = 16 << 10  #: windows are not cut smaller; a server that refuses these takes nothing
MIN_BATCH = 16  #: messages; as above
REPLICA_S = 0.05  #: between two looks at a replica that lags
REPLICA_LOOKS = 100
PACK_TIMEOUT_S = 10.0  #: a pack is larger than other messages


class FencedShardLog:
    """A `ShardLog` over an `EngineStore`."""

    def __init__(self, store: EngineStore, shard: int, *, writer: str = "") -> None:
        self.shard = shard
        self.writer = writer or uuid.uuid4().hex
        self._fence = FencedOffset(store, shard, writer=self.writer)
        self.stored = 0
        self._engine = store
        self._small_commits = False
        self._parts = WindowParts(shard)
        self._part_bytes = PART_BYTES
        self._batch_messages = BATCH_MESSAGES
        self._batch_known = False  #: whether the server takes batches of so many
        self._leftover: list[str] = []  #: packs that were put down and never named

    @property
    def offset(self) -> Offset:
        """See `ShardLog.offset`."""
        return self._fence.now

    @property
    def largest(self) -> int:
        """See `ShardLog.largest`."""
        return self._engine.largest - MARGIN_BYTES

    @property
    def full(self) -> bool:
        """See `ShardLog.full`."""
        return self._fence.full

    @property
    def carries_changes(self) -> bool:
        """Whether the offset as stored carries the changes of a small commit."""
        return bool(self.offset.packed)

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """See `ShardLog.load`. A replica that lags is noticed, because the offset is the last message that the shard has after
        its claim."""
        self._small_commits = await self._engine.has_one_copy()
        await self._fence.claim()
        await self._apply_prepared()
        if self.offset.packed:
            log.warning("shard %d: recovering the changes of its last commit", self.shard)
            await self._recover()
            await self._fence.write(dataclasses.replace(self.offset, packed=b""))
        position = 0
        self._parts = WindowParts(self.shard)
        for _ in range(REPLICA_LOOKS):
            position = await self._read(position, on_window)
            if position > self.offset.revision:
                raise await self._beyond(position)
            if position == self.offset.revision:
                self._parts.finish(on_window)
                await self._forget_leftover()
                self.stored = self.offset.seq
                return self.offset
            await asyncio.sleep(REPLICA_S)  # a replica that lags answered
        raise unavailable("no replica of the ENGINE stream is up to date", BusReason.TIMEOUT)

    async def commit(self, messages: Sequence[Message], **to: Unpack[NewPosition]) -> Offset:
        """See `ShardLog.commit`."""
        target = self.offset.moved(commit=uuid.uuid4().hex, writer=self.writer, **to)
        while True:
            try:
                whole = self._parts.cut(messages, min(self._part_bytes, self.largest))
                packs = await self._decide(whole, target)
                break
            except MessageTooLarge as error:
                self._make_smaller(error)
        self._parts.stored(whole)
        # from here on the commit is stored, and only has to be finished
        if packs:
            await self._apply(packs)
        elif self.offset.prepared:
            await self._apply_prepared()
        elif self.offset.packed:
            await self._publish_changes(list(unpack(self.offset.packed)) if packs is None else whole)
        self.stored = target.seq
        return self.offset

    async def firings_after(self, trigger: str, receive: Callable[[bytes], None]) -> None:
        """See `ShardLog.firings_after`. With several replicas all that lies before the offset as it is now is read, by which one that
        lags is noticed."""
        record = await self._engine.last(window_subject(self.shard, trigger, ""))
        position = record.seq if record is not None else 0

        def take(subject: str, data: bytes) -> None:
            if subject.startswith(FIRINGS) and data:
                receive(data)

        one_copy = await self._engine.has_one_copy()
        for _ in range(REPLICA_LOOKS):
            position = await self._engine.read(f"{FIRINGS}>" if one_copy else "engine.>", after=position, receive=take)
            if one_copy:
                return
            if position >= self.offset.revision:
                return
            await asyncio.sleep(REPLICA_S)
        raise unavailable("no replica of the ENGINE stream is up to date", BusReason.TIMEOUT)

    async def takes(self, messages: Sequence[Message]) -> bool:
        """See `ShardLog.takes`. They are stored for a second where nobody reads them, as a commit would store them."""
        pieces = self._parts.cut(messages, min(self._part_bytes, self.largest))
        for start in range(0, len(pieces), self._batch_messages):
            batch = pieces[start : start + self._batch_messages]
            try:
                await self._engine.publish_batch(
                    [Message(probe_subject(self.shard, number), each.data, 1) for number, each in enumerate(batch)],
                    expect=None,
                )
            except MessageTooLarge:
                return False
            except BusUnavailable as error:
                if error.reason == BusReason.REFUSED:
                    return False
                raise
        return True

    async def _decide(self, messages: Sequence[Message], target: Offset) -> list[bytes] | None:
        """Store what makes a commit certain, by the way that fits its size; gives the packs to apply, none for most commits.

        None when an earlier sending of the commit was applied, which may have gone another way: the offset says which.
        """
        packs: list[bytes] = []
        if messages and self._small_commits and is_small(messages):
            sent = await self._fence.store([], dataclasses.replace(target, packed=packed(messages)))
        elif len(messages) < self._batch_messages and total_bytes(messages) <= BATCH_BYTES:
            sent = await self._fence.store(messages, target)
        else:
            await self._learn_batch_limit()
            most = min(PACK_BYTES, self._part_bytes, self.largest)
            packs = list(pack(messages, max_bytes=most, max_messages=self._batch_messages - 1))
            prepared = [Message(prepared_subject(self.shard, index), data) for index, data in enumerate(packs)]
            *before, last = groups(prepared, max_messages=self._batch_messages - 1)
            for group in before:
                await self._fence.write(self.offset, group)
            sent = await self._fence.store(last, dataclasses.replace(target, prepared=len(packs)))
        return packs if sent else None

    async def _learn_batch_limit(self) -> None:
        """Find out whether the server takes batches of 1,000 messages, before packs of so many are named: they can not be cut
        again afterwards."""
        while not self._batch_known:
            probes = [Message(probe_subject(self.shard, number), b"", 1) for number in range(self._batch_messages)]
            try:
                await self._engine.publish_batch(probes, expect=None)
            except BusUnavailable as error:
                log.warning("shard %d: the largest batch is not known yet: %s", self.shard, error)
                if error.reason == BusReason.FULL:
                    await self._fence.make_room(SMALL_BYTES)
                await asyncio.sleep(RETRY_S[1])
                continue
            self._batch_known = True

    def _make_smaller(self, error: MessageTooLarge) -> None:
        """Cut windows smaller, or batches, as the server refused the ones so far.

        Raises:
            CommitRefused: they can not be any smaller.
        """
        if error.batch:
            self._batch_messages //= 2
            possible = self._batch_messages >= MIN_BATCH
            self._batch_messages = max(self._batch_messages, MIN_BATCH)
        else:
            self._part_bytes = min(self._part_bytes, self.largest) // 2
            possible = self._part_bytes >= MIN_PART_BYTES
            self._part_bytes = max(self._part_bytes, MIN_PART_BYTES)
        if not possible:
            self._part_bytes, self._batch_messages = PART_BYTES, BATCH_MESSAGES
            raise CommitRefused(f"shard {self.shard}: the NATS server refuses a commit for its size: {error}")
        log.warning("shard %d: a commit is sent in smaller parts, as the server refused it: %s", self.shard, error)

    async def _publish_changes(self, messages: Sequence[Message]) -> None:
        """Publish the changes that the offset carries."""
        subject = offset_subject(self.shard)
        try:
            await self._engine.publish_fenced(messages, subject=subject, expect=self.offset.revision)
        except (StaleBatch, BusUnavailable) as error:
            log.warning("shard %d: not all changes are known to be stored (%s)", self.shard, error)
            await self._fence.write(self.offset)
            # refused, yet not fenced out: the stream was given replicas since the shard was loaded
            self._small_commits = not isinstance(error, StaleBatch)
            await self._recover()

    async def _recover(self) -> None:
        """Publish those changes of the offset that are missing. The offset must have been written since they were sent, so
        that none of them is in flight.

        Raises:
            Fenced: another process took the shard over.
        """
        pause = RETRY_S[0]
        subject = offset_subject(self.shard)
        while True:
            try:
                for message in await missing(self._engine, list(unpack(self.offset.packed))):
                    await self._engine.publish_fenced([message], subject=subject, expect=self.offset.revision)
                return
            except (StaleBatch, BusUnavailable) as error:
                if isinstance(error, BusUnavailable) and error.reason == BusReason.FULL:
                    await self._fence.make_room(SMALL_BYTES)
                log.warning("shard %d: changes are still not stored (%s); trying again", self.shard, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_S[1])
            await self._fence.write(self.offset)

    async def _apply_prepared(self) -> None:
        if not self.offset.prepared:
            return
        packs = [b""] * self.offset.applied  # maybe deleted already
        for index in range(self.offset.applied, self.offset.prepared):
            subject = prepared_subject(self.shard, index)
            record = await self._engine.last(subject, timeout_s=PACK_TIMEOUT_S)
            if record is None:
                raise unavailable(f"{subject}, which the offset names, is not in {ENGINE}", BusReason.REFUSED)
            packs.append(record.data)
        log.warning("shard %d: finishing a commit of %d packs", self.shard, len(packs))
        await self._apply(packs)

    async def _apply(self, packs: Sequence[bytes]) -> None:
        """Apply the packs that are not applied yet; then forget them all by short-lived tombstones."""
        for index in range(self.offset.applied, len(packs)):
            await self._fence.write(dataclasses.replace(self.offset, applied=index + 1), list(unpack(packs[index])))
        tombstones = [Message(prepared_subject(self.shard, index), b"", 1) for index in range(len(packs))]
        *before, last = groups(tombstones, max_messages=self._batch_messages - 1)
        for group in before:
            await self._fence.write(self.offset, group)
        await self._fence.write(dataclasses.replace(self.offset, prepared=0, applied=0), last)

    async def _read(self, position: int, on_window: Callable[[str, str, bytes], None]) -> int:
        """Read the shard's messages after `position`; gives the last sequence that was seen."""
        prepared = prepared_subject(self.shard, 0)[:-1]

        def receive(subject: str, data: bytes) -> None:
            if subject.startswith(prepared):
                if data:
                    self._leftover.append(subject)
                return
            self._parts.receive(subject, data, on_window)

        return await self._engine.read(shard_subjects(self.shard), after=position, receive=receive)

    async def _forget_leftover(self) -> None:
        """Delete the packs of a commit whose process died before it named them."""
        tombstones = [Message(subject, b"", 1) for subject in dict.fromkeys(self._leftover)]
        self._leftover = []
        for group in groups(tombstones, max_messages=BATCH_MESSAGES - 1):
            await self._fence.write(self.offset, group)

    async def _beyond(self, position: int) -> WhenthenError:
        """What it means that there is something after the offset that this process has just written."""
        found = await read_offset(self._engine, self.shard)
        if found.revision != self.offset.revision:
            return Fenced(f"shard {self.shard}: process {found.writer} took it over while it was being loaded")
        return SetupError(
            f"shard {self.shard}: stream {ENGINE} holds sequence {position} after the offset's {found.revision}, "
            "which no commit covers; the server stored part of an atomic batch. Restore the store from a backup"
        )
