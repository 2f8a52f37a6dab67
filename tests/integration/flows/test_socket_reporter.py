"""A run tells its worker of itself without ever waiting for it: over a socket that nobody reads, with none, on a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import eventually, limit
from whenthen.flows.flow_errors import ConfigurationError, ServerError
from whenthen.flows.reporting import report_file
from whenthen.flows.reporting.worker_channel import MAX_LINE_BYTES, PROTOCOL, WorkerChannel
from whenthen.runs.reports import report_lines


class Worker:
    """Listens, and reads what a test lets it read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "worker.sock"
        self.lines: list[dict[str, Any]] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(self.path))
        self._listening.listen(0)  # one connection waits for being read, and no further one
        self._open: list[socket.socket] = []

    def read_for_ever(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self.lines.append(json.loads(line))

    def close(self) -> None:
        self._listening.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    return tmp_path


@pytest.fixture
def worker(folder: Path) -> Iterator[Worker]:
    worker = Worker(folder)
    yield worker
    worker.close()


def channel_to(folder: Path) -> WorkerChannel:
    return WorkerChannel(str(folder / "worker.sock"), "token")


def in_files(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted((folder / "reports").glob("*.jsonl"))
        for line in file.read_bytes().splitlines()
        if line
    ]


def told(channel: WorkerChannel, *, states: int, lines: int) -> None:
    for number in range(max(states, lines)):
        if number < states:
            channel.tell({"type": "state", "n": number})
        if number < lines:
            channel.tell({"type": "log", "n": number, "text": "x" * 500}, may_drop=True)


def test_both_sides_speak_the_same_protocol() -> None:
    assert PROTOCOL in report_lines.PROTOCOLS
    assert MAX_LINE_BYTES == report_lines.MAX_LINE_BYTES


@pytest.mark.parametrize("text", ["", "ü \u2028 \0 \n {", "half of a pair: \ud800", "\U0001f40d"])
def test_any_text_arrives_as_it_is(folder: Path, worker: Worker, text: str) -> None:
    worker.read_for_ever()
    channel = channel_to(folder)
    channel.tell({"type": "log", "text": text}, may_drop=True)
    channel.tell({"type": "state", "name": text, "tags": [text]})
    eventually(lambda: len(worker.lines) == 3)
    assert worker.lines[1:] == [{"type": "log", "text": text}, {"type": "state", "name": text, "tags": [text]}]


@pytest.mark.usefixtures("worker")
def test_a_worker_that_reads_nothing_blocks_nobody_and_of_what_passes_the_room_lines_alone_are_left_out(
    folder: Path,
) -> None:
    channel = channel_to(folder)
    began = time.monotonic()
    told(channel, states=30_000, lines=30_000)
    assert time.monotonic() - began < limit(20)
    found = in_files(folder)
    states = [one["n"] for one in found if one["type"] == "state"]
    assert states == list(range(states[0], 30_000))  # those before are in the socket
    assert states[0] < 2_000
    lines = [one["n"] for one in found if one["type"] == "log"]
    assert lines == sorted(set(lines))
    dropped = sum(one["lines"] for one in found if one["type"] == "dropped")
    assert dropped > 0
    size = sum(file.stat().st_size for file in (folder / "reports").glob("*.jsonl"))
    assert size < report_file.ROOM_BYTES + 30_000 * 60


def test_every_line_is_either_told_or_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_file, "ROOM_BYTES", 10_000)
    channel = channel_to(folder)
    told(channel, states=1, lines=1_000)
    channel.tell({"type": "state", "n": 1})
    found = in_files(folder)
    lines = sum(1 for one in found if one["type"] == "log")
    assert lines + sum(one["lines"] for one in found if one["type"] == "dropped") == 1_000
    assert 0 < lines < 1_000


