"""The fence of a shard: its offset, and the batches that are stored as long as no other process has written it.

Each batch ends with the offset, under the expected last sequence of its subject. A batch without an answer is sent again unchanged; if
the first one had been applied, the second is refused, and the offset that is read back bears the id of its commit. What a commit consists
of is decided in `engine.evaluation.commits.commit`, which calls this.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Sequence

from whenthen.engine.bus.batches import StaleBatch
from whenthen.engine.bus.records import Message, Offset
from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import offset_subject
from whenthen.engine.evaluation.commits.commit_division import total_bytes
from whenthen.engine.evaluation.log_ports import CommitRefused, EngineStore, Fenced
from whenthen.schemas.errors import BusUnavailable

__all__ = ["RETRY_S", "SAME_REFUSALS", "FencedOffset", "read_offset"]

log = logging.getLogger(__name__)

RETRY_S = (0.05, 0.5)  #: first and longest pause before a commit is sent again
SAME_REFUSALS = 20  #: after so many in a row the server is believed to mean the commit, and not its own state
FULL_S = 2.0  #: longest pause while the stream is full and nothing may go
CLAIMS = 20  #: how often a shard is claimed before another process is believed to have it


async def read_offset(store: EngineStore, shard: int) -> Offset:
    """A shard's offset as the stream's leader has it.

    Raises:
        BusUnavailable: no answer.
    """
    record = await store.last(offset_subject(shard))
    return Offset() if record is None else Offset.decode(record.data, record.seq)


class FencedOffset:
    """The offset of one shard, for the one process that has claimed it."""

    def __init__(self, store: EngineStore, shard: int, *, writer: str) -> None:
        self.now = Offset()  #: the last one that is known to be stored
        self.full = False  #: whether a batch waits because the store is full and holds nothing that may go
        self._writer = writer
        self._engine = store
        self._shard = shard

    async def claim(self) -> None:
        """Write the offset unchanged as this writer. A commit that comes in between is the last one of the previous writer."""
        for attempt in range(CLAIMS):
            self.now = await read_offset(self._engine, self._shard)
            try:
                await self.write(self.now)
                return
            except Fenced:
                if attempt == CLAIMS - 1:
                    raise

    async def write(self, offset: Offset, messages: Sequence[Message] = ()) -> None:
        """Store `messages` and an offset under a commit id of its own. Errors: see `store`."""
        await self.store(messages, dataclasses.replace(offset, commit=uuid.uuid4().hex, writer=self._writer))

    async def store(self, messages: Sequence[Message], target: Offset) -> bool:
        """One fenced batch, sent until its outcome is known. False when it was an earlier sending of the same commit, maybe with
        other messages, that was applied.

        Raises:
            Fenced: another process took the shard over.
            MessageTooLarge: nothing of this sending was stored.
            CommitRefused: the server refuses it again and again.
        """
        batch = [*messages, Message(offset_subject(self._shard), target.encode())]
        pause = RETRY_S[0]
        refused = 0
        while True:
            try:
                revision = await self._engine.publish_batch(batch, expect=self.now.revision)
            except StaleBatch:
                found = await self._read()
                if found.commit == target.commit:
                    self.now = found  # an earlier sending of this very commit was applied
                    self.full = False
                    return False
                if found.revision != self.now.revision:
                    raise Fenced(
                        f"shard {self._shard}: process {found.writer} committed at position {found.seq}; "
                        "this one's state is void"
                    ) from None
                log.info(
                    "shard %d: the server still stores a message of the same expectation; sending the commit again",
                    self._shard,
                )
                await asyncio.sleep(pause)
                continue
            except BusUnavailable as error:
                log.warning("shard %d: commit not acknowledged (%s); sending it again", self._shard, error)
                refused = refused + 1 if error.reason == BusReason.REFUSED else 0
                if refused >= SAME_REFUSALS:
                    raise CommitRefused(f"shard {self._shard}: {error}") from error
                longest = RETRY_S[1]
                if error.reason == BusReason.FULL and not await self.make_room(total_bytes(batch)):
                    longest = FULL_S
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            self.now = dataclasses.replace(target, revision=revision)
            self.full = False
            return True

    async def make_room(self, needed: int) -> bool:
        """Make room for `needed` bytes in a stream that is full; whether anything went."""
        try:
            gone = await self._engine.make_room(needed)
        except BusUnavailable as error:
            log.warning("shard %d: no room could be made: %s", self._shard, error)
            return False
        if gone:
            log.warning(
                "shard %d: %s is full; the oldest %d firings and outcomes were deleted to make room for a commit",
                self._shard,
                ENGINE,
                gone,
            )
        elif not self.full:
            log.error(
                "shard %d: %s is full, and all that is left in it is needed: windows, waiting tasks, dead letters. "
                "Nothing is evaluated until there is room; raise engine_bytes, or drop dead letters",
                self._shard,
                ENGINE,
            )
        self.full = not gone
        return gone > 0

    async def _read(self) -> Offset:
        while True:
            try:
                return await read_offset(self._engine, self._shard)
            except BusUnavailable:
                await asyncio.sleep(RETRY_S[0])
