"""SIGINT at a server that has work at hand: the grace, the second one, and how soon the next server goes on with what was handed back."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.served import Served
from tests.patience import eventually, limit

RULES = """
deployments:
  - name: long
    command: {command}
"""


class Receiver:
    """Takes requests over HTTP, and answers them once `answering` is set."""

    def __init__(self) -> None:
        self.keys: list[str] = []  #: idempotency keys, in the order in which they came
        self.answering = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.keys.append(self.headers["Idempotency-Key"])
                receiver.answering.wait(limit(60))
                with contextlib.suppress(OSError):  # nobody waits for it any more
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()


def serving(folder: Path, command: str, rules: str = RULES, **settings: str) -> Served:
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(rules.format(command=command) if rules is RULES else rules)
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
    assert server.interrupt() == 128 + signal.SIGINT  # and waited less than the 300 seconds, or this would have raised
    server = serving(tmp_path, "sleep 120", drain_grace="0s")
    eventually(lambda: state(server, run) == "Running", within_s=2.0)
    assert server.interrupt() == 0


def test_two_interrupts_in_one_moment_are_one(tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"sh -c 'until [ -e {go} ]; do sleep 0.1; done'"
    server = serving(tmp_path, command, drain_grace="300s")
    run = begin(server)
    server.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGINT)
    go.touch()
    assert server.wait() == 0  # the run was let go on to its end
    server = serving(tmp_path, command)
    assert state(server, run) == "Completed"
    assert server.stop() == 0


def test_an_action_that_was_handed_back_is_performed_again_within_two_seconds_of_the_next_start(tmp_path: Path) -> None:
    with Receiver() as receiver:
        rule = f"""
automations:
  - {{name: calls, trigger: {{expect: call}}, actions: [{{call-webhook: "{receiver.url}", timeout: 60s}}]}}
"""
        server = serving(tmp_path, "sleep 1", rule, drain_grace="300ms")
        server.emit("call")
        eventually(lambda: len(receiver.keys) == 1)
        assert server.interrupt() == 0
        receiver.answering.set()
        server = serving(tmp_path, "sleep 1", rule, drain_grace="300ms")
        eventually(lambda: len(receiver.keys) == 2, within_s=2.0)
        assert len(set(receiver.keys)) == 1
        eventually(lambda: server.get("/api/actions?outcome=executed"))
        assert server.stop() == 0
