"""A nats-server of the tests' own, and the flow stores on it."""

from __future__ import annotations

import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.embedded import find_server
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.engine.flow_runs.flow_streams import FlowStoreSettings, ensure_flow_stores
from whenthen.engine.flow_runs.nats_stores import nats_stores
from whenthen.runs.stores import Stores

PATIENCE = timedelta(seconds=2)


class FlowServer:
    """A nats-server on a port of its own that can be killed and started again on the same data."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = [str(find_server()), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._directory)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + limit(20)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                assert time.monotonic() < until, "nats-server did not come up"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


async def connect(server: FlowServer) -> Bus:
    bus = Bus(server.url)
    await bus.connect()
    return bus


async def open_stores(bus: Bus) -> Stores:
    await ensure_streams(bus.js, StreamSettings())
    settings = FlowStoreSettings(queue_patience=PATIENCE)
    await ensure_flow_stores(bus.js, settings)
    return nats_stores(bus.client, settings)
