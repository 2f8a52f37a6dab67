"""The Unix socket of one attempt of a run, and the connections of its processes.

A process of the run may send what it likes, as fast as it likes: lines are bounded, connections are counted, and reading them takes at most
half of the event loop's time. What is not read in time waits in the socket, whose sender does not wait for it (`flows.reporting`).

No connection that reports is closed before what it has sent is heard, as its sender may be gone and knows of no other way: it is closed to
further lines first, which then go to a file.
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
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, cast

import orjson

from whenthen import __version__
from whenthen.cancellation import end_task
from whenthen.runs.reports.connection_queue import ConnectionQueue
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
        self._queue: ConnectionQueue | None = None
        self._connections: set[_Connection] = set()
        self._closing = False

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
            listening.listen(MOST_CONNECTIONS)
            self._queue = ConnectionQueue(listening, take=self._connected, has_room=self._has_room)
        except BaseException:
            listening.close()
            raise
        self._queue.go_on()

    async def close(self, *, wait_s: float) -> None:
        """Answer nothing more, and hear what was sent; what is sent later than `wait_s` from now is nobody's."""
        self._closing = True
        asking = [each for each in self._connections if each.state in (_State.ASKS, _State.WAITS)]
        await end_task(*(each.task for each in asking))
        if self._queue is not None:
            await self._take_waiting(self._queue)
        if self._connections:
            await asyncio.wait(self._tasks(), timeout=wait_s)
        for connection in self._connections:
            connection.end_lines()
        while self._connections:
            await asyncio.wait(self._tasks())

    async def abandon(self) -> None:
        """Hear nothing more."""
        self._closing = True
        if self._queue is not None:
            self._queue.close()
        await end_task(*self._tasks())

    async def _take_waiting(self, queue: ConnectionQueue) -> None:
        """Take those that nobody had time for. Further ones are told that nobody is there."""
        queue.rest()
        try:
            for _ in range(MOST_CONNECTIONS + 1):  # as many as may wait
                while not self._has_room():
                    await asyncio.wait(self._tasks(), return_when=asyncio.FIRST_COMPLETED)
                if not await queue.take_next():
                    return
        finally:
            queue.close()

    # -- connections

    @property
    def _taken(self) -> int:
        """How many count: who waits for others has a place of its own."""
        return sum(each.state is not _State.WAITS for each in self._connections)

    def _has_room(self) -> bool:
        """Whether a further connection may be taken. Those that have said nothing yet make room for it."""
        if self._taken < 2 * self._most:
            return True
        for each in self._connections:
            if each.state in (_State.NEW, _State.SILENT):
                each.end_lines()
        return False

    def _connected(self, made: socket.socket) -> None:
        connection = _Connection(made, crowded=self._taken >= self._most)
        connection.task = asyncio.create_task(self._serve(connection))
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._ended(connection))

    def _ended(self, connection: _Connection) -> None:
        if connection.state is _State.NEW:  # it was cancelled before it began
            connection.made.close()
        self._connections.discard(connection)
        self._queue_goes_on()

    async def _serve(self, connection: _Connection) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection.made)
        connection.state = _State.SILENT
        try:
            lines = _Lines(reader)
            hello = read_hello(await _first_line(connection, lines))
            if not hmac.compare_digest(hello.token.encode(), self.token.encode()):
                return await _say(writer, {"type": "refused", "message": "the token is not that of this attempt"})
            if hello.protocol not in PROTOCOLS:
                message = (
                    f"it speaks protocol {hello.protocol}, the worker (whenthen {__version__}) speaks "
                    f"{', '.join(map(str, sorted(PROTOCOLS)))}; install one version of whenthen for both"
                )
                return await _say(writer, {"type": "refused", "message": message})
            if hello.asks:
                if connection.crowded or self._closing:
                    return await _say(writer, {"type": "busy"})
                connection.state = _State.ASKS
                return await self._answer_one(connection, lines, writer)
            connection.state = _State.REPORTS
            if connection.crowded:
                connection.end_lines()
            await self._closed_files(hello.closed)
            # it is read from, too; uvloop's is no subclass
            await self._read_reports(lines, cast("asyncio.Transport", writer.transport))
        except BadReport as error:
            log.info("a connection of a run is closed: %s", error)
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

    async def _answer_one(self, connection: _Connection, lines: _Lines, writer: asyncio.StreamWriter) -> None:
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
            if sum(each.state is _State.WAITS for each in self._connections) >= self._most:
                await _say(writer, {"type": "busy"})
                return
            connection.state = _State.WAITS
            self._queue_goes_on()
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

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [each.task for each in self._connections]

    def _queue_goes_on(self) -> None:
        if self._queue is not None and not self._closing:
            self._queue.go_on()


class _State(Enum):
    NEW = auto()
    SILENT = auto()  #: has not said what it is for
    REPORTS = auto()
    ASKS = auto()
    WAITS = auto()  #: asks for something that waits for others


class _Connection:
    """One that was taken. `crowded`: there are more than are served, so that it is to end soon."""

    task: asyncio.Task[None]

    def __init__(self, made: socket.socket, *, crowded: bool) -> None:
        self.made = made
        self.crowded = crowded
        self.state = _State.NEW

    def end_lines(self) -> None:
        """Let nothing more be sent. What was sent is still read, and then the connection ends; who asks is told to come again."""
        self.crowded = True
        with contextlib.suppress(OSError):
            self.made.shutdown(socket.SHUT_RD)


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


async def _first_line(connection: _Connection, lines: _Lines) -> bytes:
    """
    Raises:
        BadReport, EOFError: there is none.
    """
    try:
        async with asyncio.timeout(HELLO_S):
            return await lines.one()
    except TimeoutError:
        connection.end_lines()  # it may have come in this moment, or while this process was stopped
        return await lines.one()


async def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        writer.write(orjson.dumps(message) + b"\n")
        await writer.drain()
