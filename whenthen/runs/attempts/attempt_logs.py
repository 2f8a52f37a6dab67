"""What the log of a run is made of: the lines of its attempts, in batches, and the line that stands for what is left out of them. Pure.

Written by `runs.run_output`; kept by the log stores (`runs.stores.LogStore`), which read gaps with `LogGaps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["PLACE_BITS", "LogBefore", "LogGaps", "LogLine", "LogSlice", "stored_bytes"]

PLACE_BITS: Final = 12  #: of a place in a log for the line within a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a run wrote. `stream` is stdout, stderr, log for what the run logged, or system for what the worker says about it."""

    at: str
    stream: str
    text: str
    attempt: int = 1
    level: int = 0  #: of a line that was logged, as `logging` numbers them
    name: str = ""  #: of the task run that logged it


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBefore:
    """What an attempt had written before some lines of it, kept or not. By it a reader knows that something is left out."""

    lines: int = 0
    bytes: int = 0


def _left_out(first: LogLine, before: LogBefore, last: LogBefore | None) -> LogLine | None:
    """The line that stands for what is not kept before `first`, with `before` before it; `last` is what the attempt had written up to
    the line that is read before it, None when that is another attempt's."""
    known = last or LogBefore()
    lines, size = before.lines - known.lines, before.bytes - known.bytes
    if lines <= 0:
        return None
    text = f"{lines} lines ({size} bytes) are left out here: of a long log its beginning and its end are kept"
    return LogLine(at=first.at, stream="system", text=text, attempt=first.attempt)


class LogGaps:
    """Finds what is left out of a log that is read batch by batch, from its beginning or from the middle of it."""

    def __init__(self) -> None:
        self._attempt = 0
        self._last: LogBefore | None = None

    def gap(self, lines: Sequence[LogLine], before: LogBefore | None) -> LogLine | None:
        """The line that stands for what is missing before the next batch."""
        first = lines[0]
        same = self._attempt == first.attempt
        found = _left_out(first, before, self._last if same else None) if before is not None else None
        known = before or (self._last if same and self._last is not None else LogBefore())
        self._attempt = first.attempt
        self._last = LogBefore(
            lines=known.lines + len(lines), bytes=known.bytes + sum(stored_bytes(line) for line in lines)
        )
        return found


def stored_bytes(line: LogLine) -> int:
    """What a line counts for: its text and its end."""
    return len(line.text.encode(errors="replace")) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Some lines of a log, in order. `next` is the place behind them, `more` whether lines follow that are stored already."""

    lines: list[LogLine]
    next: int
    more: bool
