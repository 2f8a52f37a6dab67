"""Children that are told when their parent ends."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import os, signal
from whenthen.supervision import fork_bound

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
if fork_bound(signal.SIGTERM) == 0:
    os.write(1, b"bound\\n")
    signal.sigwait({signal.SIGTERM})
    os.write(1, b"told\\n")
else:
    signal.sigwait({signal.SIGTERM})
"""
STRANGER = """
import os, signal
from whenthen.supervision import bound_to

bound_to(os.getpid(), signal.SIGTERM)()
print("goes on")
"""


def test_a_child_gets_its_signal_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"bound\n"
        parent.kill()
        assert parent.stdout.read() == b"told\n"


def test_a_child_whose_parent_ended_before_ends_at_once() -> None:
    found = subprocess.run([sys.executable, "-c", STRANGER], stdout=subprocess.PIPE, check=False)
    assert (found.returncode, found.stdout) == (1, b"")
