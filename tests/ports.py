"""Ports for servers that a test starts: no two tests have the same one, whatever many run at one time.

A port that the kernel gave and that was given back may be given to somebody else before its server, a process that starts yet, binds it.
These lie below those that the kernel gives, and are kept by name from the other processes of tests.
"""

from __future__ import annotations

import atexit
import random
import socket
from collections import deque
from pathlib import Path

__all__ = ["free_port", "free_ports"]

LOWEST = 10_240
MOST_KEPT = 64  #: of the names of one process; whoever had an earlier one has bound its port long since
_kept: deque[socket.socket] = deque()


@atexit.register
def _give_back() -> None:
    while _kept:
        _kept.pop().close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no other test gets."""
    while True:
        port = random.SystemRandom().randrange(LOWEST, _lowest_of_kernel())  # not the draws of a test, which repeat
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0port {port} of the tests of whenthen")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _kept.append(name)
        if len(_kept) > MOST_KEPT:
            _kept.popleft().close()
        return port


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def _lowest_of_kernel() -> int:
    found = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return found if found > 2 * LOWEST else 32_768
