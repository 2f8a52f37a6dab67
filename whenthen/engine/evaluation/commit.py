"""The commit: windows, firings, action tasks and the shard's offset move together, or not at all.

Called by the evaluation loop. Each commit writes the shard's offset with the expected last sequence of the offset
subject: whoever lost the shard is refused (`Fenced`).

**Small commits** (`SMALL_MESSAGES`, `SMALL_BYTES`) are one message: the offset, with the changes packed behind it. For a
stream with one copy the server keeps a file store for each atomic batch, which takes longer than everything else that
a firing goes through. Once the offset is acknowledged the changes are published as the messages they are, each
under the fence of this offset's revision, and all are acknowledged before the next commit goes out, which replaces the
pack. When it is not known whether they are all stored, the offset is written again as it is, so that nothing which is
still on its way can come through any more, and then what is missing is published (`engine.evaluation.commit_recovery`). Whoever loads
the shard does the same. With replicas a batch waits in memory, and the server lets only one message at a time expect
something of a subject; there every commit is a batch.

**Other commits** are one atomic batch (NATS ADR-50) to `ENGINE` whose last message is the offset.

**Lost acknowledgements.** Each commit has a name, which is in the offset message. A commit without an answer is sent
again as it is; if the first one had been applied, the second is refused, and the offset that is read back bears its
name. So a commit that comes through late, from a buffer or after a leader change, is applied once.

**More than 1,000 messages** (the server's limit). All of them are packed into a few *prepared* messages, and one
batch of these and the offset (`prepared: n, applied: 0`) is the commit: from then on nothing else can happen to the
shard. Then each pack is applied by an ordinary batch of its messages and the offset (`applied: k`), each fenced like
any other. A shard that is loaded with packs left applies these first. Tried and dropped: several firings in one
message (executors could not acknowledge, retry and store_dead each by itself), and publishing the rest outside the
transaction (twice after a crash).
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from whenthen.engine.bus import (
    BATCH_MESSAGES,
    ENGINE,
    BusReason,
    Delivery,
    Message,
    Offset,
    RequestClient,
    StaleBatch,
    decode_window,
    offset_subject,
    pack,
    prepared_subject,
    publish_batch,
    publish_fenced,
    shard_subjects,
    unavailable,
    unpack,
)
from whenthen.engine.evaluation.commit_recovery import missing
from whenthen.schemas import BusUnavailable, SetupError, WhenthenError

__all__ = ["BATCH_MESSAGES", "Fenced", "ShardLog", "StaleBatch", "publish_batch", "read_offset"]

log = logging.getLogger(__name__)

#: a commit of at most so many messages and bytes is one message; beyond them a batch takes less time
SMALL_MESSAGES = 32
SMALL_BYTES = 64 << 10
#: of one pack: far below the 8 MB of max_payload, and of servers with the default of 1 MB
PACK_BYTES = 700_000
RETRY_S = (0.05, 0.5)  #: first and longest pause before a commit is sent again
CLAIMS = 20  #: how often a shard is claimed before another process is believed to have it
LOAD_MESSAGES = 10_000  #: of one request of the loader
LOAD_BYTES = 16 << 20


class Fenced(WhenthenError):
    """Another process has committed for this shard. Whatever is held in memory is void; load the shard again."""

    reason = "fenced"


async def read_offset(client: RequestClient, shard: int) -> Offset:
    """A shard's offset as the stream's leader has it.

    Raises:
        BusUnavailable: no answer.
    """
    answer = await client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": offset_subject(shard)})
    if error := answer.get("error"):
        if error.get("err_code") == 10037:  # no message found
            return Offset()
        raise unavailable(f"the offset can not be read: {error.get('description')}", BusReason.REFUSED)
    message = answer["message"]
    return Offset.decode(base64.b64decode(message["data"]), message["seq"])


class ShardLog:
    """What one shard remembers in `ENGINE`, for the one process that evaluates it. Not for concurrent calls.

    `load` first; then `commit`, each after the one before has returned.
    """

    def __init__(self, client: RequestClient, shard: int, *, writer: str = "") -> None:
        self.client = client
        self.shard = shard
        self.writer = writer or uuid.uuid4().hex
        self.offset = Offset()
        self.stored = 0  #: the position up to which every change is in its place
        self._packs = False  #: whether small commits are packed

    @property
    def settled(self) -> bool:
        """Whether the offset in the stream holds no changes any more, which a crash would have to look after."""
        return not self.offset.packed

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """Take over the shard: fence out whoever had it, finish a half-applied commit, and hand over every window.

        A later message of a window replaces an earlier one; an empty state means that it is forgotten. Replicas that
        lag are noticed, because the offset is the last message that the shard has then.

        Raises:
            Fenced: another process took it over meanwhile.
            BusUnavailable: the bus went away; load again.
            SetupError: the stream holds windows that no commit covers.
        """
        self._packs = await self._one_copy()
        await self._claim()
        await self._apply_prepared()
        if self.offset.packed:
            log.warning("shard %d: looking after the changes of the last commit", self.shard)
            await self._finish()
            await self._rewrite(packed=b"")
        position = 0
        for _ in range(100):
            position = await self._read(position, on_window)
            if position > self.offset.revision:
                raise await self._beyond(position)
            if position == self.offset.revision:
                self.stored = self.offset.seq
                return self.offset
            await asyncio.sleep(0.05)  # a replica that lags answered
        raise unavailable("no replica of the ENGINE stream is up to date", BusReason.TIMEOUT)

    async def commit(self, messages: Sequence[Message], *, seq: int, clock_us: int) -> Offset:
        """Store `messages` and the new position at once; tries until it knows that it is stored.

        Raises:
            Fenced: another process took the shard over; nothing of this was stored.
        """
        target = dataclasses.replace(
            self.offset,
            seq=seq,
            clock_us=clock_us,
            commit=uuid.uuid4().hex,
            writer=self.writer,
            prepared=0,
            applied=0,
            packed=b"",
        )
        if messages and self._packs and _small(messages):
            await self._store([], dataclasses.replace(target, packed=_packed(messages)))
            await self._spread(messages)
        elif len(messages) < BATCH_MESSAGES:
            await self._store(messages, target)
        else:
            packs = list(pack(messages, max_bytes=PACK_BYTES, max_messages=BATCH_MESSAGES - 1))
            prepared = [Message(prepared_subject(self.shard, index), data) for index, data in enumerate(packs)]
            await self._store(prepared, dataclasses.replace(target, prepared=len(packs)))
            await self._apply(packs)
        self.stored = seq
        return self.offset

    async def _one_copy(self) -> bool:
        answer = await self.client.api(f"STREAM.INFO.{ENGINE}")
        if error := answer.get("error"):
            raise unavailable(f"stream {ENGINE} is not there: {error.get('description')}", BusReason.REFUSED)
        return int(answer["config"].get("num_replicas") or 1) == 1

    async def _spread(self, messages: Sequence[Message]) -> None:
        """Publish the changes that the offset holds."""
        try:
            subject = offset_subject(self.shard)
            await publish_fenced(self.client, messages, subject=subject, expect=self.offset.revision)
        except (StaleBatch, BusUnavailable) as error:
            log.warning("shard %d: not all changes are known to be stored (%s)", self.shard, error)
            await self._rewrite()
            if isinstance(
                error, StaleBatch
            ):  # and the shard is ours: the stream was given replicas since it was loaded
                self._packs = False
            await self._finish()

    async def _finish(self) -> None:
        """Publish those changes of the offset that are missing. The offset must have been written since they were sent:
        then none of them is on its way any more.

        Raises:
            Fenced: another process took the shard over.
        """
        pause = RETRY_S[0]
        subject = offset_subject(self.shard)
        while True:
            try:
                for message in await missing(self.client, list(unpack(self.offset.packed))):
                    await publish_fenced(self.client, [message], subject=subject, expect=self.offset.revision)
                return
            except (StaleBatch, BusUnavailable) as error:
                log.warning("shard %d: changes are still not stored (%s); trying again", self.shard, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_S[1])
            await self._rewrite()

    async def _rewrite(self, **changes: Any) -> None:
        """Write the offset again under our name, as it is but for `changes`."""
        await self._store([], dataclasses.replace(self.offset, commit=uuid.uuid4().hex, writer=self.writer, **changes))

    async def _claim(self) -> None:
        """Write the offset as it is under our name. A commit that comes in between is the last one of who had it."""
        for attempt in range(CLAIMS):
            self.offset = await read_offset(self.client, self.shard)
            try:
                await self._rewrite()
                return
            except Fenced:
                if attempt == CLAIMS - 1:
                    raise

    async def _apply_prepared(self) -> None:
        if not self.offset.prepared:
            return
        packs = []
        for index in range(self.offset.prepared):
            subject = prepared_subject(self.shard, index)
            answer = await self.client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": subject}, timeout_s=10)
            if "message" not in answer:
                raise unavailable(f"{subject} can not be read: {answer.get('error')}", BusReason.REFUSED)
            packs.append(base64.b64decode(answer["message"].get("data", "")))
        log.warning("shard %d: finishing a commit of %d packs", self.shard, len(packs))
        await self._apply(packs)

    async def _apply(self, packs: Sequence[bytes]) -> None:
        """Apply the packs that are not applied yet; the last batch forgets them all by short-lived tombstones."""
        for index in range(self.offset.applied, len(packs)):
            target = dataclasses.replace(self.offset, applied=index + 1, commit=uuid.uuid4().hex, writer=self.writer)
            await self._store(list(unpack(packs[index])), target)
        forget = [Message(prepared_subject(self.shard, index), b"", 1) for index in range(len(packs))]
        await self._store(
            forget, dataclasses.replace(self.offset, prepared=0, applied=0, commit=uuid.uuid4().hex, writer=self.writer)
        )

    async def _store(self, messages: Sequence[Message], target: Offset) -> Offset:
        """One fenced batch, sent until its fate is known."""
        batch = [*messages, Message(offset_subject(self.shard), target.encode())]
        pause = RETRY_S[0]
        while True:
            try:
                revision = await publish_batch(self.client, batch, expect=self.offset.revision)
            except StaleBatch:
                found = await self._reread()
                if found.commit == target.commit:
                    revision = found.revision  # an earlier sending of this very batch was applied
                elif found.revision != self.offset.revision:
                    raise Fenced(
                        f"shard {self.shard}: process {found.writer} committed at position {found.seq}; "
                        "this one's state is void"
                    ) from None
                else:
                    log.info("shard %d: the commit met one still under way; sending it again", self.shard)
                    await asyncio.sleep(pause)
                    continue
            except BusUnavailable as error:
                log.warning("shard %d: commit not acknowledged (%s); sending it again", self.shard, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])
                continue
            self.offset = dataclasses.replace(target, revision=revision)
            return self.offset

    async def _reread(self) -> Offset:
        while True:
            try:
                return await read_offset(self.client, self.shard)
            except BusUnavailable:
                await asyncio.sleep(RETRY_S[0])

    async def _read(self, position: int, on_window: Callable[[str, str, bytes], None]) -> int:
        """Read the shard's messages after `position`; gives the last sequence that was seen."""
        prefix = shard_subjects(self.shard)[:-1] + "window."
        seen = position
        more = True

        def receive(message: Delivery) -> None:
            nonlocal seen
            seen = int(message.headers["Nats-Sequence"])
            if message.headers["Nats-Subject"].startswith(prefix):
                on_window(*decode_window(message.data))

        while more:
            request = {
                "seq": seen + 1,
                "next_by_subj": shard_subjects(self.shard),
                "batch": LOAD_MESSAGES,
                "max_bytes": LOAD_BYTES,
            }
            more = await self.client.read_stored(ENGINE, request, receive)
        return seen

    async def _beyond(self, position: int) -> WhenthenError:
        """What it means that there is something after the offset that this process has just written."""
        found = await read_offset(self.client, self.shard)
        if found.revision != self.offset.revision:
            return Fenced(f"shard {self.shard}: process {found.writer} took it over while it was being loaded")
        return SetupError(
            f"shard {self.shard}: stream {ENGINE} holds sequence {position} after the offset's {found.revision}, "
            "which no commit covers; the server stored part of an atomic batch. Restore the store from a backup"
        )


def _small(messages: Sequence[Message]) -> bool:
    return len(messages) <= SMALL_MESSAGES and sum(len(message.data) for message in messages) <= SMALL_BYTES


def _packed(messages: Sequence[Message]) -> bytes:
    return b"".join(pack(messages, max_bytes=PACK_BYTES, max_messages=SMALL_MESSAGES))
