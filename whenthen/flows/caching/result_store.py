"""Results in a folder, one file each, written whole or not at all. Several processes may use one folder.

A file is one line of JSON (format, serializer, expiry) and the value behind it. A file that can not be read again, because it was cut,
because its class has gone, or because a newer version wrote it, is a result that is not there: a warning, and the task runs.

Results are read with pickle, which executes what it reads: the folder must be writable for nobody else, like the program itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from whenthen.flows.caching.result_forms import FORMS, form_of
from whenthen.flows.clock import utc_now
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.flow_errors import ConfigurationError

__all__ = ["ResultStore", "persists_by_default", "refreshes_by_default", "results_folder"]

FORMAT: Final = 1
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


def results_folder() -> Path:
    """Where results are kept unless a flow or task says otherwise: `WHENTHEN_RESULTS`, or `.whenthen/results` here."""
    return Path(os.environ.get("WHENTHEN_RESULTS") or Path(".whenthen") / "results")


def persists_by_default() -> bool:
    return _switched_on("WHENTHEN_PERSIST_RESULTS")


def refreshes_by_default() -> bool:
    return _switched_on("WHENTHEN_REFRESH_CACHE")


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


class ResultStore:
    """The results in one folder, which is made when the first one is written."""

    __slots__ = ("folder", "serializer")

    def __init__(self, storage: Any = None, serializer: Any = None) -> None:
        self.folder = _folder_of(storage)
        self.serializer = form_of(serializer)

    def path(self, key: str) -> Path:
        """The file of a key: plain keys name it, others are hashed."""
        name = (
            key
            if PLAIN_NAME.fullmatch(key)
            else hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        )
        return self.folder / name

    def named_path(self, name: str) -> Path:
        """The file of a `result_storage_key`, which the user names.

        Raises:
            ConfigurationError: it leaves the folder.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigurationError(
                f"result_storage_key: {name!r} leaves the folder {self.folder}; give a path within it"
            )
        return path

    def exists(self, path: Path) -> bool:
        """Whether there is a result that has not expired."""
        try:
            with path.open("rb") as file:
                return _head(file) is not None
        except OSError:
            return False

    def read(self, path: Path) -> tuple[Any] | None:
        """The value in a tuple, or None when there is none, it has expired, or it can not be read."""
        try:
            with path.open("rb") as file:
                head = _head(file)
                return None if head is None else (FORMS[head["serializer"]].load(file),)
        except FileNotFoundError:
            return None
        except Exception as problem:
            engine_logger().warning(
                "the kept result %s can not be read, so the task runs: %s: %s", path, type(problem).__name__, problem
            )
            return None

    def write(self, path: Path, value: Any, *, expires: datetime | None = None) -> None:
        """Keep `value`, in the place of what was there.

        Raises:
            SerializationError: the value can not be written in this form.
            OSError: the folder is full, read-only, or none.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {
            "format": FORMAT,
            "serializer": self.serializer.type,
            "expires": None if expires is None else expires.timestamp(),
        }
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(head).encode() + b"\n")
                self.serializer.dump(value, file)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def _head(file: BinaryIO) -> dict[str, Any] | None:
    """The first line of a result's file; None when it is none that this version reads, or says that the result has expired."""
    try:
        head = json.loads(file.readline(65536))
    except ValueError:
        return None
    if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("serializer") not in FORMS:
        return None
    expires = head.get("expires")
    return None if expires is not None and expires <= utc_now().timestamp() else head


def _folder_of(storage: Any) -> Path:
    if storage is None:
        return results_folder()
    if isinstance(storage, (str, Path)):
        return Path(storage).expanduser()
    if (base := getattr(storage, "basepath", None)) is not None:
        return Path(base).expanduser()
    raise ConfigurationError(
        f"result_storage: {storage!r:.80} is no folder; give a path as text, a Path, or LocalFileSystem(basepath=...)"
    )
