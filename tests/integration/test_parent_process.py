"""The parent of a `whenthen serve` with small children in the place of the server: when it forks again, and how both end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import eventually, limit

CHILD = """
    import asyncio, os, re, signal, sys, time
    from whenthen.supervision import SharedPage, Watchdog, supervise

    page = supervise()
    mode, notes = sys.argv[1], open(sys.argv[2], "a", buffering=1)

    def note(what):
        notes.write(f"{os.getpid()} {what}\\n")

    note(f"child {page.restarts} {page.supervised}")

    async def serve(work):
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda number=number: (note(f"got {number.name}"), stop.set()))
        watchdog = Watchdog(page, hang_after_s=1.0)
        watchdog.start(loop)
        page.mark_ready(0)
        note("ready")
        if page.restarts == 0:
            page.at_hand.event(0, 7)
            work()
            page.at_hand.nothing()
        await stop.wait()
        await asyncio.sleep(0.2)
        watchdog.stop()

    def spin():
        while True:
            pass

    def hold_the_interpreter():
        re.match("(a+)+$", "a" * 60 + "b")

    def block():
        os.read(os.pipe()[0], 1)

    works = {"spin": spin, "hold": hold_the_interpreter, "block": block, "serve": lambda: None}
    if mode == "fail":
        sys.exit(3)
    if mode == "for-good":
        page.mark_ready(0)
        page.mark_for_good()
        sys.exit(4)
    if mode == "decline":
        if page.supervised:
            page.decline()
            os._exit(0)
        sys.exit(5)
    if mode == "fail-later":
        page.mark_ready(0)
        sys.exit(6 if page.restarts == 0 else 0)
    if page.before is not None:
        note(f"before {page.before.cause.name} {page.before.item}")
    asyncio.run(serve(works[mode]))
    sys.exit(9)
"""


class Supervised:
    """A parent with a child that runs `CHILD`."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "child.py"
        self._program.write_text(textwrap.dedent(CHILD))
        self._notes = folder / "notes.txt"
        self.errors = folder / "errors.txt"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, mode: str, *, terminal: int | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(self._program), mode, str(self._notes)]
        if terminal is not None:  # which becomes the controlling terminal of a new session
            take = (
                "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
            )
            words = [sys.executable, "-c", take, *words]
        with self.errors.open("ab") as errors:
            process = subprocess.Popen(
                words,
                stdin=terminal,
                stdout=errors,
                stderr=errors,
                start_new_session=terminal is not None,
                env={**os.environ, **(env or {})},
            )
        self._running.append(process)
        return process

    def notes(self) -> list[list[str]]:
        """What the children noted: who, and what."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [line.split(" ", 1) for line in lines]

    def said(self, what: str) -> list[int]:
        """The children that noted something."""
        return [int(pid) for pid, noted in self.notes() if noted.startswith(what)]

    def end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    found = Supervised(tmp_path)
    yield found
    found.end()


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


@pytest.mark.parametrize(("mode", "code"), [("fail", 3), ("for-good", 4)])
def test_what_a_new_start_does_not_mend_ends_the_parent_with_the_same_code(
    supervised: Supervised, mode: str, code: int
) -> None:
    assert supervised.start(mode).wait(limit(10)) == code
    assert len(supervised.said("child")) == 1


def test_a_child_that_fails_after_it_was_ready_is_started_again(supervised: Supervised) -> None:
    assert supervised.start("fail-later").wait(limit(10)) == 0
    assert [noted for _, noted in supervised.notes()] == ["child 0 True", "child 1 True"]


def test_who_wants_no_parent_has_one_process(supervised: Supervised) -> None:
    process = supervised.start("decline")
    assert process.wait(limit(10)) == 5
    assert [noted for _, noted in supervised.notes()] == ["child 0 True", "child 0 False"]
    assert int(supervised.notes()[1][0]) == process.pid


def test_the_environment_alone_has_one_process_from_the_start(supervised: Supervised) -> None:
    process = supervised.start("decline", env={"WHENTHEN_WATCHDOG": "false"})
    assert process.wait(limit(10)) == 5
    assert supervised.notes() == [[str(process.pid), "child 0 False"]]


def test_a_child_that_is_killed_is_started_again_and_a_signal_to_stop_reaches_the_new_one(
    supervised: Supervised,
) -> None:
    process = supervised.start("serve")
    [child] = eventually(lambda: supervised.said("ready"))
    os.kill(child, signal.SIGKILL)
    eventually(lambda: len(supervised.said("ready")) == 2)
    process.terminate()
    assert process.wait(limit(10)) == 9
    assert len(supervised.said("got SIGTERM")) == 1


def test_the_child_ends_when_its_parent_is_killed(supervised: Supervised) -> None:
    process = supervised.start("serve")
    [child] = eventually(lambda: supervised.said("ready"))
    process.kill()
    process.wait()
    eventually(lambda: gone(child))


def test_control_c_in_a_terminal_reaches_the_child_once(supervised: Supervised) -> None:
    ours, theirs = pty.openpty()
    process = supervised.start("serve", terminal=theirs)
    eventually(lambda: supervised.said("ready"))
    os.write(ours, b"\x03")
    assert process.wait(limit(10)) == 9
    assert len(supervised.said("got SIGINT")) == 1
    os.close(ours)
    os.close(theirs)


def test_sigint_to_the_parent_alone_is_passed_on(supervised: Supervised) -> None:
    process = supervised.start("serve")
    eventually(lambda: supervised.said("ready"))
    process.send_signal(signal.SIGINT)
    assert process.wait(limit(10)) == 9
    assert len(supervised.said("got SIGINT")) == 1


@pytest.mark.takes(8)
@pytest.mark.parametrize("how", ["spin", "hold", "block"])
def test_a_child_that_hangs_says_where_ends_and_the_next_one_knows_on_what(supervised: Supervised, how: str) -> None:
    """`hold` is C code that keeps every thread of the interpreter from running: the parent sees it."""
    process = supervised.start(how)
    eventually(lambda: len(supervised.said("ready")) == 2, within_s=30)
    assert len(supervised.said("before HUNG the event at position 7, in shard 0")) == 1
    stacks = supervised.errors.read_text()
    assert {"spin": "in spin", "hold": "in hold_the_interpreter", "block": "in block"}[how] in stacks
    process.terminate()
    assert process.wait(limit(10)) == 9


@pytest.mark.takes(8)
def test_a_child_that_is_stopped_for_longer_than_hang_after_does_not_hang(supervised: Supervised) -> None:
    process = supervised.start("serve")
    [child] = eventually(lambda: supervised.said("ready"))
    for pids in ([child], [process.pid, child]):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        stopped = time.monotonic()
        eventually(lambda stopped=stopped: time.monotonic() > stopped + 4)  # four times hang_after
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    process.terminate()
    assert process.wait(limit(10)) == 9
    assert supervised.said("child") == [child]
    assert supervised.said("got SIGTERM") == [child]


def test_a_hung_child_does_not_keep_its_parent_from_ending(supervised: Supervised) -> None:
    process = supervised.start("spin")
    eventually(lambda: supervised.said("ready"))
    process.terminate()
    assert process.wait(limit(20)) != 0
    assert len(supervised.said("child")) == 1
