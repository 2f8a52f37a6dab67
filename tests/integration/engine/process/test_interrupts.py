"""SIGINT at a server that has work at hand: the grace, the second one, and how soon the next server goes on with what was handed back."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.integration.served import Served
from tests.patience import eventually, limit

RULES = """
deployments:
  - name: long
    command: {command}
automations:
  - {{name: calls, trigger: {{expect: call}}, actions: [{{run-deployment: long}}]}}
"""


def serving(folder: Path, command: str, **settings: str) -> Served:
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(RULES.format(command=command))
    server = Served(folder, {f"WHENTHEN_{name.upper()}": value for name, value in settings.items()})
    server.wait_until_ready()
    return server


def begin(server: Served) -> str:
    """Start a run; gives its id when it goes on."""
    run = server.http.post("/api/deployments/long/run", json={}).raise_for_status().json()["id"]
    eventually(lambda: state(server, run) == "Running")
    return str(run)


def state(server: Served, run: str) -> str:
    return str(server.get(f"/api/runs/{run}")["state"])


def test_what_was_handed_back_runs_again_within_two_seconds_of_the_next_start(tmp_path: Path) -> None:
    server = serving(tmp_path, "sleep 120", drain_grace="500ms")
    run = begin(server)
    assert server.interrupt() == 0
    server = serving(tmp_path, "sleep 120", drain_grace="500ms")
    started = time.monotonic()
    eventually(lambda: state(server, run) == "Running", within_s=2.0)
    assert time.monotonic() - started < limit(2.0)
    assert server.get(f"/api/runs/{run}")["attempt"] == 1
    assert server.interrupt() == 0


def test_a_second_interrupt_ends_at_once_and_hands_back_what_runs(tmp_path: Path) -> None:
    server = serving(tmp_path, """sh -c 'trap "" TERM; while :; do sleep 1; done'""", drain_grace="300s")
    run = begin(server)
    server.send_signal(signal.SIGINT)
    eventually(lambda: "stopping: what is at hand may go on for 300 s" in server.log.read_text())
    with pytest.raises(TimeoutError):
        server.wait(1.0)  # the first one drains
    asked = time.monotonic()
    assert server.interrupt() == 128 + signal.SIGINT
    assert time.monotonic() - asked < limit(2.5)
    server = serving(tmp_path, "sleep 120", drain_grace="0s")
    eventually(lambda: state(server, run) == "Running", within_s=2.0)
    assert server.interrupt() == 0


def test_two_interrupts_in_one_moment_are_one(tmp_path: Path) -> None:
    server = serving(tmp_path, "sleep 1")
    run = begin(server)
    server.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0  # the run was let go on to its end
    server = serving(tmp_path, "sleep 1")
    assert state(server, run) == "Completed"
    assert server.stop() == 0
