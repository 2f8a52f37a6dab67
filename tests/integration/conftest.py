"""A real nats-server for each test that asks for one: from the wheel, on a free port, with JetStream in a temporary
folder."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.patience import limit
from tests.ports import free_port
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.bus.embedded import find_server
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.schemas.events import Event


class NatsServer:
    """A nats-server process that a test may kill and start again on the same port and store."""

    def __init__(self, directory: Path, *, jetstream: bool = True, extra: str = "") -> None:
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "nats.conf"
        # without a limit of its own it takes 75% of what is free now, which may be less than what the streams may need
        store = f'jetstream {{ store_dir: "{directory / "store"}", max_file_store: 1PB }}' if jetstream else ""
        self._config.write_text(f"listen: 127.0.0.1:{self.port}\nmax_payload: 8388608\n{store}\n{extra}\n")
        self._log = directory / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([str(find_server()), "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + limit(20)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "nats-server did not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a crash is."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + limit(20)
        # the signal is on its way to each of its threads; one that still runs may answer
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in tasks.glob("*/stat")):
            assert time.monotonic() < deadline, "nats-server did not stop"
            time.sleep(0.001)

    def unfreeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.unfreeze()
            self._process.terminate()
            try:
                self._process.wait(limit(10))
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


async def eventually(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Wait until `condition()` is true; fail when it is not within the `limit`."""
    deadline = time.monotonic() + limit(within_s)
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def publish_all(bus: Bus, events: Iterable[Event]) -> list[Ack]:
    """Store events in order, 500 sent before the first acknowledgement is awaited; the first failure is raised."""
    left, stored = iter(events), []
    while some := list(itertools.islice(left, 500)):
        stored += await asyncio.gather(*(bus.publish(event) for event in some))
    return stored


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to the server, with the streams made."""
    bus = Bus(nats_server.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    yield bus
    await bus.close()
