"""How the messages of a commit are divided: what is one message, how many go into a batch or a pack. Pure.

Called by `engine.evaluation.commits.commit`, whose docstring says why there are three kinds of commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from whenthen.engine.bus.records import Message, pack
from whenthen.engine.evaluation.commits.window_parts import PART_BYTES

__all__ = ["BATCH_BYTES", "PACK_BYTES", "SMALL_BYTES", "SMALL_MESSAGES", "groups", "is_small", "packed", "total_bytes"]

#: a commit of at most so many messages and bytes is one message; beyond them a batch takes less time
SMALL_MESSAGES = 32
SMALL_BYTES = 64 << 10
#: of one batch: the server keeps it until its last message is there, in memory when there are replicas
BATCH_BYTES = 16 << 20
#: of one pack: far below the 8 MB of max_payload, and of servers with the default of 1 MB
PACK_BYTES = PART_BYTES


def is_small(messages: Sequence[Message]) -> bool:
    """Whether a commit of these is one message."""
    return len(messages) <= SMALL_MESSAGES and total_bytes(messages) <= SMALL_BYTES


def total_bytes(messages: Sequence[Message]) -> int:
    """Of their data."""
    return sum([len(message.data) for message in messages])


def groups(messages: Sequence[Message], *, max_messages: int) -> Iterator[list[Message]]:
    """Messages in order, in groups that a batch takes by number and bytes; one message alone may pass the bytes."""
    group: list[Message] = []
    size = 0
    for message in messages:
        if group and (len(group) >= max_messages or size + len(message.data) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message.data)
    if group:
        yield group


def packed(messages: Sequence[Message]) -> bytes:
    """The changes of a small commit in one."""
    return b"".join(pack(messages, max_bytes=PACK_BYTES, max_messages=SMALL_MESSAGES))
