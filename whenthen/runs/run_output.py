"""Copies the output of a run to its log: split into lines, bounded, secrets masked, stored in batches.

Called by `worker`. While the store is unavailable, the run's pipes fill up and it blocks (backpressure); only output over
the limit is dropped.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from whenthen.cancellation import end_task
from whenthen.runs.stores import LogLine, LogStore
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.times import format_time

__all__ = ["LogLimits", "RunLog"]

MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    try_bytes: int = 10 * 1024 * 1024  #: of one attempt's output; the rest is dropped, and the log says so
    try_lines: int = 250_000  #: of one attempt; a stored line takes some 170 bytes more than its text
    line_chars: int = 16 * 1024  #: longer lines are split
    batch_lines: int = 500
    batch_chars: int = 64 * 1024
    batch_wait_s: float = 0.1
    retry_pause_s: float = 1.0


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
        self.last_error_line = ""  #: the last line of stderr with text in it
        self._store = store
        self._run_id = run_id
        self._attempt = attempt
        self._clock = clock
        self._limits = limits or LogLimits()
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._waiting: list[LogLine] = []
        self._waiting_chars = 0
        self._bytes = 0
        self._lines = 0
        self._cut = False
        self._lock = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

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
        """Write a line of the worker's own, outside the limit."""
        await self._add(LogLine(at=self._now(), stream="system", text=self.mask(text), attempt=self._attempt))

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
            self._bytes += len(part.encode(errors="replace")) + 1
            self._lines += 1
            if self._bytes > self._limits.try_bytes or self._lines > self._limits.try_lines:
                await self._cut_here()
                return
            await self._add(LogLine(at=self._now(), stream=stream, text=part, attempt=self._attempt))

    async def _cut_here(self) -> None:
        if self._cut:
            return
        self._cut = True
        limits = self._limits
        most = f"{limits.try_bytes} bytes" if self._bytes > limits.try_bytes else f"{limits.try_lines} lines"
        await self.write_system_line(f"log cut here: more than {most}; the rest is not kept")

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
                batch = self._waiting[: self._limits.batch_lines]
                try:
                    await self._store.append(self._run_id, batch)
                except BusUnavailable:
                    await asyncio.sleep(self._limits.retry_pause_s)
                    continue
                del self._waiting[: len(batch)]
                self._waiting_chars -= sum(len(line.text) for line in batch)

    def _now(self) -> str:
        return format_time(self._clock())
