"""`whenthen backup` of a server under load, and `whenthen restore`: what comes of a backup is what would have come of the server, had it been
killed at the backup's moment."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.chaos.oracle import Oracle, read_stream
from tests.integration.backups import command, folder_of
from tests.integration.conftest import NatsServer
from tests.integration.served import TOKEN, Served
from tests.patience import eventually, limit
from whenthen.engine.backup import read_archive
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.rules import load_rules


class Receiver(ThreadingHTTPServer):
    """Takes webhooks and remembers their keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keys)
        self.keys: Counter[str] = Counter()


class _Keys(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert isinstance(self.server, Receiver)
        self.server.keys[self.headers["Idempotency-Key"]] += 1
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Sender:
    """Sends up to 300 events a second over several connections; knows those that were answered 202."""

    def __init__(self, url: str) -> None:
        self.taken: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(3)]

    def __enter__(self) -> Sender:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=self._url, headers=headers, trust_env=False, timeout=limit(30)) as client:
            while not self._stop.wait(0.2):  # a steady load, on any machine
                ids = [uuid.uuid4().hex for _ in range(20)]
                events = [
                    {
                        "event": "order.burst" if number == 2 else "order.placed",
                        "id": each,
                        "resource": {"id": each[:2]},
                    }
                    for each in ids
                ]
                try:
                    if client.post("/api/events", json=events).status_code == 202:
                        self.taken += ids
                except httpx.TransportError:
                    return  # it was killed


async def compare(data_dir: Path, rules: Path) -> tuple[Oracle, dict[str, Any], list[str]]:
    """A replay of the stream; the firings and the tasks that are stored."""
    bus = Bus(embedded_url(data_dir))
    await bus.connect()
    try:
        oracle = Oracle(load_rules(rules))
        await oracle.follow(bus)
        firings = {
            (fields := orjson.loads(message.data))["id"]: fields
            async for message in read_stream(bus, ENGINE, "engine.firing.>")
            if message.data
        }
        tasks = [message.subject async for message in read_stream(bus, ENGINE, "engine.action.>") if message.data]
        return oracle, firings, tasks
    finally:
        await bus.close()


@pytest.mark.takes(40)
def test_a_backup_under_load_goes_on_elsewhere_as_a_replay_of_it_says(tmp_path: Path, receiver: Receiver) -> None:
    first = folder_of(tmp_path, "first", port=receiver.server_port)
    server = Served(first)
    try:
        server.wait_until_ready()
        with Sender(server.url) as sender:
            eventually(lambda: len(sender.taken) > 600, within_s=60)
            before = set(sender.taken)
            made = command("backup", tmp_path / "one.tar", url=server.url)
            assert made.returncode == 0, made.stderr
            again = command("backup", tmp_path / "one.tar", url=server.url)
            assert "is there already" in again.stderr
            assert again.returncode == 1
            eventually(lambda: len(sender.taken) > len(before) + 200, within_s=60)  # it went on
            server.kill()
    finally:
        server.stop()
    performed = Counter(receiver.keys)
    receiver.keys.clear()
    assert (tmp_path / "one.tar").stat().st_mode & 0o777 == 0o600

    second = folder_of(tmp_path, "second", port=receiver.server_port)
    restored = command("restore", tmp_path / "one.tar", "--data-dir", second / "data")
    assert restored.returncode == 0, restored.stderr
    assert not list((second / "data" / "nats").glob("*credentials"))  # logins are made anew
    server = Served(second, {"WHENTHEN_WORKER_LOST_AFTER": f"{limit(3):g}s"})
    try:
        server.wait_until_ready()

        def quiet() -> bool:
            """Whether nothing is to be done any more, as far as the server says."""
            waiting = [server.get(f"/api/actions?outcome={outcome}&limit=1") for outcome in ("waiting", "retrying")]
            states = {run["state"] for run in server.get("/api/runs?limit=1000")}
            # one that ran at the moment of the backup has no worker any more
            unfinished = states - {"Completed", "Crashed"}
            behind = [
                float(line.rpartition(" ")[2])
                for line in server.http.get("/metrics").text.splitlines()
                if line.startswith("whenthen_evaluation_lag_messages{")
            ]
            return bool(behind) and not any([*behind, *waiting, *unfinished])

        def ended() -> tuple[Oracle, dict[str, Any], list[str]] | None:
            """What is stored, once the tasks are done and no firing of the replay is missing."""
            if not quiet():
                return None
            oracle, firings, tasks = asyncio.run(compare(second / "data", second / "rules"))
            return None if tasks or oracle.firings.keys() - firings.keys() else (oracle, firings, tasks)

        found = eventually(ended, within_s=90)
        assert found is not None
        oracle, firings, tasks = found
    finally:
        assert server.stop() == 0
    assert tasks == []
    assert before <= set(oracle.event_ids)  # what was answered 202 before the backup began is in it
    assert not oracle.doubled
    assert firings == oracle.firings  # nothing fired twice, nothing was lost
    called = {key for key, (automation, _) in oracle.actions.items() if automation == "every"}
    assert called  # every action was performed, before or after, and always under its key
    assert called <= set(performed) | set(receiver.keys)
    assert set(receiver.keys) <= called


@pytest.mark.anyio
async def test_a_server_without_embedded_nats_says_that_it_makes_no_backup(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    folder = folder_of(tmp_path, "server")
    settings = load_settings({"data_dir": folder / "data", "nats_url": nats_server.url, "port": 0})
    async with (
        Server(settings, folder / "rules") as server,
        httpx.AsyncClient(base_url=server.address, trust_env=False, timeout=60) as client,
    ):
        answer = await client.get("/api/backup")
    assert answer.status_code == 409
    assert "not embedded" in answer.text


@pytest.mark.takes(15)
def test_one_backup_is_made_at_a_time_and_one_that_is_given_up_leaves_no_trace(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "server")
    server = Served(folder)
    try:
        server.wait_until_ready()
        large = "x" * 500_000
        for number in range(100):  # more than the buffers between the server and its client take
            server.emit("order.other", payload={"text": f"{number}{large}"}, id=f"large-{number}")
        with server.http.stream("GET", "/api/backup") as given_up:
            parts = given_up.iter_raw(1000)
            assert next(parts)
            with ThreadPoolExecutor(1) as other:
                refused = other.submit(command, "backup", tmp_path / "two.tar", url=server.url).result()
            assert refused.returncode == 1
            assert "a backup is being made already" in refused.stderr
        assert list(tmp_path.glob(".*")) == []
        eventually(lambda: command("backup", tmp_path / "two.tar", url=server.url).returncode == 0, within_s=30)
        assert read_archive(tmp_path / "two.tar").streams[EVENTS].messages >= 100
        server.emit("order.burst", id="after")
        eventually(lambda: server.fired()["burst"] == 1)
        assert Path(f"/proc/{server.nats_pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
    finally:
        assert server.stop() == 0


def test_a_server_that_was_killed_while_its_nats_server_stood_still_starts_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "server")
    server = Served(folder)
    try:
        server.wait_until_ready()
        server.emit("order.burst", id="kept")
        nats = server.nats_pid
        os.kill(nats, signal.SIGSTOP)  # as in the moment of a backup
        server.kill(with_nats=False)
        assert Path(f"/proc/{nats}").exists()
    finally:
        server.stop()
    server = Served(folder)
    try:
        server.wait_until_ready()
        assert server.nats_pid != nats
        assert server.get("/api/events/kept")["event"] == "order.burst"
    finally:
        assert server.stop() == 0
    assert "kill it by hand" not in server.log.read_text()
