"""Who uses this machine, for records that people read. With the standard library alone, since the SDK asks, too."""

from __future__ import annotations

import getpass
import socket

__all__ = ["user_at_host", "user_name"]

MAX_CHARS = 200


def user_name(unknown: str) -> str:
    """The name of the user; `unknown` where there is none."""
    try:
        return getpass.getuser()[:MAX_CHARS]
    except (KeyError, OSError):  # no entry of the user database, as in many containers
        return unknown


def user_at_host() -> str:
    """The user and the machine: `ada@build-7`."""
    return f"{user_name('unknown')}@{socket.gethostname()}"[:MAX_CHARS]
