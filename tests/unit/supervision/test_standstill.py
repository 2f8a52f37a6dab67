"""What counts as standing still, and what is not the event loop's fault."""

from __future__ import annotations

import os
import threading

from whenthen.supervision.standstill import Standstill, thread_state


class Loop:
    """An event loop as the kernel sees it, looked at every second."""

    def __init__(self) -> None:
        self.still = Standstill(1.0)
        self.now = self.cpu_s = 0.0
        self.beats = 0
        self.look("S")

    def look(self, state: str, *, after: float = 1.0, cpu: float = 0.0, beats: int = 0) -> float:
        self.now += after
        self.cpu_s += cpu
        self.beats += beats
        return self.still.look(self.now, beats=self.beats, state=state, cpu_s=self.cpu_s)


def test_a_loop_that_computes_without_going_round_stands_still() -> None:
    loop = Loop()
    assert [loop.look("R", cpu=1.0) for _ in range(3)] == [1.0, 2.0, 3.0]


def test_a_loop_that_is_blocked_in_a_call_stands_still() -> None:
    loop = Loop()
    assert [loop.look("S") for _ in range(3)] == [1.0, 2.0, 3.0]


def test_a_loop_that_goes_round_never_stands_still() -> None:
    loop = Loop()
    loop.look("R", cpu=1.0)
    assert loop.look("R", cpu=1.0, beats=1) == 0.0
    assert loop.look("R", cpu=0.5) == 0.5


def test_a_process_that_is_stopped_does_not_hang() -> None:
    loop = Loop()
    assert [loop.look(state) for state in "TTtT"] == [0.0] * 4


def test_a_loop_that_waits_for_a_disk_does_not_hang() -> None:
    assert Loop().look("D") == 0.0


def test_a_loop_that_gets_no_processor_hangs_only_by_what_it_used() -> None:
    loop = Loop()
    for _ in range(10):
        found = loop.look("R", cpu=0.05)
    assert round(found, 6) == 0.5


def test_a_machine_that_was_suspended_counts_for_no_more_than_two_looks() -> None:
    loop = Loop()
    assert loop.look("S", after=3600.0) == 2.0
    assert loop.look("R", after=3600.0, cpu=3600.0) == 4.0


def test_the_state_of_a_thread_is_what_the_kernel_says() -> None:
    ready, done = threading.Event(), threading.Event()
    ids: list[int] = []

    def wait() -> None:
        ids.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    try:
        assert thread_state(os.getpid(), threading.get_native_id())[0] == "R"
        assert thread_state(os.getpid(), ids[0])[0] in ("S", "R")
    finally:
        done.set()
        thread.join()
    assert thread_state(os.getpid(), 1 << 30) == ("", 0.0)
