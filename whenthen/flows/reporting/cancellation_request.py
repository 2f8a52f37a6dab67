"""Hearing that the worker cancels the run of this process: it writes why it stops the run into a file beside its socket, and sends SIGTERM.

The run then ends as Cancelled and its `on_cancellation` hooks are called, within the time that the worker gives it. A SIGTERM for another reason
ends the process as it does everywhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, Final

from whenthen.flows.execution.cancel_scope import Stopped

__all__ = ["CancellationRequest", "cancellation_heard", "is_cancellation_asked"]

REASON_NAME: Final = "stopping"  #: the file; `runs.attempts.attempt_execution` writes it
CANCELLED: Final = "cancelled"


class CancellationRequest:
    """Whether it was asked for."""

    def __init__(self, reason: Path) -> None:
        self.asked = False
        self.task: asyncio.Task[Any] | None = None  #: of an async flow
        self._reason = reason

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a further one ends the process
        if self._read() != CANCELLED:
            os.kill(os.getpid(), number)
            return
        self.asked = True
        if self.task is None:
            raise Stopped
        self.task.get_loop().call_soon_threadsafe(self.task.cancel)

    def _read(self) -> str:
        try:
            return self._reason.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


REQUEST: ContextVar[CancellationRequest | None] = ContextVar("whenthen.cancellation_request", default=None)


def is_cancellation_asked() -> bool:
    """Whether the worker cancels the run."""
    request = REQUEST.get()
    return request is not None and request.asked


@contextmanager
def cancellation_heard(environment: Mapping[str, str]) -> Iterator[CancellationRequest | None]:
    """Hear of it in this block; None where there is no worker, or where the program has its own answer to SIGTERM."""
    path = environment.get("WHENTHEN_RUN_SOCKET")
    if (
        not path
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield None
        return
    request = CancellationRequest(Path(path).with_name(REASON_NAME))
    token = REQUEST.set(request)
    signal.signal(signal.SIGTERM, request.on_signal)
    try:
        yield request
    finally:
        REQUEST.reset(token)
        if signal.getsignal(signal.SIGTERM) == request.on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
