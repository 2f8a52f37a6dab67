"""Windows larger than a message of the store: cut into parts, and put together again. Pure.

Called by the commit, which stores all parts of a window and its head as one, and when a shard is loaded. A window that fits is one
message, as ever. One that does not is a head, `{"parts": 3, "of": "<generation>", "bytes": n}` and the first slice behind that
line, on the window's own subject, and parts, `<generation>` and a slice behind that line, on subjects of their own. A part of
another generation is a leftover and never read; what a window that shrinks leaves behind becomes a tombstone in the same commit.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson

from whenthen.engine.bus.records import Message, decode_window
from whenthen.engine.bus.subjects import shard_subjects, window_part_subject
from whenthen.engine.evaluation.commits.commit_messages import LONGEST_PLACE_S
from whenthen.schemas.errors import SetupError

__all__ = ["MARGIN_BYTES", "MAX_WINDOW_BYTES", "PART_BYTES", "WindowParts"]

log = logging.getLogger(__name__)

#: of one slice; far below the 8 MB of the embedded server's messages, and of the 1 MB of a stock server's
PART_BYTES = 700_000
#: taken off the largest message: subject and frame in a pack, the line of a part, what an executor adds to a task
MARGIN_BYTES = 16 << 10
#: a larger window is kept by nobody: each change of it would write it again
MAX_WINDOW_BYTES = 64 << 20
TOMBSTONE_S = 60


class _Head(NamedTuple):
    """The line of a window that is in parts."""

    parts: int  #: this one included
    of: str  #: the generation, which all parts bear
    bytes: int  #: of all slices together


class WindowParts:
    """How many parts each window of a shard has in the store, and the parts that are read while the shard is loaded."""

    def __init__(self, shard: int) -> None:
        prefix = shard_subjects(shard)[:-1]
        self._windows = prefix + "window."
        self._part = prefix + "part."
        self._parts: dict[str, int] = {}  #: beyond the head, by the window's subject; of windows that are cut
        self._plain = False  #: whether `cut` gave back what it was given, and no window is in parts
        self._heads: dict[str, bytes] = {}
        self._read: dict[str, bytes] = {}

    def cut(self, messages: Sequence[Message], limit: int) -> list[Message]:
        """`messages` with every window of more than `limit` bytes in parts of at most so many, and tombstones for parts that
        windows do not need any more. A message that is no window is left as it is."""
        limit = min(limit, PART_BYTES)
        self._plain = not self._parts and max([len(message.data) for message in messages], default=0) <= limit
        if self._plain:
            return list(messages)
        found: list[Message] = []
        for message in messages:
            if not message.subject.startswith(self._windows):
                found.append(message)
                continue
            before = self._parts.get(message.subject, 0)
            if before and message.ttl_s:  # its head must not be there again when its parts are not
                message = dataclasses.replace(message, ttl_s=max(message.ttl_s, LONGEST_PLACE_S))
            pieces = _slices(message, limit)
            found += pieces
            found += [
                Message(window_part_subject(message.subject, number), b"", TOMBSTONE_S)
                for number in range(len(pieces), before + 1)
            ]
        return found

    def stored(self, messages: Sequence[Message]) -> None:
        """`messages`, which `cut` gave last, are in the store."""
        if self._plain:
            return  # as nearly always
        for message in messages:
            subject = message.subject
            if subject.startswith(self._windows):
                head = _head(message.data)
                if head is not None:
                    self._parts[subject] = head.parts - 1
                elif self._parts:
                    self._parts.pop(subject, None)

    def receive(self, subject: str, data: bytes, on_window: Callable[[str, str, bytes], None]) -> None:
        """Take a message of the shard that is being loaded; gives a window that is one message to `on_window`."""
        if subject.startswith(self._part):
            self._read[subject] = data
        elif subject.startswith(self._windows):
            if data.startswith(b"{"):
                self._heads[subject] = data
            else:
                self._heads.pop(subject, None)
                _give(subject, data, on_window)

    def finish(self, on_window: Callable[[str, str, bytes], None]) -> None:
        """Everything was read: put the windows together that are in parts.

        Raises:
            SetupError: a part is missing.
        """
        for subject, data in self._heads.items():
            try:
                head = _head(data)
            except (ValueError, KeyError, TypeError) as error:
                log.error("%s: the head of a window can not be read and is passed over: %r", subject, error)
                continue
            assert head is not None
            slices = [data.partition(b"\n")[2]]
            for number in range(1, head.parts):
                part = window_part_subject(subject, number)
                generation, _, more = self._read.get(part, b"").partition(b"\n")
                if generation.decode() != head.of:
                    raise SetupError(
                        f"{part}: part {number} of {head.parts} of a window is missing; "
                        "the server stored part of a commit. Restore the store from a backup"
                    )
                slices.append(more)
            whole = b"".join(slices)
            if len(whole) != head.bytes:
                raise SetupError(
                    f"{subject}: the parts of a window have {len(whole)} bytes and not {head.bytes}; "
                    "restore the store from a backup"
                )
            self._parts[subject] = head.parts - 1
            _give(subject, whole, on_window)
        self._heads.clear()
        self._read.clear()


def _give(subject: str, data: bytes, on_window: Callable[[str, str, bytes], None]) -> None:
    """Hand a window over. One that does not say whose it is, is passed over and left where it is: the others must not wait for it."""
    try:
        window = decode_window(data)
        if not (isinstance(window[0], str) and isinstance(window[1], str)):
            raise TypeError("trigger or key is no text")
    except (ValueError, TypeError) as error:
        log.error("%s: a window does not say its trigger and key, and is passed over: %r", subject, error)
        return
    on_window(*window)


def _slices(message: Message, limit: int) -> list[Message]:
    """A window as one message, or as its parts and, last, its head."""
    data = message.data
    if len(data) <= limit:
        return [message]
    generation = uuid.uuid4().hex[:16]
    count = -(-len(data) // limit)
    parts = [
        Message(
            window_part_subject(message.subject, number),
            generation.encode() + b"\n" + data[number * limit : (number + 1) * limit],
            message.ttl_s,
        )
        for number in range(1, count)
    ]
    line = orjson.dumps({"parts": count, "of": generation, "bytes": len(data)})
    return [*parts, Message(message.subject, line + b"\n" + data[:limit], message.ttl_s)]


def _head(data: bytes) -> _Head | None:
    """The line of a window that is in parts; None of one that is not, whose line is a list."""
    if not data.startswith(b"{"):
        return None
    fields = orjson.loads(data.partition(b"\n")[0])
    return _Head(parts=fields["parts"], of=fields["of"], bytes=fields["bytes"])
