"""A `whenthen` command as a child process of a script: it ends with the script, is drained by a signal, and ended by a second one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

__all__ = ["ChildCommand"]

PR_SET_PDEATHSIG = 1  #: prctl(2)


class ChildCommand:
    """Started at once, in a session of its own: Ctrl-C reaches it through the script alone. What it logs goes to standard error."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = f"whenthen {words[0]}"
        # -P: a file of the user beside the script is not to stand in for a module that the command imports
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "whenthen.cli.main", *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_drain_with_parent(os.getpid()) if sys.platform == "linux" else None,
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Have it drain; called again, end at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code; None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def _drain_with_parent(parent: int) -> Callable[[], None]:
    """What has the kernel send SIGTERM to the child when the script ends, however that ends."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the kernel was told
            os._exit(1)

    return prepare
