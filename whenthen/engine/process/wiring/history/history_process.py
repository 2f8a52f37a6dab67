"""The role `history` in a process of its own, beside one that has other roles, too. Linux only; elsewhere it is a part of that process.

Projecting takes a tenth of a processor, and in one interpreter every message of the other roles waits for it: an event's action comes
several times later (benchmarks/latency). So `run_server` forks before there is a thread or an event loop, which costs no second
start of an interpreter. The process waits for the address of NATS in its first pipe, writes how far the history is behind
as lines of JSON into the second, and ends when the first is closed. When the process that forked it dies, it is killed: what it
writes is whole or not there, and the next one must not find it at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn

import orjson

from whenthen.engine.process.settings import Settings
from whenthen.engine.process.supervisor import Supervisor
from whenthen.engine.process.wiring.nats_start import connected_bus, wait_until_closed
from whenthen.supervision import fork_bound

__all__ = ["HISTORY_ROLE", "HistoryProcess"]

log = logging.getLogger(__name__)

HISTORY_ROLE = (
    "whenthen.engine.process.wiring.history.history_role"  #: loaded by who has the role alone: it loads SQLAlchemy
)
BEAT_S = 5.0  #: between two reports
SILENT_S = 60.0  #: without a report, after which the process is taken to hang
END_S = 10.0  #: that it has to end what it writes
_MOST_BYTES = 1 << 16  #: of a report

Report = Callable[[Mapping[str, tuple[int, float]]], None]  #: of how far the history is behind streams


class HistoryProcess:
    """The process, for who forked it."""

    def __init__(self, pid: int, address: int, reports: int) -> None:
        self.pid = pid
        self._address = address  #: the pipe's end for writing
        self._reports = reports  #: the other one's for reading
        self._ended: int | None = None  #: its status

    @classmethod
    def fork(cls, settings: Settings) -> HistoryProcess | None:
        """Begin it; None where that can not be. To be called before there are threads and an event loop."""
        if sys.platform != "linux":
            return None
        (address, give), (reports, report) = os.pipe(), os.pipe()
        pid = fork_bound(signal.SIGKILL)
        if pid == 0:
            os.close(give)
            os.close(reports)
            _become(settings, address, report)
        os.close(address)
        os.close(report)
        return cls(pid, give, reports)

    async def run(self, embedded_url: str | None, report: Report) -> str:
        """Have it project until it ends, from the embedded server or from what the settings name; how it ended, for people. Cancelled,
        it lets the process end first."""
        try:
            os.write(self._address, orjson.dumps(embedded_url) + b"\n")
            return await self._follow(report)
        except BrokenPipeError:
            pass
        finally:
            await self.end()
        return self._status()

    async def _follow(self, report: Report) -> str:
        reader = asyncio.StreamReader(limit=_MOST_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._reports, "rb", buffering=0)
        )
        self._reports = -1
        try:
            while line := await _next_line(reader):
                report(orjson.loads(line))
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            await self.end()
            return f"it hung for {SILENT_S:g} s and was killed"
        finally:
            transport.close()
        await self.end()
        return self._status()

    async def end(self) -> None:
        """Have the process end what it writes, and wait for it; kill it when that takes long. May be called again."""
        if self._address >= 0:
            os.close(self._address)
            self._address = -1
        if self._reports >= 0:
            os.close(self._reports)
            self._reports = -1
        if self._ended is None:
            killing = asyncio.get_running_loop().call_later(END_S, os.kill, self.pid, signal.SIGKILL)
            try:
                _, self._ended = await asyncio.to_thread(os.waitpid, self.pid, 0)
            except ChildProcessError:  # somebody else has waited for it
                self._ended = 0
            finally:
                killing.cancel()

    def close(self) -> None:
        """Have the process end where nobody waits for it: before it was begun."""
        for descriptor in (self._address, self._reports):
            if descriptor >= 0:
                os.close(descriptor)
        self._address = self._reports = -1

    def _status(self) -> str:
        code = os.waitstatus_to_exitcode(self._ended or 0)
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """The next report; nothing at the end. Raises `TimeoutError` after `SILENT_S`, of which a process that was stopped itself counts a step."""
    reading = asyncio.ensure_future(reader.readline())
    try:
        for _ in range(int(SILENT_S / BEAT_S)):
            if (await asyncio.wait([reading], timeout=BEAT_S))[0]:
                return reading.result()
    finally:
        reading.cancel()
    raise TimeoutError


def _become(settings: Settings, address: int, reports: int) -> NoReturn:
    """Be the process, to its end."""
    status = 1
    try:
        # a terminal, or who stops a group, sends them to all processes: they are for the other one, which ends this one last
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        status = _project(settings, address, reports)
    except Exception:
        log.exception("the process of the history failed")
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _project(settings: Settings, address: int, reports: int) -> int:
    with os.fdopen(address, "rb", buffering=0) as pipe:
        line = pipe.readline()
        if not line:
            return 0
        role = import_module(HISTORY_ROLE).HistoryRole
        fcntl.fcntl(reports, fcntl.F_SETFL, os.O_NONBLOCK)
        asyncio.run(_run(role, settings, orjson.loads(line), pipe, reports))
    return 0


async def _run(role: Any, settings: Settings, embedded_url: str | None, pipe: Any, reports: int) -> None:
    """Project until the pipe ends."""
    supervisor = Supervisor()
    asyncio.get_running_loop().add_reader(pipe.fileno(), supervisor.stopping.set)  # only its end is there to be read
    bus = await connected_bus(settings, embedded_url)

    def tell(found: Mapping[str, tuple[int, float]]) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # whoever does not read it needs none
            os.write(reports, orjson.dumps(found) + b"\n")

    async def beat() -> None:
        while True:
            tell({})
            await asyncio.sleep(BEAT_S)

    try:
        supervisor.start("NATS connection", wait_until_closed(bus))
        supervisor.start("reports", beat())
        running = role(bus, settings, supervisor, tell)
        try:
            await supervisor.stopped()
        finally:
            await supervisor.end_all()
            running.close()
    finally:
        await bus.close()
