"""One run at a time for one key: a lock between threads and between processes of one machine, for `SERIALIZABLE` isolation.

The operating system frees the lock of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from whenthen.flows.execution.run_contexts import place_given_away

__all__ = ["KeyLock", "held_lock"]


class KeyLock:
    """A lock that is held until it is released."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def held_lock(result: Path) -> KeyLock:
    """The lock of a kept result, waited for as long as another run holds it.

    The file of the lock stays: to remove it while another process opens it would give two holders.
    """
    result.parent.mkdir(parents=True, exist_ok=True)
    path = result.with_name(f".lock-{result.name}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with place_given_away():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return KeyLock(descriptor)
