"""`whenthen backup` of a server under load, and `whenthen restore`: what comes of a backup is what would have come of the server, had it been
killed at the backup's moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
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
from tests.integration.conftest import NatsServer
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually, limit
from whenthen.engine.backup import InvalidBackup, read_archive
from whenthen.engine.backup.archive import ArchiveHead, ending, small_entry
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.records import FORMAT
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.rules import load_rules

RULES = """
automations:
  - name: every
    trigger: {expect: order.placed}
    actions: [{call-webhook: "http://127.0.0.1:PORT/"}]
  - name: pairs
    trigger: {expect: order.placed, for_each: id, threshold: 2, within: 1h, cooldown: 0s}
    actions: [{emit-event: pair.seen, resource: {id: "{{ event.resource.id }}"}}]
  - name: wide
    trigger: {expect: order.placed, threshold: 200, within: 1h, cooldown: 0s}
    actions: [{run-deployment: note}]
  - name: burst
    trigger: {expect: order.burst}
    actions: [do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing]
deployments:
  - {name: note, command: echo noted}
"""


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


def command(*words: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whenthen.cli.main", *map(str, words)],
        env=environment(WHENTHEN_API_TOKEN=TOKEN, WHENTHEN_URL=url, COLUMNS="300"),
        capture_output=True,
        text=True,
        timeout=limit(120),
        check=False,
    )


def folder_of(base: Path, name: str, rules: str = RULES, port: int = 9) -> Path:
    folder = base / name
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "rules.yaml").write_text(rules.replace("PORT", str(port)))
    return folder


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
            eventually(lambda: len(sender.taken) > 1000, within_s=60)
            before = set(sender.taken)
            made = command("backup", tmp_path / "one.tar", url=server.url)
            assert made.returncode == 0, made.stderr
            again = command("backup", tmp_path / "one.tar", url=server.url)
            assert "is there already" in again.stderr
            assert again.returncode == 1
            eventually(lambda: len(sender.taken) > len(before) + 300, within_s=60)  # it went on
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
    server = Served(second, {"WHENTHEN_WORKER_LOST_AFTER": "5s"})
    try:
        server.wait_until_ready()

        def done() -> bool:
            waiting = server.get("/api/actions?outcome=waiting&limit=1") or server.get(
                "/api/actions?outcome=retrying&limit=1"
            )
            states = {run["state"] for run in server.get("/api/runs?limit=1000")}
            unfinished = states - {
                "Completed",
                "Crashed",
            }  # one that ran at the moment of the backup has no worker any more
            metrics = server.http.get("/metrics").text
            lag = sum(
                float(line.rpartition(" ")[2])
                for line in metrics.splitlines()
                if line.startswith("whenthen_lag_messages")
            )
            return not waiting and not unfinished and lag == 0

        eventually(done, within_s=90)
        oracle, firings, tasks = asyncio.run(compare(second / "data", second / "rules"))
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small backup."""
    base = tmp_path_factory.mktemp("made")
    server = Served(folder_of(base, "server"))
    try:
        server.wait_until_ready()
        for number in range(30):
            server.emit("order.burst", id=f"e-{number}")
        eventually(lambda: server.fired()["burst"] == 30)
        result = command("backup", base / "small.tar", url=server.url)
        assert result.returncode == 0, result.stderr
        assert "streams" in result.stdout
    finally:
        server.stop()
    return base / "small.tar"


def test_a_backup_holds_the_store_and_no_logins(made: Path) -> None:
    summary = read_archive(made)
    assert summary.streams[EVENTS].messages >= 30
    assert {EVENTS, ENGINE, "RUNS", "LOGS", "KV_WT_runs", "KV_WT_state"} <= set(summary.streams)
    assert summary.head.format == FORMAT
    with tarfile.open(made) as archive:
        names = archive.getnames()
    assert names[0] == "whenthen-backup.json"
    assert names[-2:] == ["manifest.json", "end"]
    assert all(name.startswith("store/jetstream/") for name in names[1:-2])
    data = made.read_bytes()
    assert TOKEN.encode() not in data
    assert b'"password"' not in data


