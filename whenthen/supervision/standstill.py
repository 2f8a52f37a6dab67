"""For how long an event loop has stood still by its own fault. Pure, but for reading `/proc`.

Called by the watchdog thread and by the parent process. Standing still is not hanging: a process that is stopped (SIGSTOP), a machine
that was suspended and a processor that others use are not its fault. So what counts is the processor time that the thread of the
event loop used, or the time that it was blocked in a system call, and of no look more than twice the step between looks.
"""

from __future__ import annotations

import os

__all__ = ["Standstill", "thread_state"]

#: of /proc/<pid>/stat: ready or running; of the others a thread that sleeps (S) is blocked. One that waits for a disk (D) would not be
#: helped by a kill, and one that is stopped (T, t) is somebody's wish
_RUNNING, _BLOCKED = "R", "S"


class Standstill:
    """`step_s` is about how often `look` is called."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._last: tuple[float, int, float] | None = None  #: time, beats, processor time
        self.stood_s = 0.0

    def look(self, now: float, *, beats: int, state: str, cpu_s: float) -> float:
        """The seconds that the loop has stood still until `now` (monotonic)."""
        last, self._last = self._last, (now, beats, cpu_s)
        if last is None or last[1] != beats:
            self.stood_s = 0.0
            return 0.0
        elapsed = min(now - last[0], 2 * self._step_s)
        if state == _BLOCKED:
            self.stood_s += elapsed
        elif state == _RUNNING:
            self.stood_s += min(cpu_s - last[2], elapsed)
        return self.stood_s


def thread_state(pid: int, thread: int) -> tuple[str, float]:
    """The state of a thread as the kernel has it, and the seconds of processor time that it has used. ("", 0) when it is gone."""
    try:
        with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return "", 0.0
    return fields[0].decode(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
