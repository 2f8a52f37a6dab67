"""The file that a backup is: a tar archive (POSIX), written and read from the front, a block at a time.

    whenthen-backup.json    what it is: kind, version of whenthen, format of the data, time
    store/...               files of the NATS server's store; the last one of a name counts
    manifest.json           every file of the store with size and SHA-256, and each stream's positions
    end                     the SHA-256 of the manifest, in hexadecimal digits: without it the file is not whole

A file in the archive that the manifest does not name was deleted while the backup was made, and means nothing.

Called by `backup.live_copy`, `backup.restoring` and `whenthen backup`.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from whenthen.engine.bus.records import FORMAT
from whenthen.schemas.base import known_fields
from whenthen.schemas.errors import InvalidInput

__all__ = [
    "BLOCK",
    "STORE",
    "ArchiveHead",
    "ArchiveSummary",
    "InvalidBackup",
    "StreamPositions",
    "ending",
    "entry_head",
    "entry_padding",
    "read_archive",
    "small_entry",
]

KIND = "whenthen backup"
HEAD, MANIFEST, END = "whenthen-backup.json", "manifest.json", "end"
STORE = "store/"
BLOCK = 1 << 20  #: bytes that are read and written at once
MOST_META_BYTES = 64 << 20  #: of head and manifest; a file takes about 200 bytes of it
MOST_PATH_CHARS = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class InvalidBackup(InvalidInput):
    """A file is no backup, not a whole one, or one that this version can not read."""

    reason = "invalid_backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPositions:
    """A stream, shortly before the moment of the backup."""

    first_seq: int
    last_seq: int
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveHead:
    """What a backup says of itself."""

    version: str  #: of whenthen
    format: int  #: of the data
    lowest_reader: int  #: the lowest format that a version has to know to read them
    created: str

    def encode(self) -> bytes:
        return small_entry(HEAD, orjson.dumps({"kind": KIND, **asdict(self)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSummary:
    """What a whole archive holds."""

    head: ArchiveHead
    files: Mapping[str, tuple[int, str]]  #: size and SHA-256, by path below the store
    streams: Mapping[str, StreamPositions]

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


def entry_head(name: str, size: int) -> bytes:
    """What stands before the `size` bytes of a file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry.tobuf(tarfile.PAX_FORMAT)


def entry_padding(size: int) -> bytes:
    """What stands behind them."""
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def small_entry(name: str, data: bytes) -> bytes:
    """A whole file."""
    return entry_head(name, len(data)) + data + entry_padding(len(data))


def ending(files: Mapping[str, tuple[int, str]], streams: Mapping[str, StreamPositions]) -> bytes:
    """The manifest, and the mark that everything is there."""
    manifest = orjson.dumps({"files": files, "streams": {name: asdict(each) for name, each in streams.items()}})
    digest = hashlib.sha256(manifest).hexdigest()
    return small_entry(MANIFEST, manifest) + small_entry(END, digest.encode()) + b"\0" * (2 * tarfile.BLOCKSIZE)


def read_archive(path: Path, *, open_file: Callable[[str], IO[bytes]] | None = None) -> ArchiveSummary:
    """Read an archive from its front to its end, and compare everything with its digests. Blocking; needs the memory of a block
    and of the manifest.

    `open_file` gives where the bytes of a file go, by its path below the store; it is called again for a path that comes again.

    Raises:
        InvalidBackup: it is no backup, damaged, not whole, or of a newer format. OSError: it can not be read.
    """
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|", bufsize=BLOCK) as archive:
            return _read(path, archive, open_file)
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise InvalidBackup(f"{path}: it is no backup, or damaged: {error}") from None


def _read(path: Path, archive: tarfile.TarFile, open_file: Callable[[str], IO[bytes]] | None) -> ArchiveSummary:
    entries = iter(archive)
    head = _head(path, archive, next(entries, None))
    found: dict[str, tuple[int, str]] = {}
    for entry in entries:
        if entry.name == MANIFEST:
            return _finish(path, head, found, _bytes_of(path, archive, entry), archive, next(entries, None))
        name = _store_path(path, entry)
        digest = hashlib.sha256()
        target = open_file(name) if open_file is not None else None
        try:
            for block in _blocks(archive, entry):
                digest.update(block)
                if target is not None:
                    target.write(block)
        finally:
            if target is not None:
                target.close()
        found[name] = (entry.size, digest.hexdigest())
    raise InvalidBackup(f"{path}: it ends too early, so not everything is in it; make the backup again")


def _head(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> ArchiveHead:
    if entry is None or entry.name != HEAD:
        raise InvalidBackup(f"{path}: it is no backup of whenthen")
    fields = _json(path, _bytes_of(path, archive, entry))
    if fields.get("kind") != KIND:
        raise InvalidBackup(f"{path}: it is no backup of whenthen")
    try:
        head = ArchiveHead(**{name: fields[name] for name in ArchiveHead.__dataclass_fields__})
        needed = int(head.lowest_reader)
    except (KeyError, TypeError, ValueError):
        raise InvalidBackup(f"{path}: its head is damaged; use another backup") from None
    if needed > FORMAT:
        raise InvalidBackup(
            f"{path}: whenthen {str(head.version)[:40]} made it, its data are of format {str(head.format)[:40]}, and this version "
            f"knows format {FORMAT}; restore it with that version"
        )
    return head


def _finish(
    path: Path,
    head: ArchiveHead,
    found: Mapping[str, tuple[int, str]],
    manifest: bytes,
    archive: tarfile.TarFile,
    end: tarfile.TarInfo | None,
) -> ArchiveSummary:
    if end is None or end.name != END:
        raise InvalidBackup(f"{path}: it ends too early, so not everything is in it; make the backup again")
    if _bytes_of(path, archive, end) != hashlib.sha256(manifest).hexdigest().encode():
        raise InvalidBackup(f"{path}: the digest of its manifest is another one: it is damaged; use another backup")
    fields = _json(path, manifest)
    try:
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in fields["files"].items()}
        streams = {
            str(name): StreamPositions(**known_fields(StreamPositions, each))
            for name, each in fields["streams"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidBackup(f"{path}: its manifest is damaged; use another backup") from None
    for name, wanted in files.items():
        if found.get(name) != wanted:
            raise InvalidBackup(
                f"{path}: {STORE}{name[:200]} is not as the manifest has it: it is damaged; use another backup"
            )
    return ArchiveSummary(head=head, files=files, streams=streams)


def _bytes_of(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if not entry.isreg() or entry.size > MOST_META_BYTES:
        raise InvalidBackup(f"{path}: {entry.name[:200]} is no small file: it is damaged; use another backup")
    return b"".join(_blocks(archive, entry))


def _blocks(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    source = archive.extractfile(entry)
    assert source is not None
    left = entry.size
    while left:
        block = source.read(min(left, BLOCK))
        if not block:
            raise EOFError("it ends too early")
        left -= len(block)
        yield block


def _store_path(path: Path, entry: tarfile.TarInfo) -> str:
    """The path of a file below the store."""
    name = entry.name.removeprefix(STORE)
    steps = name.split("/")
    if (
        not entry.isreg()
        or not entry.name.startswith(STORE)
        or len(name) > MOST_PATH_CHARS
        or _CONTROL.search(name)
        or any(step in ("", ".", "..") for step in steps)
    ):
        raise InvalidBackup(f"{path}: {entry.name[:200]!r} is nothing that a backup holds; use another backup")
    return name


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InvalidBackup(f"{path}: it is damaged: a part that is to be a JSON object is none; use another backup")
    return fields
