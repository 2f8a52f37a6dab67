"""A lock of a module that its threads share, and that a fork finds free."""

from __future__ import annotations

import os
import threading

__all__ = ["ForkLock"]


class ForkLock:
    """Holds a `lock`, in whose place a fork has a new one: a thread that is not there may have held the old one.

    Whoever forks within `with fork_lock.lock:` gives back the old one in both processes. It is never forgotten: make one for a module, not
    for each run.
    """

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()
