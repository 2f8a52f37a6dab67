"""The history of a real server is written by a process of its own: whichever of the two is killed, nothing is missing and nothing twice."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.served import Served, serving
from tests.patience import eventually

RULES = "automations:\n  - {name: each, trigger: {expect: thing.seen}, actions: [do-nothing]}\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a part of the one process")


def history_pid(server: Served) -> int:
    found = eventually(lambda: re.findall(r"process (\d+) projects the history", server.log.read_text()))
    return int(found[-1])


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def asked(server: Served, path: str) -> Any:
    """What the history answers; None while nobody answers for it: its process was killed, or is slow on a busy machine."""
    answer = server.http.get(path)
    return None if answer.status_code == 503 else answer.raise_for_status().json()


def kept(server: Served) -> list[str] | None:
    """The events that the history has, and no stream is asked for."""
    found = asked(server, "/api/history/events?name=thing.seen&limit=1000")
    return None if found is None else sorted(each["id"] for each in found["items"])


def fired(server: Served) -> int:
    return sum(each["count"] for each in asked(server, "/api/history/firings/counts") or ())


def test_a_history_whose_process_is_killed_goes_on_in_the_other_one(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES}) as server:
        pid = history_pid(server)
        assert is_there(pid)
        ids = [f"event-{number}" for number in range(20)]
        for id in ids[:10]:
            server.emit("thing.seen", id=id)
        eventually(lambda: kept(server) == sorted(ids[:10]))
        os.kill(pid, signal.SIGKILL)
        for id in ids[10:]:
            server.emit("thing.seen", id=id)
        eventually(lambda: kept(server) == sorted(ids))
        eventually(lambda: fired(server) == 20)
        eventually(lambda: "the history has lost its own process" in str(server.get("/api/status")["notes"]))
        assert f"the process of the history ({pid}) is gone: it was ended by SIGKILL" in server.log.read_text()


def test_signals_that_are_sent_to_all_processes_are_for_the_other_one(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES}) as server:
        pid = history_pid(server)
        server.emit("thing.seen", id="first")
        eventually(lambda: kept(server) == ["first"])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        server.emit("thing.seen", id="second")
        eventually(lambda: kept(server) == ["first", "second"])
        assert is_there(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_process_ends_with_the_other_one_and_the_next_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    server = Served(tmp_path)
    try:
        server.wait_until_ready()
        pid = history_pid(server)
        server.emit("thing.seen", id="first")
        eventually(lambda: kept(server) == ["first"])
    finally:
        if number is signal.SIGKILL:
            server.kill()
        else:
            server.stop(number)
    eventually(lambda: not is_there(pid))
    assert "Traceback" not in server.log.read_text()
    server = Served(tmp_path)
    try:
        server.wait_until_ready()
        eventually(lambda: history_pid(server) != pid)
        server.emit("thing.seen", id="second")
        eventually(lambda: kept(server) == ["first", "second"])
        eventually(lambda: fired(server) == 2)
    finally:
        server.kill()