def test_one_that_is_cut_anywhere_is_refused_and_nothing_is_changed(made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    cut = tmp_path / "cut.tar"
    for length in (0, 1, 511, 512, 700, 5000, len(data) // 2, len(data) - 1500, len(data) - 1536, len(data) - 2000):
        cut.write_bytes(data[:length])
        with pytest.raises(InvalidBackup):
            read_archive(cut)
    result = command("restore", cut, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert "ends too early" in result.stderr or "damaged" in result.stderr
    assert not (tmp_path / "data").exists()


def test_one_with_another_byte_anywhere_is_refused(made: Path, tmp_path: Path) -> None:
    data = bytearray(made.read_bytes())
    spoiled = tmp_path / "spoiled.tar"
    with tarfile.open(made) as archive:
        entries = archive.getmembers()
    # inside of the contents of the first, a middle and the last entries
    picked = [each for each in entries if each.size > 10]
    for entry in (picked[0], *picked[1 :: max(1, len(picked) // 15)], picked[-2], picked[-1]):
        position = entry.offset_data + entry.size // 2
        data[position] ^= 1
        spoiled.write_bytes(data)
        try:
            summary = read_archive(spoiled)
        except InvalidBackup:
            pass
        else:  # a file that came again later, or one that was deleted meanwhile: what it was does not matter
            later = [each for each in entries if each.name == entry.name and each.offset > entry.offset]
            assert later or entry.name.removeprefix("store/") not in summary.files
        data[position] ^= 1


@pytest.mark.parametrize("content", [b"", b"no archive" * 1000, b"\0" * 10_240])
def test_another_file_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(InvalidBackup, match="no backup"):
        read_archive(tmp_path / "other")


HEAD = ArchiveHead(version="9.8.7", format=FORMAT, lowest_reader=FORMAT, created="2026-01-01T00:00:00Z")


def test_a_foreign_archive_and_one_of_a_newer_format_are_refused_by_their_head(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.tar"
    with tarfile.open(foreign, "w") as archive:
        archive.add(__file__, "readme")
    with pytest.raises(InvalidBackup, match="no backup of whenthen"):
        read_archive(foreign)
    newer = tmp_path / "newer.tar"
    head = ArchiveHead(version="9.8.7", format=FORMAT + 1, lowest_reader=FORMAT + 1, created="2026-01-01T00:00:00Z")
    newer.write_bytes(head.encode() + ending({}, {}))
    result = command("restore", newer, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert f"whenthen 9.8.7 made it, its data are of format {FORMAT + 1}" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "name", ["/etc/x", "store/../x", "store/a/../../x", "store//x", "store/", "other/x", "store/a\nb"]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(HEAD.encode() + small_entry(name, b"x") + ending({}, {}))
    with pytest.raises(InvalidBackup, match="nothing that a backup holds"):
        read_archive(file)
    link = tarfile.TarInfo("store/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    file.write_bytes(HEAD.encode() + link.tobuf() + ending({}, {}))
    with pytest.raises(InvalidBackup, match="nothing that a backup holds"):
        read_archive(file)


def test_streams_that_are_not_in_it_are_missed_when_it_is_tried(made: Path, tmp_path: Path) -> None:
    """Digests say that a file is as it was written, not that what was written is a store."""
    file = tmp_path / "empty.tar"
    file.write_bytes(HEAD.encode() + ending({}, read_archive(made).streams))
    result = command("restore", file, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert "is not in it" in result.stderr
    assert not (tmp_path / "data").exists()


def test_nothing_is_restored_over_data_or_under_a_server(made: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "server")
    server = Served(folder)
    try:
        server.wait_until_ready()
        server.emit("order.burst", id="mine")
        running = command("restore", made, "--data-dir", folder / "data")
        assert running.returncode == 1
        assert "in use by process" in running.stderr
    finally:
        server.stop()
    stopped = command("restore", made, "--data-dir", folder / "data")
    assert stopped.returncode == 1
    assert "has data already" in stopped.stderr
    assert not list((folder / "data").glob(".restoring-*"))
    missing = command("restore", tmp_path / "nothing.tar", "--data-dir", tmp_path / "data")
    assert "there is no such file" in missing.stderr


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