def test_a_worker_that_comes_back_gets_the_rest_over_the_socket_and_is_told_of_the_files(folder: Path) -> None:
    channel = channel_to(folder)
    told(channel, states=5, lines=0)
    worker = Worker(folder)
    worker.read_for_ever()

    def tells() -> bool:
        channel.tell({"type": "state", "n": 100})
        return len(worker.lines) > 1

    eventually(tells)
    hello = worker.lines[0]
    assert (hello["type"], hello["protocol"], hello["token"]) == ("hello", PROTOCOL, "token")
    assert hello["closed"] == [file.name for file in sorted((folder / "reports").glob("*.jsonl"))]
    assert [one["n"] for one in in_files(folder)][:5] == list(range(5))
    worker.close()


def test_what_went_over_the_socket_is_kept_in_files_until_the_worker_has_it(
    folder: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_file, "SENT_BYTES", 1_000)
    worker.read_for_ever()
    channel = channel_to(folder)
    told(channel, states=100, lines=100)
    files = sorted((folder / "reports").glob("*.sent"))
    kept = [json.loads(line)["n"] for file in files for line in file.read_bytes().splitlines()]
    assert kept == list(range(100))
    eventually(lambda: len([one for one in worker.lines if one["type"] == "state"]) == 100)
    full = [one["file"] for one in worker.lines if one["type"] == "kept"]
    assert full == [file.name for file in files[: len(full)]]
    assert len(files) - len(full) <= 1


def test_a_folder_that_is_gone_costs_nothing(folder: Path) -> None:
    channel = channel_to(folder)
    (folder / "reports").rmdir()
    told(channel, states=1_000, lines=1_000)


def test_on_a_full_disk_states_wait_until_there_is_room(folder: Path) -> None:
    channel = channel_to(folder)
    told(channel, states=10, lines=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = sum(file.stat().st_size for file in (folder / "reports").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))  # in the middle of the next line
    try:
        for number in range(10, 20):
            channel.tell({"type": "state", "n": number})
            channel.tell({"type": "log", "text": "x"}, may_drop=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    channel.tell({"type": "state", "n": 20})
    lines = b"\n".join(file.read_bytes() for file in sorted((folder / "reports").iterdir())).splitlines()
    whole = []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue
    assert [one["n"] for one in whole if one["type"] == "state"] == list(range(21))
    channel.tell({"type": "state", "n": 21})
    assert sum(one["lines"] for one in in_lines(folder) if one["type"] == "dropped") == 10


def in_lines(folder: Path) -> list[dict[str, Any]]:
    found = []
    for file in sorted((folder / "reports").iterdir()):
        for line in file.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def test_threads_and_a_fork_have_lines_of_their_own(folder: Path) -> None:
    channel = channel_to(folder)
    threads = [threading.Thread(target=told, args=(channel,), kwargs={"states": 200, "lines": 200}) for _ in range(4)]
    for thread in threads:
        thread.start()
    pid = os.fork()
    if pid == 0:
        told(channel, states=100, lines=0)
        os._exit(0)
    os.waitpid(pid, 0)
    for thread in threads:
        thread.join()
    assert len({file.name.rpartition("-")[0] for file in (folder / "reports").iterdir()}) == 2
    assert sum(1 for one in in_files(folder) if one["type"] == "state") == 4 * 200 + 100


def test_what_is_no_json_or_too_large_is_refused(folder: Path) -> None:
    channel = channel_to(folder)
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(ConfigurationError, match="no JSON"):
        channel.tell({"type": "event", "event": nested})
    with pytest.raises(ConfigurationError, match="at most 1,048,576"):
        channel.tell({"type": "event", "event": "x" * (1 << 20)})


def test_a_request_without_a_worker_says_so(folder: Path) -> None:
    channel = channel_to(folder)
    assert not channel.answers("anything")
    with pytest.raises(ServerError, match="can not be asked"):
        channel.ask("anything", {})


def test_a_socket_whose_path_is_longer_than_an_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    (folder / "reports").mkdir(parents=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind("worker.sock")
    finally:
        os.chdir(here)
    listening.listen()
    channel_to(folder).tell({"type": "state", "n": 1})
    connection, _ = listening.accept()
    assert connection.makefile("rb").readline().startswith(b'{"type":"hello"')
    listening.close()
