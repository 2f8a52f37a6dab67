"""Copies the output of a run to its log: split into lines, bounded, secrets masked, stored in batches.

Called by `worker`. While the store is unavailable, the run's pipes fill up and it blocks (backpressure). Of output over the limit
the beginning and the end are kept: what passes the limit is held here, its newest part alone, and stored when the attempt has ended;
then what was stored between is removed. The store says in a line what is left out (`LogGaps`).
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from whenthen.cancellation import end_task
from whenthen.runs.attempts.attempt_logs import LogBefore, LogLine, stored_bytes
from whenthen.runs.stores import LogStore
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.times import format_time

__all__ = ["LogLimits", "RunLog"]

log = logging.getLogger(__name__)

MASK = "***"
LEAST_SECRET = 4  #: characters of a secret that is masked; shorter ones would take the log apart


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    head_bytes: int = 1024 * 1024  #: of one attempt's output, whatever comes after them
    head_lines: int = 25_000  #: a stored line takes some 170 bytes more than its text
    tail_bytes: int = 9 * 1024 * 1024  #: of one attempt's output, the last ones; in between nothing is kept
    tail_lines: int = 225_000
    line_chars: int = 16 * 1024  #: longer lines are split
    batch_lines: int = 500
    batch_chars: int = 64 * 1024
    batch_wait_s: float = 0.1
    retry_pause_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Lines that are stored together."""

    lines: list[LogLine]
    bytes: int
    before: LogBefore


