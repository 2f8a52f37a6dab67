"""A proxy before a real broker that ends all connections after so many bytes of its answers, as a broker that dies at that moment does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from whenthen.cancellation import end_task

__all__ = ["CutProxy", "cut_proxy"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CutProxy:
    """`passed` counts the bytes of answers that came through; after `most` of them whoever is connected is left, and whoever comes at once.

    One that is `quiet` holds back all answers then, and ends no connection.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self.port = 0
        self.most: int | None = None
        self.passed = 0
        self.places: list[int] = []  #: what was `passed` after each piece that the broker sent
        self.reset = False  #: whether a connection is torn off rather than closed
        self.quiet = False
        self.swapped = (b"", b"")  #: what is replaced in answers, such as the address of the broker by this one
        self._connect = connect
        self._open: set[asyncio.StreamWriter] = set()

    def arm(self, most: int | None, *, reset: bool = False, quiet: bool = False) -> None:
        """Count anew."""
        self.most, self.passed, self.places = most, 0, []
        self.reset, self.quiet = reset, quiet

    def cut(self) -> None:
        """End all connections, and let nobody in."""
        self.most = 0
        for writer in self._open:
            self._leave(writer)

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        if self.reset:
            writer.transport.abort()
        else:
            writer.close()

    @property
    def is_cut(self) -> bool:
        return self.most is not None and self.passed >= self.most

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut and not self.quiet:
            self._leave(writer)
            return
        answers, requests = await self._connect()
        self._open.add(writer)
        tasks = [asyncio.ensure_future(_pump(reader, requests)), asyncio.ensure_future(self._answer(answers, writer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            self._leave(writer)
            requests.close()
            await end_task(*tasks)

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (self.quiet or not self.is_cut) and (piece := await answers.read(65536)):
                piece = piece.replace(*self.swapped) if self.swapped[0] else piece
                piece = piece if self.most is None else piece[: self.most - self.passed]
                self.passed += len(piece)
                self.places.append(self.passed)
                writer.write(piece)
                await writer.drain()
        if self.is_cut and not self.quiet:
            self.cut()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def cut_proxy(behind: int | Path, at: Path | None = None) -> AsyncIterator[CutProxy]:
    """Before a port of 127.0.0.1, or a socket in the file system; then it is `at` a socket, too."""

    async def connect() -> Streams:
        if isinstance(behind, Path):
            return await asyncio.open_unix_connection(behind)
        return await asyncio.open_connection("127.0.0.1", behind)

    made = CutProxy(connect)
    if at is None:
        server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(made.talk, at)
    try:
        yield made
    finally:
        server.close()
        made.cut()
