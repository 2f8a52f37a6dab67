"""The Unix socket of one attempt of a run, and the connections of its processes.

A process of the run may send what it likes, as fast as it likes: lines are bounded, connections are counted, and reading them takes at most
half of the event loop's time. What is not read in time waits in the socket, whose sender does not wait for it (`flows.reporting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import resource
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from whenthen import __version__
from whenthen.cancellation import end_task
from whenthen.runs.reports.report_lines import MAX_LINE_BYTES, PROTOCOLS, BadReport, read_hello, read_request
from whenthen.schemas.errors import WhenthenError

__all__ = ["Answer", "ReportSocket"]

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = (
    300  #: of one attempt at once, or a 16th of the open files that the process may have; further ones are told so
)
HELLO_S: Final = 10.0
#: whose answer waits for others: they do not take the connections that the others need to go on, and have as many of their own
WAITING_KINDS: Final = frozenset({"concurrency.acquire", "pause_flow_run", "wait_while_paused"})
CHUNK_BYTES: Final = 64 * 1024
GATHER_S: Final = (
    0.003  #: that lines are let come together; a process tells 150 in it, which the smallest usual socket buffer holds
)
_NAME: Final = "worker.sock"

Answer = Callable[[str, dict[str, Any]], Awaitable[Any]]


class ReportSocket:
    """Listens in `folder`, which nobody else may enter."""

    def __init__(
        self,
        folder: Path,
        *,
        hear: Callable[[Sequence[bytes]], Awaitable[None]],
        closed_files: Callable[[Collection[str]], Awaitable[None]],
        answer: Answer,
        kinds: Collection[str],
    ) -> None:
        """`hear` takes lines of reports, `closed_files` the names of files whose lines go before what follows, `answer` a request of
        one of `kinds`; what it raises is told to who asked."""
        self.path = folder / _NAME
        self.token = secrets.token_urlsafe(32)
        self._folder = folder
        self._hear = hear
        self._closed_files = closed_files
        self._answer = answer
        self._kinds = sorted(kinds)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 16)
        self._server: asyncio.Server | None = None
        self._reports: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()  #: requests that wait for others

    async def open(self) -> None:
        """
        Raises:
            OSError: the system refuses.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # the path may be longer than an address
                listening.bind(f"/proc/self/fd/{folder}/{_NAME}")
            finally:
                os.close(folder)
            self._server = await asyncio.start_unix_server(self._connected, sock=listening, backlog=MOST_CONNECTIONS)
        except BaseException:
            listening.close()
            raise

    async def close(self, *, wait_s: float) -> None:
        """Take no further connection, answer nothing more, and hear what was sent, for `wait_s` at most while somebody goes on sending."""
        if self._server is not None:
            self._server.close()
        await end_task(*self._requests)
        if self._reports:
            await asyncio.wait(set(self._reports), timeout=wait_s)
        await end_task(*self._reports)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._requests.add(task)  # until it has said that it reports
        task.add_done_callback(self._requests.discard)
        task.add_done_callback(self._reports.discard)
        task.add_done_callback(self._waiting.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            taken = len(self._reports) + len(self._requests) - len(self._waiting)
            if taken > 2 * self._most:
                return None
            async with asyncio.timeout(HELLO_S):
                lines = _Lines(reader)
                hello = read_hello(await lines.one())
            if taken > self._most:
                return await _say(writer, {"type": "busy"})
            if not hmac.compare_digest(hello.token.encode(), self.token.encode()):
                return await _say(writer, {"type": "refused", "message": "the token is not that of this attempt"})
            if hello.protocol not in PROTOCOLS:
                message = (
                    f"it speaks protocol {hello.protocol}, the worker (whenthen {__version__}) speaks "
                    f"{', '.join(map(str, sorted(PROTOCOLS)))}; install one version of whenthen for both"
                )
                return await _say(writer, {"type": "refused", "message": message})
            if hello.asks:
                await self._answer_one(lines, writer)
                return None
            task = asyncio.current_task()
            assert task is not None
            self._reports.add(task)
            self._requests.discard(task)
            await self._closed_files(hello.closed)
            transport = writer.transport
            assert isinstance(transport, asyncio.Transport)  # it is read from, too
            await self._read_reports(lines, transport)
        except (BadReport, TimeoutError) as error:
            log.info("a connection of a run is closed: %s", error or "it said nothing")
        except (ConnectionError, EOFError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return None

    async def _read_reports(self, lines: _Lines, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        while found := await lines.some():
            began = loop.time()
            # what is sent meanwhile wakes nobody, so that the next lines are heard together, and whoever sends them is not interrupted
            if gathers := transport.is_reading():  # else its reader has more than it wants
                transport.pause_reading()
            try:
                await self._hear(found)
                # a flood has half of the time, and heartbeats and other runs the rest
                await asyncio.sleep(min(max(loop.time() - began, GATHER_S), 0.05))
            finally:
                if gathers:
                    transport.resume_reading()

    async def _answer_one(self, lines: _Lines, writer: asyncio.StreamWriter) -> None:
        await _say(
            writer, {"type": "welcome", "protocol": max(PROTOCOLS), "version": __version__, "kinds": self._kinds}
        )
        try:
            request = read_request(await lines.one())
        except EOFError:
            return
        if request.kind not in self._kinds:
            await _say(writer, {"ok": False, "message": "this worker does not answer such requests"})
            return
        if request.kind in WAITING_KINDS:
            if len(self._waiting) >= self._most:
                await _say(writer, {"type": "busy"})
                return
            task = asyncio.current_task()
            assert task is not None
            self._waiting.add(task)
        answered = asyncio.ensure_future(self._answer(request.kind, request.body))
        gone = asyncio.ensure_future(lines.end())
        try:
            # who asked may be gone: what it waits for is for nobody then
            await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                return
            try:
                answer = {"ok": True, "value": answered.result()}
            except WhenthenError as error:
                answer = {"ok": False, "reason": error.reason, "message": str(error)}
            await _say(writer, answer)
        except Exception:
            log.exception("a request %s of a run could not be answered", request.kind)
            await _say(writer, {"ok": False, "message": "the worker could not do it; its log says why"})
        finally:
            await end_task(answered, gone)


class _Lines:
    """The lines of a connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._rest = b""
        self._waiting: list[bytes] = []

    async def one(self) -> bytes:
        """
        Raises:
            BadReport: it is too long.
            EOFError: the connection has ended.
        """
        while not self._waiting:
            self._waiting = await self._read()
        return self._waiting.pop(0)

    async def some(self) -> list[bytes]:
        """The next lines; none when the connection has ended. Raises as `one` does."""
        try:
            found, self._waiting = self._waiting or await self._read(), []
        except EOFError:
            return []
        return found

    async def end(self) -> None:
        """Returns when the other side has gone. What it sends until then is passed over."""
        with contextlib.suppress(OSError):
            while await self._reader.read(CHUNK_BYTES):
                continue

    async def _read(self) -> list[bytes]:
        while True:
            data = await self._reader.read(CHUNK_BYTES)
            if not data:
                raise EOFError
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > MAX_LINE_BYTES:
                raise BadReport(f"a line has more than {MAX_LINE_BYTES:,} bytes")
            if lines := [line for line in lines if line]:
                return lines


async def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        writer.write(orjson.dumps(message) + b"\n")
        await writer.drain()
