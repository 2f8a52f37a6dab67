"""A backup of the embedded server while it runs: its store at one moment, as a stream of bytes.

The store is what a SIGKILL of the nats-server at that moment would leave. Its files are copied while it runs, and what changed
meanwhile again, until little changes. Then the server is stopped by a signal (SIGSTOP), the rest is copied to a spool on the disk, and it
goes on: a moment of some hundredths of a second, in which requests wait. So all streams are of one moment, and nothing has to be said about the
order in which they were read (docs/reliability.md, "Backups").

Tried on paper and dropped: JetStream's snapshots. They read a stream block by block and know the blocks of their beginning only. A
message that replaces another one meanwhile, as every commit does, may be in a block that is not read, while the one that it replaced is
deleted from one that is read later: the offset of a shard, a window or a run would be in neither. And each stream would be of another
moment.

Called by the route `/api/backup`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from whenthen import __version__
from whenthen.engine.backup.archive import (
    BLOCK,
    STORE,
    ArchiveHead,
    StreamPositions,
    ending,
    entry_head,
    entry_padding,
)
from whenthen.engine.bus.embedded import EmbeddedServer
from whenthen.engine.bus.records import FORMAT, LOWEST_READER
from whenthen.engine.bus.request_client import RequestClient, refusal
from whenthen.schemas.errors import Conflict
from whenthen.schemas.times import format_time

__all__ = ["Backups"]

log = logging.getLogger(__name__)

FREEZE_BYTES = 64 << 20  #: as much may be left to be copied while the server stands still: a fraction of a second
ROUNDS = 12  #: of copying what changed; whoever reads more slowly than the store grows gets no backup
#: a file that changed so lately may change again without a trace in its times, which local file systems keep to 10 ms or finer
SETTLED_NS = 250_000_000


class _Identity(NamedTuple):
    """By which a change of a file is noticed."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class _Copied:
    """A file as it was last sent. Without an identity it has to be sent again."""

    size: int
    digest: str
    identity: _Identity | None


class Backups:
    """Makes backups of one embedded server, one at a time."""

    def __init__(self, embedded: EmbeddedServer | None, client: RequestClient) -> None:
        self._embedded = embedded
        self._client = client
        self._made: weakref.ref[AsyncGenerator[bytes, None]] | None = None  #: one that nobody reads any more is none

    def start(self) -> AsyncGenerator[bytes, None]:
        """A backup, to be read to its end, or closed.

        Raises:
            Conflict: the NATS server is not the embedded one, can not be stopped on this system, or a backup is being made.
        """
        if self._embedded is None:
            raise Conflict(
                "the NATS server is not embedded, so it is not ours to stop for a moment; back it up with its own tools "
                "(nats account backup), while no process of whenthen runs"
            )
        if not self._embedded.can_freeze:
            raise Conflict("a backup of a running server needs Linux; stop whenthen and copy the data directory")
        if self._made is not None and self._made() is not None:
            raise Conflict("a backup is being made already; wait until it is done")
        made = self._make(self._embedded)
        self._made = weakref.ref(made)
        return made

    async def _make(self, embedded: EmbeddedServer) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._parts(embedded)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._made = None

    async def _parts(self, embedded: EmbeddedServer) -> AsyncGenerator[bytes, None]:
        started = time.monotonic()
        yield ArchiveHead(
            version=__version__, format=FORMAT, lowest_reader=LOWEST_READER, created=format_time(datetime.now(UTC))
        ).encode()
        copied: dict[str, _Copied] = {}
        for _ in range(ROUNDS):
            changed = await asyncio.to_thread(_changed, embedded.store, copied)
            if copied and sum(changed.values()) <= FREEZE_BYTES:
                break
            for path in changed:
                async for part in _in_thread(_entry(embedded.store, path, copied)):
                    yield part
        else:
            # the reader sees an archive without an end
            raise Conflict("the store changes faster than the backup is read; read it on a faster connection, or later")
        with tempfile.TemporaryFile(dir=embedded.directory) as spool:  # of mode 0600, and without a name
            streams = await self._streams()
            async with self._client.batches.closed(), embedded.frozen():
                moment = time.monotonic()
                present = await asyncio.to_thread(_copy_rest, embedded.store, copied, spool)
            stood = time.monotonic() - moment
            spool.seek(0)
            while part := await asyncio.to_thread(spool.read, BLOCK):
                yield part
        yield ending({path: (copied[path].size, copied[path].digest) for path in present}, streams)
        log.info(
            "a backup was made in %.1f s; the NATS server stood still for %.3f s", time.monotonic() - started, stood
        )

    async def _streams(self) -> dict[str, StreamPositions]:
        """The streams and how far they are, shortly before the moment of the backup."""
        found: dict[str, StreamPositions] = {}
        while True:
            answer = await self._client.api("STREAM.LIST", {"offset": len(found)})
            if error := answer.get("error"):
                raise refusal("the streams can not be listed", error)
            for stream in answer.get("streams") or ():
                state = stream["state"]
                found[stream["config"]["name"]] = StreamPositions(
                    first_seq=state["first_seq"], last_seq=state["last_seq"], messages=state["messages"]
                )
            if len(found) >= answer["total"] or not answer.get("streams"):
                return found


def _changed(store: Path, copied: dict[str, _Copied]) -> dict[str, int]:
    """The files that are to be copied, with their sizes."""
    changed = {}
    for path in _files(store):
        identity = _identity(store / path)
        if identity is not None and (path not in copied or copied[path].identity != identity):
            changed[path] = identity.size
    return changed


def _copy_rest(store: Path, copied: dict[str, _Copied], spool: IO[bytes]) -> list[str]:
    """Copy what changed while nothing changes any more; gives all files that there are."""
    for path in _changed(store, copied):
        for part in _entry(store, path, copied):
            spool.write(part)
    return [path for path in _files(store) if path in copied]


def _entry(store: Path, path: str, copied: dict[str, _Copied]) -> Iterator[bytes]:
    """A file as an entry of the archive; nothing if it went away. `copied` is told."""
    try:
        file = (store / path).open("rb")
    except FileNotFoundError:
        copied.pop(path, None)
        return
    with file:
        began_ns = time.time_ns()
        identity = _identity_of(os.fstat(file.fileno()))
        yield entry_head(STORE + path, identity.size)
        digest = hashlib.sha256()
        left = identity.size
        while left:
            block = file.read(min(left, BLOCK))
            if not block:  # it was cut: the archive gets its length, and the file its turn again
                block = b"\0" * min(left, BLOCK)
            digest.update(block)
            left -= len(block)
            yield block
        yield entry_padding(identity.size)
        settled = began_ns - max(identity.mtime_ns, identity.ctime_ns) > SETTLED_NS
        same = settled and _identity_of(os.fstat(file.fileno())) == identity
        copied[path] = _Copied(identity.size, digest.hexdigest(), identity if same else None)


def _files(store: Path) -> Iterable[str]:
    """All regular files below the store."""
    for folder, _, names in os.walk(store):
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(store))


def _identity(path: Path) -> _Identity | None:
    try:
        return _identity_of(path.lstat())
    except FileNotFoundError:
        return None


def _identity_of(stat: os.stat_result) -> _Identity:
    return _Identity(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


async def _in_thread(parts: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The parts, each made in a thread, as making one waits for the disk."""
    while True:
        part = await asyncio.to_thread(next, parts, None)
        if part is None:
            return
        yield part
