"""What `print` does in a run with `log_prints`: a line in the run's log. Elsewhere it stays what it is.

`builtins.print` is replaced while such a run goes on, and put back when the last one has ended; who replaced it in between keeps his.
"""

from __future__ import annotations

import builtins
import io
from contextvars import ContextVar
from typing import Any

from whenthen.flows.execution.run_logging import get_run_logger
from whenthen.flows.fork_lock import ForkLock

__all__ = ["LogPrints"]

PRINTS: ContextVar[bool] = ContextVar("whenthen.prints", default=False)


class _Prints:
    """The function that stands for `print`, and how many runs need it."""

    def __init__(self) -> None:
        self._guard = ForkLock()
        self._runs = 0
        self._original: Any = builtins.print

    def __call__(
        self, *values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
    ) -> None:
        if file is not None or not PRINTS.get():
            self._original(*values, sep=sep, end=end, file=file, flush=flush)
            return
        text = io.StringIO()
        self._original(*values, sep=sep, end="", file=text)
        get_run_logger().info("%s", text.getvalue())

    def enter(self) -> None:
        with self._guard.lock:
            if self._runs == 0:
                self._original = builtins.print
                builtins.print = self
            self._runs += 1

    def leave(self) -> None:
        with self._guard.lock:
            self._runs -= 1
            current: Any = builtins.print
            if self._runs == 0 and current is self:
                builtins.print = self._original


_PRINTS = _Prints()


class LogPrints:
    """A context in which prints are logged, or are not."""

    __slots__ = ("_on", "_token")

    def __init__(self, on: bool) -> None:
        self._on = on

    def __enter__(self) -> None:
        self._token = PRINTS.set(self._on)
        if self._on:
            _PRINTS.enter()

    def __exit__(self, *error: object) -> None:
        PRINTS.reset(self._token)
        if self._on:
            _PRINTS.leave()
