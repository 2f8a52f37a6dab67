"""Children that do not outlive their parent, however that ends. Linux only: the kernel sends them a signal (prctl(2), PR_SET_PDEATHSIG)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

__all__ = ["bound_to", "fork_bound"]

PR_SET_PDEATHSIG = 1  #: prctl(2)


def fork_bound(number: signal.Signals) -> int:
    """As `os.fork`; the child gets the signal `number` when this process ends. To be called where there are no other threads."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what is in them would be written twice
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        bound_to(parent, number)()
    return child


def bound_to(parent: int, number: signal.Signals) -> Callable[[], None]:
    """What a child of the process `parent` calls first: from then on it gets the signal `number` when its parent ends.

    All is loaded before the call, which may be a `preexec_fn`: a child of a process with threads can load nothing.
    """
    import ctypes  # `supervise` has it loaded by its child alone

    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the kernel was told
            os._exit(1)

    return bind
