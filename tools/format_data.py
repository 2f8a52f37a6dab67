"""Make the data directory of a version for tests/integration/test_stored_formats.py: what `whenthen serve` of that version leaves when it is killed.

    python -m tools.format_data path/to/whenthen tests/integration/formats/format-2.tar.xz

The first argument is the command of the version, in an environment of its own. It has to be done once for each format, when the
format is new, and the file is committed. It holds the store of the NATS server and no logins.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

RULES = Path(__file__).parents[1] / "tests" / "integration" / "formats" / "rules.yaml"
TOKEN = "token-of-the-data-directory"
#: as long as they can be, so that nothing is too old on the day of a test
SETTINGS = {
    "WHENTHEN_API_TOKEN": TOKEN,
    "WHENTHEN_RETAIN_EVENTS": "3650d",
    "WHENTHEN_RETAIN_FIRINGS": "3650d",
    "WHENTHEN_RETAIN_OUTCOMES": "3650d",
    "WHENTHEN_RETAIN_RUNS": "3650d",
    "WHENTHEN_RETAIN_LOGS": "3650d",
    "WHENTHEN_FOLLOWS_WAIT": "3650d",
}
LIMIT_S = 20.0
LARGE = 2999  #: events of the large window, one less than it needs


class Served:
    """A process of the version on a data directory."""

    def __init__(self, command: str, data_dir: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._data_dir = data_dir
        words = [command, "serve", str(RULES), "--port", str(port), "--data-dir", str(data_dir), *options]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WHENTHEN_")}
        self._process = subprocess.Popen(words, env={**kept, **SETTINGS}, cwd=data_dir.parent)
        try:
            wait_for(self._ready)
        except AssertionError:
            self._process.kill()
            raise

    def ask(self, path: str, body: Any = None, *, post: bool = False) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method="POST" if post or data else "GET")
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())

    def emit(self, name: str, id: str = "one", **more: Any) -> None:
        self.ask("/api/events", {"event": name, "resource": {"id": id}, **more})

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        """As a crash is. The NATS server goes with it."""
        nats = int((self._data_dir / "nats" / "pid").read_text())
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        wait_for(lambda: not Path(f"/proc/{nats}/stat").exists() or " Z " in Path(f"/proc/{nats}/stat").read_text())

    def _ready(self) -> bool:
        assert self._process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=LIMIT_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def make(command: str, data_dir: Path) -> None:
    """What a whole server leaves when it is killed, and then one without executor and worker."""
    with Served(command, data_dir) as server:
        leave_finished(server)
    with Served(command, data_dir, "--role", "api", "--role", "evaluator") as server:
        leave_waiting(server)


def leave_finished(server: Served) -> None:
    """Windows of all kinds, firings, runs in several states, a dead letter, a pause."""
    for name, times in (("sliding.seen", 1), ("tumbling.seen", 1), ("collecting.seen", 2)):
        for number in range(times):
            server.emit(name, id="one", payload={"number": number})
    for name in (
        "cooling.seen",
        "opened.start",
        "absent.start",
        "compound.a",
        "sequence.a",
        "sequence.b",
        "resolving.bad",
    ):
        server.emit(name)
    for size in (40, 45):
        server.emit("measured", payload={"size": size})
    for first in range(0, LARGE, 1000):
        events = [
            {"event": "large.seen", "resource": {"id": "one"}, "id": f"{number}-{'long-' * 45}"}
            for number in range(first, min(first + 1000, LARGE))
        ]
        server.ask("/api/events", events)
    server.emit("failing.seen")
    server.ask("/api/automations/paused/pause", post=True)
    for deployment in ("works", "fails", "hangs"):
        server.ask(f"/api/deployments/{deployment}/run", {"key": deployment})

    def finished() -> bool:
        states = sorted(run["state"] for run in server.ask("/api/runs"))
        dead = server.ask("/api/actions?outcome=dead")
        return states == ["Completed", "Failed", "Running"] and len(dead) == 1

    wait_for(finished)


def leave_waiting(server: Served) -> None:
    """Tasks that nobody performs, a run that nobody takes, an event that waits for another, absences that are over soon."""
    server.emit("overdue.start")
    server.emit("following.seen", id="held", follows="the-one-before")
    server.ask("/api/deployments/works/run", {"key": "queued"})
    server.emit("waiting.seen")
    server.emit("sliding.seen")
    # killed right after a commit, whose changes are packed in the offset
    wait_for(lambda: any(firing["automation"] == "waiting" for firing in server.ask("/api/firings")))
    wait_for(lambda: server.ask("/api/automations/sliding")["decisions"] != [])


def main() -> None:
    command, target = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        make(command, data_dir)
        with tarfile.open(target, "w:xz", preset=9) as file:
            file.add(data_dir / "nats" / "store", "nats/store", filter=_anonymous)
    print(f"{target}: {target.stat().st_size} bytes")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
