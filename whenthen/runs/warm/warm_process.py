"""The worker's side of an interpreter that waits for a run: it is started, loads, and is handed one run, or is ended.

A run is handed over in two steps: its environment, which the interpreter answers when nothing that it has loaded has changed, and then the
word to begin. Until that word is sent nothing of the run has happened, so that it may begin elsewhere. Called by `warm_pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from whenthen.cancellation import end_task
from whenthen.runs.commands import RUNNER, Launch, WarmStart
from whenthen.runs.processes import ProcessGroup
from whenthen.schemas.errors import WhenthenError

__all__ = ["NotWarm", "WarmProcess"]

_PROGRAM: Final = Path(__file__).with_name("waiting_interpreter.py")
MAX_ANSWER_BYTES: Final = 1 << 16


class NotWarm(WhenthenError):
    """An interpreter can not wait, or not take the run. `again`: another one may."""

    reason = "not_warm"

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again


class WarmProcess:
    """One interpreter. After `hand_over` it is the caller's process group; otherwise `end` is called."""

    def __init__(
        self, start: WarmStart, group: ProcessGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.start = start
        self.bytes = 0  #: of memory, when it was ready
        self._group = group
        self._reader = reader
        self._writer = writer
        self._next: asyncio.Task[bytes] | None = None

    @classmethod
    async def begin(cls, start: WarmStart, *, grace: timedelta) -> WarmProcess:
        """Start the interpreter.

        Raises:
            SetupError: the system refuses.
            OSError: see there.
        """
        ours, theirs = socket.socketpair()
        group: ProcessGroup | None = None
        try:
            with theirs:
                group = await ProcessGroup.start_waiting(
                    [start.python, str(_PROGRAM), str(theirs.fileno())],
                    cwd=start.cwd,
                    env=start.env,
                    grace=grace,
                    control=theirs.fileno(),
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_ANSWER_BYTES)
        except BaseException:
            ours.close()
            if group is not None:
                async with group:
                    pass
            raise
        return cls(start, group, reader, writer)

    async def load(self, learnt: Sequence[str], *, within: timedelta) -> None:
        """Returns when everything is imported.

        Raises:
            NotWarm: a module can not be imported, or not in time.
        """
        order = {
            "runner": str(RUNNER),
            "where": self.start.where,
            "env": self.start.env,
            "preload": self.start.preload,
            "learnt": [name for name in learnt if name not in self.start.preload],
        }
        answer = await self._answer(order, within)
        self.bytes = int(answer.get("bytes", 0))
        self._next = asyncio.create_task(self._line())

    async def gone(self) -> None:
        """Returns when the process has ended while it waited."""
        if self._next is not None:
            await asyncio.wait({self._next})

    async def hand_over(self, launch: Launch, *, guard_keeps: Collection[int], within: timedelta) -> ProcessGroup:
        """The process group, in which the run begins.

        Raises:
            NotWarm: it does not begin there, and has not; the process has ended.
        """
        try:
            self._group.keep(guard_keeps)
            await self._answer({"env": launch.env, "cwd": str(launch.cwd), "arguments": launch.arguments}, within)
            self._writer.write(b"begin\n")
            await self._close()
        except OSError as error:
            await self.end()
            raise NotWarm(f"it is gone: {error}", again=True) from None
        except BaseException:
            await self.end()
            raise
        return self._group

    async def end(self) -> None:
        """Kill it."""
        if self._next is not None:
            await end_task(self._next)
        await self._close()
        async with self._group:
            pass

    async def _answer(self, message: dict[str, Any], within: timedelta) -> dict[str, Any]:
        try:
            async with asyncio.timeout(within.total_seconds()):
                self._writer.write(orjson.dumps(message) + b"\n")
                await self._writer.drain()
                line = await (self._next or asyncio.create_task(self._line()))
            found = orjson.loads(line)
        except TimeoutError:
            raise NotWarm(f"it was not ready within {within.total_seconds():g} s", again=False) from None
        except (OSError, orjson.JSONDecodeError):
            raise NotWarm("it ended before it was ready", again=True) from None
        if not isinstance(found, dict) or not found.get("ready"):
            told = found if isinstance(found, dict) else {}
            raise NotWarm(str(told.get("why"))[:2000], again=bool(told.get("again")))
        return found

    async def _line(self) -> bytes:
        """The next answer; an empty one when there is none."""
        try:
            return await self._reader.readline()
        except (ValueError, OSError):
            return b""

    async def _close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
