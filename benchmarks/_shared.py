"""What the benchmarks of the running engine share: a NATS server, events in the stream, server processes, the peer.

Used by `pipeline`, `latency`, `ingest`, `startup` and `backlog`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import uvloop

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.embedded import EmbeddedServer, find_server
from whenthen.engine.bus.streams import EVENTS, StreamSettings, ensure_streams
from whenthen.schemas.times import format_time, from_us

__all__ = [
    "ROOT",
    "ServerProcess",
    "bed",
    "fill",
    "folder",
    "free_port",
    "machine",
    "main_loop",
    "memory_mb",
    "percentile",
    "prefect_python",
    "prefect_rates",
    "upload",
    "wait_for",
]

ROOT = Path(__file__).resolve().parent.parent
_FLUSH_BYTES = 1 << 20


def main_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on the event loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    server = subprocess.run([str(find_server()), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "nats_server": server.split()[-1].lstrip("v"),
        "nats_py": importlib.metadata.version("nats-py"),
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted `values` lie."""
    return values[min(len(values) - 1, int(share * len(values)))]


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


@contextlib.asynccontextmanager
async def bed(data: Path | None = None) -> AsyncIterator[Bus]:
    """An embedded nats-server in `data` or in a temporary folder, with the streams, and a connection to it."""
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as name:
        server = EmbeddedServer(data or Path(name))
        await server.start()
        try:
            bus = Bus(server.client_url)
            await bus.connect()
            await ensure_streams(bus.js, StreamSettings())
            try:
                yield bus
            finally:
                await bus.close()
        finally:
            await server.stop()


async def fill(bus: Bus, events: Iterable[tuple[str, dict[str, Any]]]) -> int:
    """Put events (subject and data) into `EVENTS` as `Bus.publish` does, but without waiting for each; gives how many."""
    before = (await bus.js.stream_info(EVENTS)).state.messages
    sent = 0
    for subject, data in events:
        await bus.nc.publish(subject, orjson.dumps(data), headers={"Nats-Msg-Id": data["id"]})
        sent += 1
        if sent % 500 == 0:
            await bus.nc.flush(timeout=60)
    deadline = time.monotonic() + 120
    while (stored := (await bus.js.stream_info(EVENTS)).state.messages - before) < sent:
        if time.monotonic() > deadline:
            raise SystemExit(f"{sent} events were sent and {stored} stored")
        await asyncio.sleep(0.05)
    return sent


def upload(number: int, *, bucket: str, key: str = "", prefix: str = "e") -> tuple[str, dict[str, Any]]:
    """The event that the peer's benchmark sends as well, and its subject; it occurred at the time of the call."""
    at = format_time(from_us(time.time_ns() // 1000))
    name = key or f"incoming/{number}.csv"
    return "events.s3.file.uploaded", {
        "id": f"{prefix}-{number}",
        "event": "s3.file.uploaded",
        "occurred": at,
        "received": at,
        "source": "webhook:bench",
        "resource": {"id": f"s3://{bucket}/{name}", "bucket": bucket, "key": name},
        "related": [],
        "payload": {"size": 1024 + number},
        "follows": None,
    }


# -- a server


class ServerProcess:
    """`whenthen serve` as a process of its own, on rules given as text."""

    def __init__(self, folder: Path, rules: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "serve.log"
        self.rules = folder / "rules"
        self.rules.mkdir(parents=True, exist_ok=True)
        (self.rules / "rules.yaml").write_text(rules, encoding="utf-8")
        self.options = options
        self.environment = environment or {}
        self.url = ""
        self.seconds_to_ready = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that does the work, a child of the one that was started."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found = children.read_text().split() if children.exists() else []
        return int(found[0]) if found else pid

    @property
    def nats_url(self) -> str:
        """Of the embedded server, with its login."""
        return embedded_url(self.data)

    def start(self, timeout_s: float = 120.0) -> None:
        """Start and wait until `/readyz` says 200."""
        import http.client

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "whenthen.cli.main", "serve", str(self.rules), "--data-dir", str(self.data)]
        command += ["--port", str(port), *self.options]
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=_environment(self.environment)
            )
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                try:
                    connection.request("GET", "/readyz")
                    if connection.getresponse().status == 200:
                        break
                finally:
                    connection.close()
            if self._process.poll() is not None:
                raise SystemExit(f"the server ended with {self._process.returncode}:\n{self.log.read_text()[-2000:]}")
            if time.monotonic() > began + timeout_s:
                self.stop()
                raise SystemExit(f"the server was not ready after {timeout_s:g} s:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        self.seconds_to_ready = time.monotonic() - began

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as name:
        yield Path(name)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHENTHEN_")}
    # bytecode is compiled once, as where the package is installed
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    # without a token, as in the figures of earlier versions
    return {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "WHENTHEN_OPEN_LOOPBACK": "true", **extra}


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- the peer


def prefect_python() -> Path | None:
    """The Python that has Prefect: of `WHENTHEN_PEERS_VENV`, or of `.peers-venv`, which `make peers` makes."""
    venv = Path(os.environ.get("WHENTHEN_PEERS_VENV") or ROOT / ".peers-venv")
    python = venv / "bin" / "python"
    return python if python.exists() else None


def prefect_rates(python: Path, events: int) -> dict[str, float]:
    """Events a second of Prefect's own evaluator, by workload, with its default database."""
    command = [str(python), str(ROOT / "benchmarks/peers/prefect_evaluator.py"), "--bench", "reactive"]
    command += ["--events", str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    found = report.get("results", report)
    return {
        name: value["events_per_s"]
        for name, value in found.items()
        if isinstance(value, dict) and "events_per_s" in value
    }


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)
