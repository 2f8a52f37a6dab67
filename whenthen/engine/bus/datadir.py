"""The data directory: its lock, and the logins of the nats-server in it.

The lock is held by one process at a time, released by the system after a crash, and acquired before anything else. The logins
are made at the first start and lie in files of mode 0600. Whoever is the same Unix user can read them, and nobody else
(docs/scaling.md, "Who is admitted to NATS").
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from whenthen.schemas.errors import SetupError

__all__ = ["DataDir", "Login", "embedded_url", "find_login", "keep_login", "read_login", "write_private"]

log = logging.getLogger(__name__)

APPLICATION_FILE = "credentials"  #: in the folder `nats` of the data directory
SYSTEM_FILE = "system-credentials"
_PASSWORD_BYTES = 32
_LEAST_CHARS = 32  #: of a password that is taken from a file
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Login:
    """A user of a NATS server and its password."""

    user: str
    password: str = field(repr=False)


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


def keep_login(path: Path, user: str) -> Login:
    """The login of `user` that `path` holds, made now when there is none that can be trusted. The file has mode 0600.

    A file that others could read or that is damaged is replaced: the server that this is for starts after it.

    Raises:
        OSError: it can not be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_mode & 0o177077 == 0o100000:
            try:
                found = read_login(path)
            except SetupError as error:
                log.warning("%s; a new login is made", error)
            else:
                if found.user == user and len(found.password) >= _LEAST_CHARS:
                    return found
        else:
            log.warning("%s is no file of the service user alone (mode 0600); a new login is made", path)
    login = Login(user, secrets.token_urlsafe(_PASSWORD_BYTES))
    write_private(path, json.dumps({"user": login.user, "password": login.password}) + "\n")
    return login


def read_login(path: Path) -> Login:
    """The login in a file that `keep_login` made.

    Raises:
        SetupError: it is missing, can not be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_MAX_FILE_BYTES))
        return Login(str(fields["user"]), str(fields["password"]))
    except OSError as error:
        raise SetupError(f"{path}: the NATS login can not be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SetupError(f'{path}: no NATS login; expected {{"user": ..., "password": ...}}') from None


def find_login(data_dir: Path, port: int | None) -> Login | None:
    """The login of the nats-server of a data directory, when that server listens on `port` of this machine."""
    try:
        if int((data_dir / "nats" / "port").read_text()) != port:
            return None
        return read_login(data_dir / "nats" / APPLICATION_FILE)
    except (OSError, ValueError, SetupError):
        return None


def embedded_url(data_dir: Path) -> str:
    """The URL of the nats-server of a data directory with its login, for tools of the same user. Keep it off command lines."""
    login = read_login(data_dir / "nats" / APPLICATION_FILE)
    port = (data_dir / "nats" / "port").read_text().strip()
    return f"nats://{quote(login.user)}:{quote(login.password)}@127.0.0.1:{port}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in place of what was there.

    Raises:
        OSError: it can not be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
