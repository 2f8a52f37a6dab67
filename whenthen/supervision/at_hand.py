"""What the event loop is working on at this moment: a note of a few bytes, made before the work begins.

The note lies in memory that the parent process shares (`shared_page`), so that it outlives the process that made it. One thread
makes notes, and one note at a time: what runs on the event loop without giving it back. Writing one costs about 0.1 µs.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

__all__ = ["TEXT_BYTES", "AtHand", "Item", "Work", "noted"]

TEXT_BYTES = 1000  #: of a note; a longer text is cut
KIND, SHARD, POSITION, LENGTH = range(4)  #: the words of a note

T = TypeVar("T")


class Work(IntEnum):
    """What kind of work a note is about."""

    NOTHING = 0
    EVENT = 1  #: a shard evaluates the message at a position of the event log
    ACTION = 2  #: the text is the key of the action
    REQUEST = 3  #: the text is the path of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A note as it was read."""

    kind: Work
    shard: int = 0
    position: int = 0
    text: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Work.EVENT:
                return f"the event at position {self.position}, in shard {self.shard}"
            case Work.ACTION:
                return f"action {self.text}"
            case Work.REQUEST:
                return f"a request to {self.text}"
            case _:
                return "nothing that is known"


class AtHand:
    """The note, in `words` (64 bits each) and `text`; in memory of its own when none is given."""

    __slots__ = ("_text", "_words", "_written")

    def __init__(self, words: memoryview | None = None, text: memoryview | None = None) -> None:
        self._words = memoryview(bytearray(8 * 4)).cast("q") if words is None else words
        self._text = memoryview(bytearray(TEXT_BYTES)) if text is None else text
        self._written: bytes | None = None  #: the text that is there

    def event(self, shard: int, position: int) -> None:
        """The event loop begins with a message of the event log."""
        words = self._words
        words[SHARD] = shard
        words[POSITION] = position
        words[KIND] = 1

    def begin(self, kind: Work, text: bytes) -> None:
        """The event loop begins with an action or a request."""
        words = self._words
        if text != self._written:  # which it often is: of requests to one webhook
            length = min(len(text), TEXT_BYTES)
            words[KIND] = 0
            self._text[:length] = text[:length]
            words[LENGTH] = length
            self._written = text
        words[KIND] = kind

    def nothing(self) -> None:
        """What was at hand is done, or waits."""
        self._words[KIND] = 0

    def read(self) -> Item | None:
        """The note as it stands; None when nothing is at hand."""
        words = self._words
        kind = words[KIND]
        if kind not in (Work.EVENT, Work.ACTION, Work.REQUEST):
            return None
        if kind == Work.EVENT:
            return Item(kind=Work.EVENT, shard=words[SHARD], position=words[POSITION])
        length = min(max(words[LENGTH], 0), TEXT_BYTES)
        return Item(kind=Work(kind), text=bytes(self._text[:length]).decode(errors="replace"))

    def write(self, item: Item | None) -> None:
        """Make `item` the note."""
        if item is None:
            self.nothing()
        elif item.kind is Work.EVENT:
            self.event(item.shard, item.position)
        else:
            self.begin(item.kind, item.text.encode())


@types.coroutine
def noted(at_hand: AtHand, kind: Work, text: bytes, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await `work`, with a note for as long as it has the event loop: it is taken away whenever the work waits."""
    thrown: BaseException | None = None
    sent: Any = None
    begin, words = at_hand.begin, at_hand._words  # twice for every request
    while True:
        begin(kind, text)
        try:
            waits_for = work.send(sent) if thrown is None else work.throw(thrown)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            words[KIND] = 0
        sent = thrown = None
        try:
            sent = yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - thrown into the work, whose matter it is
            thrown = error
