"""The lock of the data directory: one process at a time, released by the system after a crash. Acquired before anything else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from whenthen.schemas import SetupError

__all__ = ["DataDir"]


class DataDir:
    """Holds the lock of a data directory from `acquire` until `release` or the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Create the directory and lock it.

        Raises:
            SetupError: another process has it (its id is in the message), or it can not be written.
        """
        lock = self.path / "lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(f"{self.path}: the data directory can not be used: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise SetupError(
                f"{self.path}: in use by process {owner or 'of unknown id'}; stop it, or choose another --data-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Release the lock."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None
