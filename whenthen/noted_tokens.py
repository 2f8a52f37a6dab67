"""Where the token of a running server is noted for its user, and reading it. With the standard library alone, since the SDK does it, too.

`whenthen serve` notes it (`cli.token_files`) by the server's URL in the user's state folder (`$XDG_STATE_HOME/whenthen`, else
`~/.local/state/whenthen`), so that commands and scripts of the same user need the URL alone. A note names the process that listens, by its id
and when it started: that of a server that was killed stays behind, and whoever listens at its address by then is sent nothing. Where the process
can not be seen, as from another container, no note counts.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

__all__ = ["TokenFileError", "find_token", "note_name", "read_token_file", "started_at", "state_folder"]

_LEAST = 16  #: characters
_MOST = 4096  #: bytes that are read of a file
_START_FIELD = 19  #: of what follows the name in /proc/PID/stat: clock ticks from the boot to the start
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class TokenFileError(Exception):
    """A file that should hold a token can not be trusted or read."""


def find_token(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The token noted for `url` by a process that still runs; None when there is none.

    Raises:
        TokenFileError: there is one that others can read or have put there.
    """
    folder = state_folder(environment)
    for name in _names(url):
        path = folder / name
        try:
            token, about = read_token_file(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise TokenFileError(f"{path}: the API token can not be read: {reason}; set WHENTHEN_API_TOKEN") from None
        pid, _, started = about.partition(" ")
        if pid.isdecimal() and started and started == started_at(int(pid)):
            return token
    return None


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this user's tokens are noted."""
    environment = os.environ if environment is None else environment
    written = environment.get("XDG_STATE_HOME", "")
    # the XDG specification has relative paths ignored
    base = Path(written) if os.path.isabs(written) else Path(os.path.expanduser("~")) / ".local" / "state"
    return base / "whenthen"


def note_name(url: str) -> str:
    """The name of the file that notes the token of the server at `url`."""
    split = _split(url)
    host = split.hostname or ""
    return quote(f"{split.scheme}://{f'[{host}]' if ':' in host else host}:{_port(url)}", safe="")[:200]


def read_token_file(path: Path) -> tuple[str, str]:
    """The token of a file, and the line after it."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(number, "rb") as file:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise TokenFileError(f"{path}: not a regular file; remove it")
        if about.st_uid not in (os.geteuid(), 0):
            raise TokenFileError(f"{path}: belongs to another user; remove it, or set WHENTHEN_API_TOKEN")
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise TokenFileError(
                f"{path}: others can read the API token; remove the file, so that a new one is made at the next start"
            )
        token, _, note = file.read(_MOST).decode("utf-8").strip().partition("\n")
    if len(token) < _LEAST or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenFileError(
            f"{path}: no API token ({_LEAST} characters or more); remove the file, and a new one is made"
        )
    return token, note


def started_at(pid: int) -> str:
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


def _names(url: str) -> list[str]:
    """Under which names a token of `url` may be noted: loopback's names are one machine."""
    split = _split(url)
    host = split.hostname or ""
    hosts = [host, *(other for other in _LOOPBACK if other != host)] if host in _LOOPBACK else [host]
    return [note_name(f"{split.scheme}://{f'[{name}]' if ':' in name else name}:{_port(url)}") for name in hosts]


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"http://{url}")


def _port(url: str) -> int:
    try:
        return _split(url).port or (443 if _split(url).scheme == "https" else 80)
    except ValueError:
        return 0
