"""The commit: windows, firings, action tasks and the shard's offset move together, or not at all.

Called by the evaluation loop. One commit is one atomic batch (NATS ADR-50) to `ENGINE` whose last message is the
shard's offset, with the expected last sequence of the offset subject: whoever lost the shard is refused whole
(`Fenced`).

**Lost acknowledgements.** Each commit has a name, which is in the offset message. A commit without an answer is sent
again as it is; if the first one had been applied, the second is refused, and the offset that is read back bears its
name. So a commit that comes through late, from a buffer or after a leader change, is applied once.

**More than 1,000 messages** (the server's limit). All of them are packed into a few *prepared* messages, and one
batch of these and the offset (`prepared: n, applied: 0`) is the commit: from then on nothing else can happen to the
shard. Then each pack is applied by an ordinary batch of its messages and the offset (`applied: k`), each fenced like
any other. A shard that is loaded with packs left applies these first. Tried and dropped: several firings in one
message (executors could not acknowledge, retry and bury each by itself), and publishing the rest outside the
transaction (twice after a crash).
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence

import orjson
from nats.aio.msg import Msg

from whenthen.engine.link import Link, LinkReason, unavailable
from whenthen.engine.records import Message, Offset, decode_window, pack, unpack
from whenthen.engine.streams import ENGINE
from whenthen.engine.subjects import offset_subject, prepared_subject, shard_subjects
from whenthen.schemas.errors import BusUnavailable, SetupError, WhenthenError

__all__ = ["BATCH_MESSAGES", "Fenced", "ShardLog", "StaleBatch", "publish_batch", "read_offset"]

log = logging.getLogger(__name__)

#: messages of an atomic batch, the server's limit
BATCH_MESSAGES = 1000
#: of one pack: far below the 8 MB of max_payload, and of servers with the default of 1 MB
PACK_BYTES = 700_000
ANSWER_S = 2.5  #: how long the answer to a commit may take, and this much longer for each so many bytes
ANSWER_BYTES_PER_S = 10 << 20
YIELD_BYTES = 1 << 20  #: after so much was written, let the connection send it
RETRY_S = (0.05, 0.5)  #: first and longest pause before a commit is sent again
CLAIMS = 20  #: how often a shard is claimed before another process is believed to have it
LOAD_MESSAGES = 10_000  #: of one request of the loader
LOAD_BYTES = 16 << 20
WRONG_SEQUENCE = frozenset({10071, 10164})
FULL = frozenset({10023, 10028, 10047, 10054, 10077, 10122})


class Fenced(WhenthenError):
    """Another process has committed for this shard. Whatever is held in memory is void; load the shard again."""

    reason = "fenced"


class StaleBatch(Exception):
    """The expected sequence of the offset is not the last one."""


async def publish_batch(link: Link, messages: Sequence[Message], *, expect: int | None) -> int:
    """Publish up to 1,000 messages as one atomic batch and give the last one's sequence.

    `expect` is the last sequence of the last message's subject, 0 for none; None does not ask.

    Raises:
        StaleBatch: it is another one; nothing was stored.
        BusUnavailable: not stored, or not known to be.
    """
    batch = uuid.uuid4().hex
    last = len(messages)
    # a leader that died does not answer; whoever sends a batch sends it again, so a short wait costs nothing
    timeout_s = ANSWER_S + sum(len(message.data) for message in messages) / ANSWER_BYTES_PER_S
    size = 0
    for number, message in enumerate(messages, 1):
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)} if last > 1 else {}
        if message.ttl_s:
            headers["Nats-TTL"] = f"{message.ttl_s}s"
        if number == last:
            if last > 1:  # one message is atomic by itself, and far cheaper
                headers["Nats-Batch-Commit"] = "1"
            if expect is not None:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expect)
            answer = await link.request(message.subject, message.data, headers or None, timeout_s=timeout_s)
            break
        await link.publish(message.subject, message.data, headers)
        size += len(message.data)
        if size > YIELD_BYTES:
            size = 0
            await asyncio.sleep(0)
    if not answer.data:
        raise unavailable("the server did not commit the batch", LinkReason.REFUSED)
    result = orjson.loads(answer.data)
    error = result.get("error")
    if error is None:
        return int(result["seq"])
    if error.get("err_code") in WRONG_SEQUENCE:
        raise StaleBatch(error.get("description"))
    reason = LinkReason.FULL if error.get("err_code") in FULL else LinkReason.REFUSED
    raise unavailable(f"commit refused: {error.get('description')} ({error.get('err_code')})", reason)


async def read_offset(link: Link, shard: int) -> Offset:
    """A shard's offset as the stream's leader has it.

    Raises:
        BusUnavailable: no answer.
    """
    answer = await link.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": offset_subject(shard)})
    if error := answer.get("error"):
        if error.get("err_code") == 10037:  # no message found
            return Offset()
        raise unavailable(f"the offset can not be read: {error.get('description')}", LinkReason.REFUSED)
    message = answer["message"]
    return Offset.decode(base64.b64decode(message["data"]), message["seq"])


class ShardLog:
    """What one shard remembers in `ENGINE`, for the one process that evaluates it. Not for concurrent calls.

    `load` first; then `commit`, each after the one before has returned.
    """

    def __init__(self, link: Link, shard: int, *, writer: str = "") -> None:
        self.link = link
        self.shard = shard
        self.writer = writer or uuid.uuid4().hex
        self.offset = Offset()

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """Take over the shard: fence out whoever had it, finish a half-applied commit, and hand over every window.

        A later message of a window replaces an earlier one; an empty state means that it is forgotten. Replicas that
        lag are noticed, because the offset is the last message of each commit.

        Raises:
            Fenced: another process took it over meanwhile.
            BusUnavailable: the bus went away; load again.
            SetupError: the stream holds windows that no commit covers.
        """
        await self._claim()
        await self._apply_prepared()
        position = 0
        for _ in range(100):
            position = await self._read(position, on_window)
            if position > self.offset.revision:
                raise await self._beyond(position)
            if position == self.offset.revision:
                return self.offset
            await asyncio.sleep(0.05)  # a replica that lags answered
        raise unavailable("no replica of the ENGINE stream is up to date", LinkReason.TIMEOUT)

    async def commit(self, messages: Sequence[Message], *, seq: int, clock_us: int) -> Offset:
        """Store `messages` and the new position at once; tries until it knows that it is stored.

        Raises:
            Fenced: another process took the shard over; nothing of this was stored.
        """
        target = dataclasses.replace(
            self.offset, seq=seq, clock_us=clock_us, commit=uuid.uuid4().hex, writer=self.writer, prepared=0, applied=0
        )
        if len(messages) < BATCH_MESSAGES:
            return await self._store(messages, target)
        packs = list(pack(messages, max_bytes=PACK_BYTES, max_messages=BATCH_MESSAGES - 1))
        prepared = [Message(prepared_subject(self.shard, index), data) for index, data in enumerate(packs)]
        await self._store(prepared, dataclasses.replace(target, prepared=len(packs)))
        await self._apply(packs)
        return self.offset

    async def _claim(self) -> None:
        """Write the offset as it is under our name. A commit that comes in between is the last one of who had it."""
        for attempt in range(CLAIMS):
            self.offset = await read_offset(self.link, self.shard)
            try:
                await self._store([], dataclasses.replace(self.offset, commit=uuid.uuid4().hex, writer=self.writer))
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
            answer = await self.link.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": subject}, timeout_s=10)
            if "message" not in answer:
                raise unavailable(f"{subject} can not be read: {answer.get('error')}", LinkReason.REFUSED)
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
                revision = await publish_batch(self.link, batch, expect=self.offset.revision)
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
                return await read_offset(self.link, self.shard)
            except BusUnavailable:
                await asyncio.sleep(RETRY_S[0])

    async def _read(self, position: int, on_window: Callable[[str, str, bytes], None]) -> int:
        """Read the shard's messages after `position`; gives the last sequence that was seen."""
        prefix = shard_subjects(self.shard)[:-1] + "window."
        seen = position
        more = True

        def receive(message: Msg) -> bool:
            nonlocal seen, more
            headers = message.headers or {}
            status = headers.get("Status")
            if status is None:
                seen = int(headers["Nats-Sequence"])
                if headers["Nats-Subject"].startswith(prefix):
                    on_window(*decode_window(message.data))
                return True
            if status == "204":
                more = headers.get("Nats-Num-Pending", "0") != "0"
            elif status == "404":
                more = False
            else:
                raise unavailable(f"windows can not be read: {headers.get('Description')}", LinkReason.REFUSED)
            return False

        while more:
            request = {
                "seq": seen + 1,
                "next_by_subj": shard_subjects(self.shard),
                "batch": LOAD_MESSAGES,
                "max_bytes": LOAD_BYTES,
            }
            await self.link.stream_of(f"$JS.API.DIRECT.GET.{ENGINE}", orjson.dumps(request), receive)
        return seen

    async def _beyond(self, position: int) -> WhenthenError:
        """What it means that there is something after the offset that this process has just written."""
        found = await read_offset(self.link, self.shard)
        if found.revision != self.offset.revision:
            return Fenced(f"shard {self.shard}: process {found.writer} took it over while it was being loaded")
        return SetupError(
            f"shard {self.shard}: stream {ENGINE} holds sequence {position} after the offset's {found.revision}, "
            "which no commit covers; the server stored part of an atomic batch. Restore the store from a backup"
        )
