"""The parent of a `whenthen serve`: forks the process that does the work, passes signals on, and forks again when it is needed.

Called by the command line before anything is imported that the parent does not need, so a start costs no second interpreter. The
parent has one thread and no event loop; it sleeps in `sigtimedwait`. Its child dies with it (`bound_children`), and so does what
the child started. How the child ends is how the parent ends, unless the child is started again:

- It ended by itself: with 0, for a reason that starting again does not mend (`SharedPage.mark_for_good`), before any child was ready,
  or after a signal that asks to stop: the parent ends in the same way.
- Anything else, a signal among it: it is started again, at once after it was well for a while, otherwise after a pause that doubles.
- It hangs: the watchdog in it ends it. Where that can not run, the parent kills it, a little later.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from whenthen.supervision.bound_children import fork_bound
from whenthen.supervision.shared_page import SharedPage
from whenthen.supervision.standstill import Standstill, thread_state

__all__ = ["supervise"]

_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
#: a child that got one of these has a defect, and nobody sent it
_CRASH = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
_SAME_END = frozenset({*_STOP, signal.SIGKILL})  #: signals that the parent ends with as well; the others leave a core
PAUSE_S = (0.25, 30.0)  #: before a child is started again that was not well for long
WELL_S = 60.0
_LONGEST_STEP_S = 1.0
_STEPS = 20  #: looks within `hang_after`
#: the watchdog in the child comes first: it knows more
_LATER, _LATER_S = 1.2, 1.0
_STACKS_S = 1.0  #: that the child may take to write its stacks before it is killed


def supervise() -> SharedPage:
    """Return in a child process, with the page that it shares with its parent; the parent stays in here until it ends.

    Where nothing can be supervised, or nobody wants it, it returns in this very process.

    Raises:
        SystemExit: in the parent, with the exit code of the child.
    """
    if sys.platform != "linux":
        return SharedPage(
            why_not="no watchdog on this system, which has no prctl: a process that hangs is not started again"
        )
    if os.environ.get("WHENTHEN_WATCHDOG", "").strip().lower() in ("0", "false", "f", "no", "n", "off"):
        return SharedPage()
    return _Parent().run()


class _Parent:
    def __init__(self) -> None:
        self._page = SharedPage(supervised=True)
        self._stopping = False
        self._was_ready = False
        self._pause_s = PAUSE_S[0]

    def run(self) -> SharedPage:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, signal.SIGCHLD})
        while True:
            self._page.begin_child()
            started = time.monotonic()
            child = fork_bound(signal.SIGKILL)
            if child == 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                return self._page
            status = self._wait(child)
            if self._page.declined:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                return SharedPage()
            self._was_ready = self._was_ready or self._page.ready
            code = os.waitstatus_to_exitcode(status)
            self._page.note_end(child, max(0, -code), crashed=-code in _CRASH)
            if self._is_end(code) or self._stopped_in_pause(time.monotonic() - started):
                _end_like(code)

    def _is_end(self, code: int) -> bool:
        if self._stopping or code == 0 or self._page.for_good:
            return True
        return code > 0 and not self._was_ready and self._page.before is None

    def _stopped_in_pause(self, lived_s: float) -> bool:
        """Wait before the next start; whether a signal to stop came meanwhile."""
        if lived_s >= WELL_S:
            self._pause_s = PAUSE_S[0]
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_S[1])
        return signal.sigtimedwait(_STOP, pause_s) is not None

    def _wait(self, child: int) -> int:
        """Wait until the child ends, and give its status. Signals are passed on, and a child that hangs is killed."""
        still: Standstill | None = None
        step_s = _LONGEST_STEP_S
        while True:
            found = signal.sigtimedwait({*_STOP, signal.SIGCHLD}, step_s)
            if found is not None and found.si_signo in _STOP:
                self._stopping = True
                # a terminal sends SIGINT to the child, too: that one is not sent twice
                if found.si_signo != signal.SIGINT or found.si_code <= 0:
                    os.kill(child, found.si_signo)
            status = _reap(child)
            if status is not None:
                return status
            hang_after_s = self._page.hang_after_s
            if not hang_after_s:
                still = None
                continue
            if still is None:
                step_s = min(hang_after_s / _STEPS, _LONGEST_STEP_S)
                still = Standstill(step_s)
            state, cpu_s = thread_state(child, child)
            stood_s = still.look(time.monotonic(), beats=self._page.beats, state=state, cpu_s=cpu_s)
            if stood_s >= hang_after_s * _LATER + _LATER_S:
                self._page.note_hang()
                return _kill(child)


def _reap(child: int) -> int | None:
    """The status of the child when it has ended. As process 1 of a container the parent also takes in the children of the dead."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == child:
            return status
        if pid == 0:
            return None


def _kill(child: int) -> int:
    """Have a child that hangs write its stacks to its standard error, and kill it; gives its status."""
    os.kill(child, signal.SIGUSR1)
    signal.sigtimedwait({signal.SIGCHLD}, _STACKS_S)
    os.kill(child, signal.SIGKILL)
    while (status := _reap(child)) is None:
        signal.sigtimedwait({signal.SIGCHLD}, _LONGEST_STEP_S)
    return status


def _end_like(code: int) -> None:
    """End the parent as the child ended: with its exit code, or by its signal."""
    if code >= 0:
        raise SystemExit(code)
    if -code in _SAME_END:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    raise SystemExit(128 - code)
