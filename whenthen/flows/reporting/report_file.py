"""Where reports go while the worker is slow or gone: files in the folder `reports` beside the socket, which a worker reads.

A worker removes a file that was closed (`ReportFiles.close`), and the rest when the run has ended. Of lines that may be left out at most
`ROOM_BYTES` lie there unread; further ones are counted, and the count is told. The others are always written; those that the disk refuses
wait in memory. Meaning: docs/deployments.md, "What a run tells its worker".
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final

__all__ = ["HELD_BYTES", "ROOM_BYTES", "SENT_BYTES", "ReportFiles", "SentLines", "dropped_line"]

ROOM_BYTES: Final = 8 << 20  #: of this process's files, beyond which lines that may be left out are
HELD_BYTES: Final = 32 << 20  #: of lines that the disk refuses; what passes it is lost, and counted


#: of one file of lines that went over the socket, which the worker removes when it has stored them
SENT_BYTES: Final = 4 << 20


def dropped_line(lines: int) -> bytes:
    """What stands for lines that were left out."""
    return b'{"type":"dropped","lines":%d}\n' % lines


class _File:
    """A file that was made for appending, and that user code may close, or put another in the place of its descriptor."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(path, flags, 0o600)
        found = os.fstat(self.descriptor)
        self._inode = found.st_dev, found.st_ino

    def is_ours(self) -> bool:
        """Whether the descriptor is still that of the file."""
        try:
            found = os.fstat(self.descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def close(self) -> None:
        if self.is_ours():
            os.close(self.descriptor)


class SentLines:
    """What went over the socket and must not be lost, once more in files: whoever comes after a worker that died with it reads them."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process
        self._number = 0
        self._file: _File | None = None
        self._bytes = 0

    def write(self, line: bytes) -> str | None:
        """Append one line. Never raises. Gives the name of a file that is full: what the worker hears from now on is in another."""
        full = None
        try:
            if self._file is None or not self._file.is_ours():
                self._number += 1
                self._bytes = 0
                self._file = _File(self._folder / self._name)
            self._bytes += os.write(self._file.descriptor, line)
            if self._bytes > SENT_BYTES:
                full = self._name
                self.forget()
        except OSError:  # a full disk, or a folder that is gone: the socket has the line
            pass
        return full

    def forget(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _name(self) -> str:
        return f"{self._process}-{self._number:06}.sent"


class ReportFiles:
    """The files of one process, one after the other. Not safe between threads: its owner has a lock."""

    def __init__(self, folder: Path, process: str) -> None:
        self.dropped = 0  #: lines that were left out and not told of yet
        self._folder = folder
        self._process = process
        self._number = 0
        self._written: _File | None = None
        self._bytes = 0
        self._closed: dict[str, int] = {}  #: files that are left to the worker, and how large each is
        self._held: deque[bytes] = deque()
        self._held_bytes = 0

    def write(self, line: bytes, *, may_drop: bool) -> None:
        """Append one line. Never raises."""
        if may_drop and self._bytes + sum(self._closed.values()) + len(line) > ROOM_BYTES:
            self._closed = {name: size for name, size in self._closed.items() if (self._folder / name).exists()}
            if self._bytes + sum(self._closed.values()) + len(line) > ROOM_BYTES:
                self.dropped += 1
                return
        if self.dropped and not self._held:
            told, self.dropped = dropped_line(self.dropped), 0
            self._hold(told)
        if may_drop and self._held:
            self.dropped += 1
            return
        self._hold(line)
        self._write_held()

    def close(self) -> list[str]:
        """Leave what is written to the worker. Gives the names of all files that it may not have read."""
        self._write_held()
        self._closed = {name: size for name, size in self._closed.items() if (self._folder / name).exists()}
        if self._written is not None:
            self._closed[self._name] = self._bytes
            self._written.close()
            self._written = None
            self._bytes = 0
        return list(self._closed)

    def forget(self) -> None:
        """In a fork: the files are the parent's."""
        if self._written is not None:
            self._written.close()
            self._written = None

    @property
    def _name(self) -> str:
        return f"{self._process}-{self._number:06}.jsonl"

    def _hold(self, line: bytes) -> None:
        self._held.append(line)
        self._held_bytes += len(line)
        while self._held_bytes > HELD_BYTES and len(self._held) > 1:
            self._held_bytes -= len(self._held.popleft())
            self.dropped += 1

    def _write_held(self) -> None:
        try:
            while self._held:
                line = self._held[0]
                written = os.write(self._file(), line)
                self._bytes += written
                if written < len(line):  # the disk is full: its reader takes a line that has no end for none
                    self._held[0] = line if self._ends_broken_line() else b"\n" + line
                    return
                self._held.popleft()
                self._held_bytes -= len(line)
        except FileNotFoundError:  # the folder is gone: the run has ended for its worker, and nobody reads any more
            self._held.clear()
            self._held_bytes = self.dropped = 0
        except OSError:
            return

    def _ends_broken_line(self) -> bool:
        """End a line of which the disk took a part. Gives whether the disk took that."""
        try:
            return os.write(self._file(), b"\n") == 1
        except OSError:
            return False

    def _file(self) -> int:
        if self._written is not None and self._written.is_ours():
            return self._written.descriptor
        # not the old one, even if user code closed its descriptor: the worker may have read to its end
        if self._written is not None:
            self._closed[self._name] = self._bytes
        self._number += 1
        self._bytes = 0
        self._written = _File(self._folder / self._name)
        return self._written.descriptor
