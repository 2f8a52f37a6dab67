"""The socket of a run hears everything that was sent, however many speak, and however little time the worker has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.patience import limit, until
from whenthen.runs.reports import report_socket
from whenthen.runs.reports.report_socket import ReportSocket

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The loop of `whenthen worker`, and that of a server."""
    return "asyncio", {"use_uvloop": request.param}


class Worker:
    """Has the socket, and keeps what it hears."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[bytes] = []
        self.may_hear = asyncio.Event()
        self.may_hear.set()
        self.socket = ReportSocket(
            folder, hear=self._hear, closed_files=self._closed_files, answer=self._answer, kinds=["echo"]
        )

    def speaker(self, *lines: str, what: str = "reports") -> socket.socket:
        """Somebody who has connected and sent lines; the worker has not had a moment since."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect(str(self.socket.path))
        hello = {"type": "hello", "protocol": 1, "token": self.socket.token, "for": what}
        made.sendall("\n".join([json.dumps(hello), *lines, ""]).encode())
        return made

    async def _hear(self, lines: Sequence[bytes]) -> None:
        await self.may_hear.wait()
        self.heard += lines

    async def _closed_files(self, names: object) -> None:
        pass

    async def _answer(self, kind: str, body: dict[str, Any]) -> Any:
        return body


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    monkeypatch.setattr(report_socket, "MOST_CONNECTIONS", 4)
    worker = Worker(tmp_path)
    await worker.socket.open()
    yield worker
    await worker.socket.abandon()


def named(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


def said(worker: Worker) -> list[str]:
    return sorted(line.decode() for line in worker.heard)


async def asked(worker: Worker) -> Any:
    """The answer to a request; who is told that there are too many asks again."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(limit(30)):
        while True:
            with contextlib.suppress(OSError), worker.speaker(what="requests") as made:
                greeting = await loop.sock_recv(made, 10_000)
                if b"welcome" in greeting:
                    await loop.sock_sendall(made, b'{"type": "request", "kind": "echo", "body": {"n": 1}}\n')
                    return json.loads(await loop.sock_recv(made, 10_000))
            await asyncio.sleep(0.01)


async def test_what_was_sent_before_the_end_is_heard_though_nobody_had_time_for_the_connection(worker: Worker) -> None:
    lines = named(4)
    for line in lines:
        worker.speaker(line).close()
    await worker.socket.close(wait_s=0)
    assert said(worker) == lines


async def test_more_that_speak_at_once_than_are_served_are_heard(worker: Worker) -> None:
    lines = named(200)
    left = list(lines)
    while left:
        try:
            worker.speaker(left[-1]).close()
            left.pop()
        except BlockingIOError:  # nobody more fits into the system's queue
            await asyncio.sleep(0)
    await worker.socket.close(wait_s=0)
    assert said(worker) == sorted(lines)


async def test_one_over_the_number_is_told_to_go_elsewhere_and_what_it_sent_is_heard(worker: Worker) -> None:
    held = [worker.speaker() for _ in range(4)]
    await until(lambda: asyncio.sleep(0, len(worker.socket._connections) == 4))
    with worker.speaker("first") as further:
        await until(lambda: asyncio.sleep(0, worker.heard == [b"first"]))
        await until(lambda: asyncio.sleep(0, len(worker.socket._connections) == 4))
        with pytest.raises(BrokenPipeError):
            further.send(b"second\n")
    for made in held:
        made.close()


async def test_those_that_say_nothing_make_room_for_others(worker: Worker) -> None:
    silent = []
    for _ in range(40):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        silent.append(made)
        while made.connect_ex(str(worker.socket.path)):
            await asyncio.sleep(0)
    assert await asked(worker) == {"ok": True, "value": {"n": 1}}
    with worker.speaker("here"):
        await until(lambda: asyncio.sleep(0, worker.heard == [b"here"]))
    for made in silent:
        made.close()


async def test_what_was_sent_is_heard_when_it_can_be_stored_again_and_what_comes_later_is_refused(
    worker: Worker,
) -> None:
    worker.may_hear.clear()
    speakers = [worker.speaker(f"early {number}") for number in range(3)]
    closing = asyncio.create_task(worker.socket.close(wait_s=0))

    async def refused() -> bool:
        try:
            speakers[0].send(b"")
            return speakers[0].send(b"late\n") < 0
        except BrokenPipeError:
            return True

    await until(refused)
    worker.may_hear.set()
    await closing
    assert [line for line in said(worker) if line != "late"] == ["early 0", "early 1", "early 2"]
    for made in speakers:
        made.close()


async def test_a_socket_that_is_abandoned_ends_at_once(worker: Worker) -> None:
    worker.may_hear.clear()
    with worker.speaker("unheard"):
        await until(lambda: asyncio.sleep(0, len(worker.socket._connections) == 1))
        async with asyncio.timeout(limit(10)):
            await worker.socket.abandon()
    assert worker.heard == []
