"""Ends a process whose event loop stands still: a thread that looks whether the loop went round.

It writes the stacks of all threads to the log, notes what was at hand on the shared page, and ends the process at once; the parent
(`parent_process`) starts it again. While C code keeps the interpreter from running any thread, this one does not run either: then
the parent sees the beat stand still, a little later.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from whenthen.supervision.at_hand import Work
from whenthen.supervision.shared_page import SharedPage
from whenthen.supervision.standstill import Standstill, thread_state

__all__ = ["HUNG_CODE", "Watchdog"]

log = logging.getLogger(__name__)

HUNG_CODE = 70  #: of the exit, as EX_SOFTWARE of sysexits.h
_LONGEST_STEP_S = 1.0
_STEPS = 20  #: looks within `hang_after`


class Timer(Protocol):
    """What `asyncio.TimerHandle` is."""

    def cancel(self) -> None: ...


class EventLoop(Protocol):
    """What is needed of `asyncio.AbstractEventLoop`; the parent imports no asyncio."""

    def call_later(self, delay: float, callback: Callable[[EventLoop], None], argument: EventLoop, /) -> Timer: ...


class Watchdog:
    """`start` on the thread of the event loop; `stop` before it ends. Does nothing where no parent would start it again."""

    def __init__(
        self, page: SharedPage, *, hang_after_s: float, suspect: Callable[[int], str] = lambda shard: ""
    ) -> None:
        self._page = page
        self._suspect = suspect  #: the automation that a shard is looking at
        self._hang_after_s = hang_after_s
        self._step_s = min(hang_after_s / _STEPS, _LONGEST_STEP_S)
        self._beat: Timer | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, loop: EventLoop) -> None:
        """Watch `loop`, which runs on this thread."""
        if not self._page.supervised or self._thread is not None:
            return
        # the parent asks for the stacks in this way where no Python code can run any more
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__ or 2, all_threads=True)
        self._go_round(loop)
        self._page.watch(self._hang_after_s)
        thread = threading.get_native_id()
        self._thread = threading.Thread(target=self._run, args=(thread,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._thread is None:
            return
        self._page.watch(0)
        self._ended.set()
        self._thread.join()
        if self._beat is not None:
            self._beat.cancel()

    def _go_round(self, loop: EventLoop) -> None:
        self._page.beat()
        self._beat = loop.call_later(self._step_s, self._go_round, loop)

    def _run(self, thread: int) -> None:
        still = Standstill(self._step_s)
        while not self._ended.wait(self._step_s):
            state, cpu_s = thread_state(os.getpid(), thread)
            stood_s = still.look(time.monotonic(), beats=self._page.beats, state=state, cpu_s=cpu_s)
            if stood_s >= self._hang_after_s:
                self._end(stood_s)

    def _end(self, stood_s: float) -> None:
        beats = self._page.beats
        at_hand = self._page.at_hand.read()
        automation = self._suspect(at_hand.shard) if at_hand is not None and at_hand.kind is Work.EVENT else ""
        item = self._page.note_hang(automation)
        log.critical(
            "the process hangs on %s%s: its event loop stood still for %.1f s (hang_after); it ends and is started again. "
            "Stacks of its threads:\n%s",
            item or "nothing that is known",
            f", at automation {automation}" if automation else "",
            stood_s,
            _stacks(),
        )
        if self._page.beats != beats:
            log.warning("the event loop goes on by itself; the process stays")
            self._page.forget_before()
            return
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(HUNG_CODE)


def _stacks() -> str:
    """What every thread is doing, the newest call first."""
    fd = os.memfd_create("stacks")
    try:
        faulthandler.dump_traceback(file=fd, all_threads=True)
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, 1 << 20).decode(errors="replace")
    finally:
        os.close(fd)
