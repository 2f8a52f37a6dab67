"""The memory of a shard as one process with one lock would have it: what the commits over NATS are compared with.

Used by tests only, over the server of `engine.evaluation.memory_server`. The guarantees are those of `engine.evaluation.log_ports`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Callable, Sequence
from typing import Unpack

from whenthen.engine.bus.batches import HEADER_BYTES, MessageTooLarge, StaleBatch
from whenthen.engine.bus.records import Message, NewPosition, Offset
from whenthen.engine.bus.subjects import FIRINGS, offset_subject, shard_subjects, window_subject
from whenthen.engine.evaluation.commits.window_parts import MARGIN_BYTES, WindowParts
from whenthen.engine.evaluation.log_ports import CommitRefused, Fenced
from whenthen.engine.evaluation.memory_server import MemoryServer

__all__ = ["MemoryShardLog"]


class MemoryShardLog:
    """A `ShardLog` whose commits are atomic whatever their size, as one process with one lock would have them.

    The model of `FencedShardLog`: a process that loads the shard, or performs its tasks, must see no difference.
    """

    carries_changes = False

    def __init__(self, server: MemoryServer, shard: int) -> None:
        self.shard = shard
        self.offset = Offset()
        self.stored = 0
        self._server = server
        self._parts = WindowParts(shard)

    @property
    def largest(self) -> int:
        """See `ShardLog.largest`."""
        return self._server.max_payload - MARGIN_BYTES - HEADER_BYTES

    @property
    def full(self) -> bool:
        """See `ShardLog.full`. It makes room, or fails."""
        return False

    async def takes(self, messages: Sequence[Message]) -> bool:
        """See `ShardLog.takes`."""
        return all(len(message.data) <= self.largest for message in self._parts.cut(messages, self.largest))

    async def firings_after(self, trigger: str, receive: Callable[[bytes], None]) -> None:
        """See `ShardLog.firings_after`."""
        record = self._server.get(window_subject(self.shard, trigger, ""))
        for message in self._server.read(f"{FIRINGS}>", 0 if record is None else record.seq):
            if message.data:
                receive(message.data)

    async def load(self, on_window: Callable[[str, str, bytes], None]) -> Offset:
        """See `ShardLog.load`."""
        subject = offset_subject(self.shard)
        found = self._server.get(subject)
        if found is not None:
            self.offset = Offset.decode(found.data or b"", found.seq)
        await self.commit([], seq=self.offset.seq, clock_us=self.offset.clock_us, rules=self.offset.rules)
        self._parts = WindowParts(self.shard)
        for message in self._server.read(shard_subjects(self.shard), 0):
            self._parts.receive(message.subject, message.data or b"", on_window)
        self._parts.finish(on_window)
        return self.offset

    async def commit(self, messages: Sequence[Message], **to: Unpack[NewPosition]) -> Offset:
        """See `ShardLog.commit`."""
        await asyncio.sleep(0)
        subject = offset_subject(self.shard)
        target = self.offset.moved(commit=uuid.uuid4().hex, **to)
        pieces = self._parts.cut(messages, self.largest)
        try:
            revision = self._server.store(
                [*pieces, Message(subject, target.encode())], subject=subject, expect=self.offset.revision, whole=True
            )
        except StaleBatch:
            raise Fenced(f"shard {self.shard}: another process committed; this one's state is void") from None
        except MessageTooLarge as error:
            raise CommitRefused(f"shard {self.shard}: {error}") from error
        self._parts.stored(pieces)
        self.offset = dataclasses.replace(target, revision=revision)
        self.stored = target.seq
        return self.offset
