"""The page of memory that a parent process and its child share, and what stands where on it.

Anonymous memory that a fork inherits: it needs no file, survives the end of the child however it ends, and goes with the parent. The
child writes its beat, its note of what is at hand and how it ends; the parent writes how the child before ended. Each word has
64 bits and one writer at a time, so that no lock is needed.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum

from whenthen.supervision.at_hand import TEXT_BYTES, AtHand, Item

__all__ = ["Cause", "Ended", "SharedPage"]

_BYTES = 4096
#: words 0 to 3 are the note of what is at hand, 4 to 7 that of the child before
_BEAT, _HANG_AFTER_MS, _READY, _FOR_GOOD, _DECLINED, _PORT, _CAUSE, _SIGNAL, _PID, _STARTS, _SUSPECT = range(8, 19)
_TEXT = 1024  #: where the text of the first note begins
_TEXT_BEFORE = _TEXT + TEXT_BYTES
_SUSPECT_TEXT = _TEXT_BEFORE + TEXT_BYTES
_SUSPECT_BYTES = 512


class Cause(IntEnum):
    """Why a child is gone that had something at hand."""

    NONE = 0
    HUNG = 1  #: its event loop stood still
    CRASHED = 2  #: it got a signal that only a defect sends


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the child before this one ended."""

    cause: Cause
    pid: int
    signal: int  #: 0 when it ended itself
    item: Item | None
    automation: str = ""  #: whose trigger was being looked at; empty when that is not known


class SharedPage:
    """One page. Made by the parent before the first fork; a process without a parent has one of its own."""

    def __init__(self, *, supervised: bool = False, why_not: str = "") -> None:
        self._map = mmap.mmap(-1, _BYTES)
        whole = memoryview(self._map)
        self._words = whole.cast("q")
        self.at_hand = AtHand(self._words[0:4], whole[_TEXT : _TEXT + TEXT_BYTES])
        self._suspect = whole[_SUSPECT_TEXT : _SUSPECT_TEXT + _SUSPECT_BYTES]
        self._before = AtHand(self._words[4:8], whole[_TEXT_BEFORE : _TEXT_BEFORE + TEXT_BYTES])
        self.supervised = supervised  #: whether a parent watches
        self.why_not = why_not  #: where none does: the reason, for the log

    # -- of the child

    def beat(self) -> None:
        """The event loop went round."""
        self._words[_BEAT] += 1

    def watch(self, hang_after_s: float) -> None:
        """From now on a beat that stands still for so long is a hang; 0 ends that."""
        self._words[_HANG_AFTER_MS] = int(hang_after_s * 1000)

    def mark_ready(self, port: int) -> None:
        """The process does its work, and listens on `port`; 0 for none."""
        self._words[_PORT] = port
        self._words[_READY] = 1

    def mark_for_good(self) -> None:
        """The process ends for a reason that starting it again does not mend."""
        self._words[_FOR_GOOD] = 1

    def decline(self) -> None:
        """The settings want no parent: it is to do the work itself."""
        self._words[_DECLINED] = 1

    def note_hang(self, automation: str = "") -> Item | None:
        """The event loop stands still: keep what is at hand, which may change while the process ends. `automation` is at fault, as
        far as that is known."""
        item = self.at_hand.read()
        name = automation.encode(errors="replace")[:_SUSPECT_BYTES]
        self._suspect[: len(name)] = name
        self._words[_SUSPECT] = len(name)
        self._before.write(item)
        self._words[_CAUSE] = Cause.HUNG
        return item

    def forget_before(self) -> None:
        """What the child before left is dealt with, or was no hang."""
        self._words[_CAUSE] = Cause.NONE

    @property
    def before(self) -> Ended | None:
        """How the child before this one ended, if it hung or crashed and nobody has dealt with that."""
        if self._words[_CAUSE] == Cause.NONE:
            return None
        return Ended(
            cause=Cause(self._words[_CAUSE]),
            pid=self._words[_PID],
            signal=self._words[_SIGNAL],
            item=self._before.read(),
            automation=bytes(self._suspect[: self._words[_SUSPECT]]).decode(errors="replace"),
        )

    @property
    def port(self) -> int:
        """Where an earlier child listened; 0 for nowhere."""
        return self._words[_PORT]

    @property
    def restarts(self) -> int:
        """How often the process was started again."""
        return max(0, self._words[_STARTS] - 1)

    # -- of the parent

    def begin_child(self) -> None:
        """A child is about to be forked."""
        self.at_hand.nothing()
        self._words[_HANG_AFTER_MS] = self._words[_READY] = self._words[_FOR_GOOD] = 0
        self._words[_STARTS] += 1

    def note_end(self, pid: int, signal: int, *, crashed: bool) -> None:
        """The child is gone; keep what it had at hand if it crashed. What an earlier one left and nobody dealt with stays."""
        if crashed and self._words[_CAUSE] == Cause.NONE:
            self._before.write(self.at_hand.read())
            self._words[_SUSPECT] = 0
            self._words[_CAUSE] = Cause.CRASHED
        self._words[_PID], self._words[_SIGNAL] = pid, signal

    @property
    def beats(self) -> int:
        return self._words[_BEAT]

    @property
    def hang_after_s(self) -> float:
        """As `watch` was told."""
        return self._words[_HANG_AFTER_MS] / 1000

    @property
    def ready(self) -> bool:
        return bool(self._words[_READY])

    @property
    def for_good(self) -> bool:
        return bool(self._words[_FOR_GOOD])

    @property
    def declined(self) -> bool:
        return bool(self._words[_DECLINED])
