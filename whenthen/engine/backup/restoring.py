"""A backup made the store of a data directory that has none. Nothing is there until everything is: it is unpacked and tried
beside, by a nats-server of its own, and moved into place last.

Called by `whenthen restore`, while no process uses the data directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from whenthen.engine.backup.archive import ArchiveSummary, InvalidBackup, read_archive
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import DataDir
from whenthen.engine.bus.embedded import EmbeddedServer
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import ENGINE
from whenthen.schemas.errors import SetupError

__all__ = ["restore"]


async def restore(file: Path, data_dir: Path) -> ArchiveSummary:
    """Unpack `file`, check it, and make it the store of `data_dir`, which must have none.

    Raises:
        InvalidBackup: the file is no backup, damaged, not whole, or of a newer format. SetupError: the data directory is in use, has
            data, or can not be written. In either case nothing was changed.
    """
    with _locked(data_dir):
        return await _restore(file, data_dir)


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold a data directory. One that was made for it, and has got no data, is removed again."""
    existed = data_dir.exists()
    lock = DataDir(data_dir)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
        if not existed and not (data_dir / "nats").exists():
            shutil.rmtree(data_dir, ignore_errors=True)


async def _restore(file: Path, data_dir: Path) -> ArchiveSummary:
    target = data_dir / "nats" / "store"
    if target.exists() and any(target.iterdir()):
        raise SetupError(f"{data_dir} has data already; restore into a new data directory, or move {target} away first")
    try:
        draft = Path(tempfile.mkdtemp(prefix=".restoring-", dir=data_dir))
    except OSError as error:
        raise SetupError(f"{data_dir} can not be written: {error.strerror}") from error
    try:
        server = EmbeddedServer(draft)
        server.store.mkdir(parents=True, mode=0o700)
        summary = await asyncio.to_thread(_unpack, file, server.store)
        await _try(file, server, summary)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if target.exists():
            target.rmdir()
        server.store.rename(target)
        _sync(target.parent)
        return summary
    except OSError as error:
        where = error.filename or data_dir
        raise SetupError(f"{where}: the backup can not be restored: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unpack(file: Path, store: Path) -> ArchiveSummary:
    made: set[str] = set()

    def open_file(name: str) -> IO[bytes]:
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made.add(name)
        # a path that comes again takes the place of the one before; nothing that is followed is in a folder that is ours alone
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    summary = read_archive(file, open_file=open_file)
    for name in made - set(summary.files):
        (store / name).unlink()
    for name in summary.files:
        _sync(store / name)
    return summary


async def _try(file: Path, server: EmbeddedServer, summary: ArchiveSummary) -> None:
    """Start a nats-server on what was unpacked, and compare its streams with the manifest."""
    await server.start()
    try:
        bus = Bus(server.client_url)
        await bus.connect()
        try:
            for name, wanted in summary.streams.items():
                answer = await bus.client.api(f"STREAM.INFO.{name}", timeout_s=30)
                if "state" not in answer:
                    raise InvalidBackup(f"{file}: stream {name} is not in it; use another backup")
                found = int(answer["state"]["last_seq"])
                if found < wanted.last_seq:
                    raise InvalidBackup(
                        f"{file}: stream {name} ends at {found}, and was at {wanted.last_seq} at least; use another backup"
                    )
            if ENGINE in summary.streams:
                await _check_commits(file, bus.client)
        finally:
            await bus.close()
    finally:
        await server.stop()


async def _check_commits(file: Path, client: RequestClient) -> None:
    """Every commit is there as a whole: nothing of a shard lies after its offset but what the offset carries."""
    offsets: dict[str, Offset] = {}
    request = {"seq": 1, "next_by_subj": "engine.shard.*.offset", "batch": 10_000}
    await client.read_stored(
        ENGINE,
        request,
        lambda message: offsets.update(
            {message.headers["Nats-Subject"]: Offset.decode(message.data, int(message.headers["Nats-Sequence"]))}
        ),
    )
    for subject, offset in offsets.items():
        shard = subject.removesuffix("offset") + ">"
        last = await client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": shard})
        if not offset.packed and int(last["message"]["seq"]) > offset.revision:
            raise InvalidBackup(f"{file}: {subject}: the last commit is not whole; use another backup")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
