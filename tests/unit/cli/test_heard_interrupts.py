"""Ctrl-C is heard, also in the instant before a wait begins that its signal does not end."""

from __future__ import annotations

import _thread
import signal
import socket
import threading

import pytest

from tests.patience import limit
from whenthen.cli.watch.interrupts import heard_interrupts


def test_an_interrupt_that_ended_no_wait_is_heard_all_the_same() -> None:
    one, other = socket.socketpair()

    def read() -> None:
        # the flag of a signal that has come, without the signal that would end the read
        threading.Timer(0.05, _thread.interrupt_main).start()
        one.recv(1)

    with one, other:
        one.settimeout(limit(20))
        with pytest.raises(KeyboardInterrupt), heard_interrupts():
            read()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_without_an_interrupt_leaves_everything_as_it_was() -> None:
    with heard_interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert "whenthen-interrupts" not in {thread.name for thread in threading.enumerate()}


def test_only_the_main_thread_hears_interrupts() -> None:
    seen: list[bool] = []

    def elsewhere() -> None:
        with heard_interrupts():
            seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [True]
