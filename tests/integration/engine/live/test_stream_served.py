"""`GET /api/stream` of a real `whenthen serve`: restarts, ends, limits, and clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.integration.served import TOKEN, Served
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(20)]

RULES = "automations:\n  - {name: ship, trigger: {expect: order.paid}, actions: [do-nothing]}\n"


def start(folder: Path, **settings: str) -> Served:
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(RULES)
    served = Served(folder, settings)
    served.wait_until_ready()
    return served


@contextlib.contextmanager
def streaming(served: Served, query: str = "", last_id: str = "") -> Iterator[Iterator[tuple[str, str, Any]]]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with served.http.stream("GET", f"/api/stream{query}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parts(response)


def parts(response: httpx.Response) -> Iterator[tuple[str, str, Any]]:
    """Name, id and data of each part; what has no data has no name."""
    buffered = b""
    for chunk in response.iter_bytes():
        *blocks, buffered = (buffered + chunk).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            yield fields.get("event", ""), fields.get("id", ""), orjson.loads(fields.get("data", "null"))


def request(served: Served, *headers: str) -> bytes:
    host = served.url.partition("//")[2]
    lines = ["GET /api/stream HTTP/1.1", f"host: {host}", f"authorization: Bearer {TOKEN}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def connect(served: Served, *, window: int = 0) -> socket.socket:
    """A connection that asks for the stream and reads nothing of it."""
    made = socket.socket()
    if window:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    made.settimeout(limit(10))
    made.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
    made.sendall(request(served))
    return made


def clients(served: Served) -> float:
    text = served.http.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("whenthen_stream_clients ")).split()[1])


def test_what_follows_an_event_is_shown_and_a_restarted_server_goes_on_behind_the_last_id(tmp_path: Path) -> None:
    served = start(tmp_path)
    try:
        seen: dict[str, Any] = {}
        last = ""
        with streaming(served) as told:
            next(told)
            served.emit("order.paid", id="first")
            while not (
                {"events", "decisions", "firings"} <= seen.keys() and seen.get("actions", {}).get("state") == "executed"
            ):
                name, last, data = next(told)
                if name == "actions":
                    seen[name] = data
                elif name:
                    seen.setdefault(name, data)
        assert seen["events"]["id"] == "first"
        assert (seen["decisions"]["reason"], seen["decisions"]["event"]) == ("fired", "first")
        assert seen["firings"]["id"] == seen["decisions"]["firing"] == seen["actions"]["firing"]
    finally:
        served.stop()
    served = start(tmp_path)
    try:
        served.emit("order.paid", id="second")
        wanted = {"events", "decisions", "firings", "actions"}
        with streaming(served, "?of=events&of=decisions&of=firings&of=actions", last) as told:
            while wanted:
                name, _, data = next(told)
                assert name != "gap", data
                if name:
                    assert "first" not in (data.get("id"), data.get("event")), data
                    wanted.discard(name)
    finally:
        served.stop()


def test_a_stopping_server_tells_its_clients_and_waits_for_none(tmp_path: Path) -> None:
    served = start(
        tmp_path, WHENTHEN_STREAM_CLIENTS="3", WHENTHEN_DRAIN_GRACE="1h"
    )  # so that whoever drains never ends
    silent = connect(served, window=4096)
    with streaming(served, "?of=events") as told:
        next(told)
        eventually(lambda: clients(served) == 2)
        # until the system's buffers are full and the server has to wait for the one that does not read
        for number in range(60):
            served.http.post(
                "/api/events",
                json=[
                    {"event": "big", "resource": {"id": f"r{number}"}, "payload": {"text": "x" * 7000}}
                    for _ in range(20)
                ],
            ).raise_for_status()
        served.send_signal(signal.SIGTERM)
        *_, (name, last, data) = told
        assert (name, data["reason"]) == ("end", "stopping")
        assert last
    assert served.wait() == 0
    silent.close()


def test_who_never_reads_is_cut_off_and_takes_no_room(tmp_path: Path) -> None:
    served = start(tmp_path, WHENTHEN_BODY_TIMEOUT=f"{limit(1):g}s")
    try:
        silent = connect(served, window=4096)
        eventually(lambda: clients(served) == 1)
        event = {"event": "big", "resource": {"id": "r"}, "payload": {"text": "x" * 7000}}

        def cut_off() -> bool:
            served.http.post("/api/events", json=[event] * 50).raise_for_status()
            return clients(served) == 0

        eventually(cut_off, within_s=30)
        silent.close()
    finally:
        served.stop()


def test_a_client_that_goes_gives_its_place_back(tmp_path: Path) -> None:
    served = start(tmp_path)
    try:
        gone = connect(served)
        eventually(lambda: clients(served) == 1)
        gone.close()
        eventually(lambda: clients(served) == 0)
    finally:
        served.stop()


def test_of_a_thousand_clients_those_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    served = start(tmp_path, WHENTHEN_STREAM_CLIENTS="20")

    async def ask(open_ones: list[asyncio.StreamWriter]) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(request(served, "connection: close"))
        status = int((await reader.readline()).split()[1])
        if status == 200:
            open_ones.append(writer)
        else:
            body = await reader.read()
            assert b"retry-after: 2" in body
            assert b'"too_many_streams"' in body
            writer.close()
        return status

    async def work() -> list[int]:
        open_ones: list[asyncio.StreamWriter] = []
        found: list[int] = []
        for _ in range(20):
            found += await asyncio.gather(*(ask(open_ones) for _ in range(50)))
        for writer in open_ones:
            writer.close()
        return found

    try:
        found = asyncio.run(asyncio.wait_for(work(), limit(60)))
        assert (found.count(200), found.count(503)) == (20, 980)
        eventually(lambda: clients(served) == 0)
        with streaming(served) as told:
            assert next(told)[1]
    finally:
        served.stop()


@pytest.mark.parametrize(
    ("query", "last_id", "field"),
    [
        ("", "garbage", "Last-Event-ID"),
        ("?of=audit&automation=ship", "", "automation"),
        ("?of=wrong", "", "of.0"),
        ("?id=x", "", "id"),
    ],
)
def test_bad_questions_are_answered_400_by_name(watched: Served, query: str, last_id: str, field: str) -> None:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    answer = watched.http.get(f"/api/stream{query}", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = start(tmp_path_factory.mktemp("watched"))
    yield served
    served.stop()
