"""A `whenthen` command as a child process of a script: it ends with the script, is drained by a signal, and ended by a second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from whenthen.supervision import bound_to

__all__ = ["ChildCommand"]


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
            preexec_fn=bound_to(os.getpid(), signal.SIGTERM) if sys.platform == "linux" else None,
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
