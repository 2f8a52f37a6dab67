"""Ctrl-C that is heard while a command waits for what another process sends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["heard_interrupts"]

AGAIN_S: Final = 0.05  #: after which a signal that was not heard is sent again


@contextmanager
def heard_interrupts() -> Iterator[None]:
    """Ctrl-C in this block raises `KeyboardInterrupt`, once, also when it comes in the instant before a read or a sleep begins. A signal
    ends no wait that begins after it, and Python would hear of it only when the wait has ended; so it is sent again until it is heard.

    For the main thread; elsewhere, and where interrupts are ignored, it does nothing.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    repeating = _Repeating(main.ident)
    signal.signal(signal.SIGINT, repeating.hear)
    before = signal.set_wakeup_fd(repeating.told, warn_on_full_buffer=False)
    repeating.start()
    try:
        yield
    finally:
        repeating.end()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        repeating.close()


class _Repeating(threading.Thread):
    """Reads of signals from the pipe into which the interpreter writes them as they come."""

    def __init__(self, main: int | None) -> None:
        super().__init__(name="whenthen-interrupts", daemon=True)
        assert main is not None
        self._main = main
        self._heard = False  # no lock, which a handler might find held by the very code that it interrupts
        self._reads, self.told = os.pipe()
        os.set_blocking(self.told, False)

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        if not self._heard:
            self._heard = True
            raise KeyboardInterrupt

    def run(self) -> None:
        while os.read(self._reads, 1) != bytes([signal.SIGINT]):
            continue
        while not self._heard:
            signal.pthread_kill(self._main, signal.SIGINT)
            time.sleep(AGAIN_S)

    def end(self) -> None:
        self._heard = True
        os.write(self.told, bytes([signal.SIGINT]))
        self.join()

    def close(self) -> None:
        os.close(self._reads)
        os.close(self.told)
