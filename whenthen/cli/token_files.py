"""The API token that `whenthen serve` makes for itself, and where commands of the same user find it.

It is made at the first start and stays in the data directory. While the server runs it is noted by the server's URL in the
user's state folder (`$XDG_STATE_HOME/whenthen`, else `~/.local/state/whenthen`), so that a command needs the URL alone. Both
files are readable by their owner only; another user has to be given the token.

A note names the process that listens, by its id and when it started. That of a server that was killed stays behind, and whoever listens at
its address by then is sent nothing. Where the process can not be seen, as from another container, no note counts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

from whenthen.schemas.errors import SetupError

__all__ = ["FILE_NAME", "find_token", "forget_token", "note_token", "state_folder", "token_of"]

FILE_NAME = "api-token"  #: in the data directory
_LEAST = 16  #: characters
_MOST = 4096  #: bytes that are read of a file
_START_FIELD = 19  #: of what follows the name in /proc/PID/stat: clock ticks from the boot to the start
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def token_of(data_dir: Path) -> str:
    """The token in `data_dir`, made if there is none. Two processes that start at once get the same one.

    Raises:
        SetupError: the file can not be written or read, is open to others, or holds no token.
    """
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            if not path.is_symlink() and not path.exists():
                _create(path, secrets.token_urlsafe(32))
        return _read(path)[0]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SetupError(
            f"{path}: the API token can not be kept here: {reason}; set WHENTHEN_API_TOKEN, or another --data-dir"
        ) from None


def note_token(url: str, token: str, environment: Mapping[str, str] | None = None) -> None:
    """Note the token of the server at `url`, this process, for commands of this user; takes the place of an older one.

    Raises:
        OSError: the state folder can not be written.
    """
    folder = state_folder(environment)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    path = folder / _name(url)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, f"{token}\n{os.getpid()} {_started(os.getpid())}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def forget_token(url: str, token: str | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Drop what is noted for `url`; with `token` only if it is that one."""
    path = state_folder(environment) / _name(url)
    with contextlib.suppress(OSError, SetupError, UnicodeDecodeError):
        if token is None or _read(path)[0] == token:
            path.unlink()


def find_token(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The token noted for `url` by a process that still runs; None when there is none.

    Raises:
        SetupError: there is one that others can read or have put there.
    """
    folder = state_folder(environment)
    for name in _names(url):
        path = folder / name
        try:
            token, about = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise SetupError(f"{path}: the API token can not be read: {reason}; set WHENTHEN_API_TOKEN") from None
        pid, _, started = about.partition(" ")
        if pid.isdecimal() and started and started == _started(int(pid)):
            return token
    return None


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this user's tokens are noted."""
    environment = os.environ if environment is None else environment
    written = environment.get("XDG_STATE_HOME", "")
    # the XDG specification has relative paths ignored
    base = Path(written) if os.path.isabs(written) else Path(os.path.expanduser("~")) / ".local" / "state"
    return base / "whenthen"


def _create(path: Path, token: str) -> None:
    """Write a file that must not exist; whoever sees it sees it whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, token)
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write(path: Path, token: str) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(number, "w", encoding="utf-8") as file:
        file.write(token + "\n")


def _started(pid: int) -> str:
    """When a process started, as a word that no later process of its id has; empty when there is none, or none to be seen."""
    try:
        # the name of the program, in parentheses, may hold anything; what follows it are numbers
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{int(fields[_START_FIELD])}"
    except (OSError, ValueError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # other systems than Linux
        told = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return "-".join(told.stdout.split())


def _read(path: Path) -> tuple[str, str]:
    """The token of a file, and the line after it."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(number, "rb") as file:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise SetupError(f"{path}: not a regular file; remove it")
        if about.st_uid not in (os.geteuid(), 0):
            raise SetupError(f"{path}: belongs to another user; remove it, or set WHENTHEN_API_TOKEN")
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise SetupError(
                f"{path}: others can read the API token; remove the file, so that a new one is made at the next start"
            )
        token, _, note = file.read(_MOST).decode("utf-8").strip().partition("\n")
    if len(token) < _LEAST or not token.isascii() or not token.isprintable() or " " in token:
        raise SetupError(f"{path}: no API token ({_LEAST} characters or more); remove the file, and a new one is made")
    return token, note


def _names(url: str) -> list[str]:
    """Under which names a token of `url` may be noted: loopback's names are one machine."""
    split = _split(url)
    host = split.hostname or ""
    hosts = [host, *(other for other in _LOOPBACK if other != host)] if host in _LOOPBACK else [host]
    return [_name(f"{split.scheme}://{f'[{name}]' if ':' in name else name}:{_port(url)}") for name in hosts]


def _name(url: str) -> str:
    split = _split(url)
    host = split.hostname or ""
    return quote(f"{split.scheme}://{f'[{host}]' if ':' in host else host}:{_port(url)}", safe="")[:200]


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"http://{url}")


def _port(url: str) -> int:
    try:
        return _split(url).port or (443 if _split(url).scheme == "https" else 80)
    except ValueError:
        return 0
