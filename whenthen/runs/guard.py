"""Starts one command in its own process group, and stops the whole group when the worker dies.

`processes` runs this file by its path, isolated from site packages, so it needs nothing but the standard library. Its
standard input is a pipe that the worker keeps open: when it closes, the worker has died, and the group is stopped.
The guard exits with the command's exit code, or by the signal that killed it.

    python -I -S guard.py GRACE_SECONDS COMMAND [WORD...]
    python -I -S guard.py GRACE_SECONDS --waiting DESCRIPTOR COMMAND [WORD...]

In the second form the command waits for a run, which it is told over the descriptor. Standard input is a socket then, over which the guard
is given what it is to keep open.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as `typing` has it, which takes a third of the time of a start, as `subprocess` would
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["main"]

CANNOT_EXECUTE = 126  #: as shells have it


def main(arguments: list[str]) -> int:
    grace_s, words = float(arguments[0]), arguments[1:]
    given: list[int] = []
    hears: Callable[[], bytes] = _read
    if words[0] == "--waiting":
        given, words = [int(words[1])], words[2:]
        hears = _kept()
    # functions, not SIG_IGN: an ignored signal would be ignored by the command too
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    try:
        command = _Command(words, given)
    except OSError as error:
        print(f"command {words[0]!r} can not be started: {error.strerror or error}", file=sys.stderr, flush=True)
        return CANNOT_EXECUTE
    for descriptor in given:
        os.close(descriptor)
    while (code := command.poll()) is None:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            try:
                os.read(wake_read, 4096)
            except BlockingIOError:
                pass
        if 0 in ready and not hears():
            _end_group(command, grace_s)
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


class _Command:
    """The command, a child of this process, with the descriptors `given` and its standard streams alone."""

    def __init__(self, words: list[str], given: Collection[int]) -> None:
        """
        Raises:
            OSError: it can not be started.
        """
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in given:
                try:
                    os.set_inheritable(int(name), False)
                except OSError:  # that of the listing
                    pass
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        self._pid = os.posix_spawnp(
            words[0],
            words,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _read() -> bytes:
    return os.read(0, 4096)


def _kept() -> Callable[[], bytes]:
    """Reads from standard input, and keeps descriptors that come with it."""
    import socket  # which the guards of other commands start without

    told = socket.socket(fileno=0)

    def hear() -> bytes:
        return socket.recv_fds(told, 4096, 16)[0]

    return hear


def _end_group(command: _Command, grace_s: float) -> None:
    os.killpg(0, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while command.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
