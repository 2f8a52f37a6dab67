"""A nats-server as a process of the system: one that outlived its parent is ended, one is stopped where it is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

from whenthen.schemas.errors import Conflict, SetupError

__all__ = ["STOP_TIMEOUT_S", "end_orphan", "until_stopped"]

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 15.0
FREEZE_TIMEOUT_S = 5.0  #: a thread that waits for a disk stands still when the disk has answered


async def end_orphan(directory: Path) -> None:
    """Stop a nats-server of this directory that outlived its parent. Two must never share a store.

    Raises:
        SetupError: it does not stop.
    """
    try:
        pid = int((directory / "pid").read_text())
    except (OSError, ValueError):
        return
    if not _is_ours(directory, pid):
        return
    log.warning("an earlier nats-server (pid %d) still runs on this data directory; stopping it", pid)
    for number, limit_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # it may stand still, as its parent died during a backup
        except ProcessLookupError:
            return
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not _is_ours(directory, pid):
                return
            await asyncio.sleep(0.02)
    raise SetupError(f"nats-server (pid {pid}) uses {directory} and does not stop; kill it by hand")


def _is_ours(directory: Path, pid: int) -> bool:
    """Whether `pid` runs with this configuration file; process ids are reused."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    except OSError:
        return False
    return str(directory / "nats-server.conf").encode() in command


async def until_stopped(pid: int) -> None:
    """Wait until each thread of a process stands still, after SIGSTOP: a write that was under way is finished then."""
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    while _moves(pid):
        if time.monotonic() > deadline:
            raise Conflict(f"the NATS server (pid {pid}) could not be stopped within {FREEZE_TIMEOUT_S:g} s; try again")
        await asyncio.sleep(0.001)


def _moves(pid: int) -> bool:
    """Whether any thread of a process does not stand still."""
    return any(_state(thread / "stat") not in ("T", "t", "X", "Z") for thread in Path(f"/proc/{pid}/task").iterdir())


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the thread has ended
        return "X"