class _Tail:
    """How much the batches at the end of a log have together, the oldest first."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int, list[int]]] = deque()
        self._lines = 0
        self._bytes = 0

    def add(self, batch: _Batch, names: list[int]) -> None:
        self._batches.append((len(batch.lines), batch.bytes, names))
        self._lines += len(batch.lines)
        self._bytes += batch.bytes

    def takes(self, batch: _Batch, limits: LogLimits) -> bool:
        """Whether there is room for a batch more."""
        return self._bytes + batch.bytes <= limits.tail_bytes and self._lines + len(batch.lines) <= limits.tail_lines

    def oldest_goes(self, limits: LogLimits) -> bool:
        """Whether there is enough without the oldest batch."""
        if len(self._batches) < 2:
            return False
        lines, size, _ = self._batches[0]
        return self._bytes - size >= limits.tail_bytes or self._lines - lines >= limits.tail_lines

    def pop(self) -> list[int]:
        """Remove the oldest batch; gives its names."""
        lines, size, names = self._batches.popleft()
        self._lines -= lines
        self._bytes -= size
        return names


class Reader(Protocol):
    async def read(self, n: int = -1) -> bytes: ...


class RunLog:
    """The log of one attempt of one run."""

    def __init__(
        self,
        store: LogStore,
        run_id: str,
        attempt: int,
        *,
        clock: Callable[[], datetime],
        limits: LogLimits | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """`secrets` are masked, but for those that are too short for that."""
        self.last_error_line = ""  #: the last line of stderr with text in it
        self._store = store
        self._run_id = run_id
        self._attempt = attempt
        self._clock = clock
        self._limits = limits or LogLimits()
        self._secrets = _masked(secrets)
        self._waiting: list[LogLine] = []
        self._waiting_chars = 0
        self._written = LogBefore()  #: what was taken in
        self._head = LogBefore()
        self._stored_tail = _Tail()  #: what is stored beyond the head, with the names of its messages
        self._held: deque[_Batch] = deque()  #: what passed the limit
        self._held_tail = _Tail()
        self._lock = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    def hide(self, secret: str) -> None:
        """Mask one more secret from now on, unless it is too short."""
        if secret not in self._secrets:
            self._secrets = _masked([*self._secrets, secret])

    async def copy(self, reader: Reader, stream: str) -> None:
        """Copy `reader` to the log until end of file, line by line."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while data := await reader.read(64 * 1024):
            rest = await self._store_lines(rest + decoder.decode(data), stream)
        rest = await self._store_lines(rest + decoder.decode(b"", True), stream)
        if rest:
            await self._add_line(stream, rest)

    async def write_system_line(self, text: str) -> None:
        """Write a line of the worker's own."""
        await self._add(LogLine(at=self._now(), stream="system", text=self.mask(text), attempt=self._attempt))

    async def write_logged(self, text: str, *, at: str, level: int, name: str) -> None:
        """Write what the run logged, which may have several lines. `name` is that of the task run, empty for the flow's own."""
        name, longest = self.mask(name), self._limits.line_chars
        for whole in self.mask(text).split("\n"):
            for start in range(0, max(len(whole), 1), longest):
                part = whole[start : start + longest]
                await self._add(LogLine(at=at, stream="log", text=part, attempt=self._attempt, level=level, name=name))

    def mask(self, text: str) -> str:
        """`text` without the run's secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def mask_value(self, value: Any) -> Any:
        """A JSON value without the run's secrets: in texts, keys, and numbers that are one."""
        if not self._secrets or value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {self.mask(str(key)): self.mask_value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mask_value(item) for item in value]
        return self.mask(str(value)) if str(value) in self._secrets else value

    async def close(self) -> None:
        """Flush; returns when everything is stored."""
        await self._flush()
        await self._store_held()
        await self.abandon()

    async def abandon(self) -> None:
        """Stop without a flush."""
        if self._timer is not None:
            await end_task(self._timer)
            self._timer = None

    async def _store_lines(self, text: str, stream: str) -> str:
        """Store the complete lines of `text`; return the rest, which is shorter than the longest line."""
        *lines, rest = text.split("\n")
        for line in lines:
            await self._add_line(stream, line)
        longest = self._limits.line_chars
        while len(rest) > longest:
            await self._add_line(stream, rest[:longest])
            rest = rest[longest:]
        return rest

    async def _add_line(self, stream: str, text: str) -> None:
        text = self.mask(text.removesuffix("\r"))
        if stream == "stderr" and text.strip():
            self.last_error_line = text.strip()[:1000]
        longest = self._limits.line_chars
        for start in range(0, max(len(text), 1), longest):
            part = text[start : start + longest]
            await self._add(LogLine(at=self._now(), stream=stream, text=part, attempt=self._attempt))

    async def _add(self, line: LogLine) -> None:
        self._waiting.append(line)
        self._waiting_chars += len(line.text)
        if len(self._waiting) >= self._limits.batch_lines or self._waiting_chars >= self._limits.batch_chars:
            await self._flush()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._limits.batch_wait_s)
        await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            while self._waiting:
                lines = self._waiting[: self._limits.batch_lines]
                size = sum(stored_bytes(line) for line in lines)
                await self._take(_Batch(lines=lines, bytes=size, before=self._written))
                self._written = LogBefore(lines=self._written.lines + len(lines), bytes=self._written.bytes + size)
                del self._waiting[: len(lines)]
                self._waiting_chars -= sum(len(line.text) for line in lines)

    async def _take(self, batch: _Batch) -> None:
        """Store a batch, or hold it when the limit is passed."""
        limits = self._limits
        if self._head.bytes < limits.head_bytes and self._head.lines < limits.head_lines:
            await self._append(batch)
            self._head = LogBefore(lines=self._head.lines + len(batch.lines), bytes=self._head.bytes + batch.bytes)
        elif not self._held and self._stored_tail.takes(batch, limits):
            self._stored_tail.add(batch, await self._append(batch))
        else:
            self._held.append(batch)
            self._held_tail.add(batch, [])
            while self._held_tail.oldest_goes(limits):
                self._held.popleft()
                self._held_tail.pop()

    async def _store_held(self) -> None:
        """Store what is held, and remove what lies between the beginning and it."""
        if not self._held:
            return
        while self._held:
            batch = self._held[0]
            self._stored_tail.add(batch, await self._append(batch))
            self._held.popleft()
        names: list[int] = []
        while self._stored_tail.oldest_goes(self._limits):
            names += self._stored_tail.pop()
        try:
            await self._store.drop(self._run_id, names)
        except BusUnavailable as error:
            log.warning("flow run %s: its log keeps more than it should: %s", self._run_id, error)

    async def _append(self, batch: _Batch) -> list[int]:
        while True:
            try:
                return await self._store.append(self._run_id, batch.lines, before=batch.before)
            except BusUnavailable:
                await asyncio.sleep(self._limits.retry_pause_s)

    def _now(self) -> str:
        return format_time(self._clock())


def _masked(secrets: Sequence[str]) -> list[str]:
    """Those that are long enough, the longest first: a shorter one may be a part of it."""
    return sorted((secret for secret in secrets if len(secret) >= LEAST_SECRET), key=len, reverse=True)
