"""The API token that `whenthen serve` makes for itself, and where commands of the same user find it.

It is made at the first start and stays in the data directory. While the server runs it is noted for its user (`whenthen.noted_tokens`). Both
files are readable by their owner only; another user has to be given the token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from whenthen import noted_tokens
from whenthen.noted_tokens import TokenFileError, note_name, read_token_file, started_at, state_folder
from whenthen.schemas.errors import SetupError

__all__ = ["FILE_NAME", "find_token", "forget_token", "note_token", "state_folder", "token_of"]

FILE_NAME = "api-token"  #: in the data directory


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
        return read_token_file(path)[0]
    except TokenFileError as error:
        raise SetupError(str(error)) from None
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
    path = folder / note_name(url)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, f"{token}\n{os.getpid()} {started_at(os.getpid())}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def forget_token(url: str, token: str | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Drop what is noted for `url`; with `token` only if it is that one."""
    path = state_folder(environment) / note_name(url)
    with contextlib.suppress(OSError, TokenFileError, UnicodeDecodeError):
        if token is None or read_token_file(path)[0] == token:
            path.unlink()


def find_token(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """See `noted_tokens.find_token`.

    Raises:
        SetupError: there is one that others can read or have put there.
    """
    try:
        return noted_tokens.find_token(url, environment)
    except TokenFileError as error:
        raise SetupError(str(error)) from None


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
