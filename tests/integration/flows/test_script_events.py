"""`emit_event` in a program that no worker started: it goes to the server at `WHENTHEN_URL`, never waits, repeats, and is flushed at the end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.patience import limit
from whenthen.events import emit_event
from whenthen.flows.reporting import script_events
from whenthen.flows.reporting.script_events import ScriptEvents
from whenthen.flows.services import emitted_events


class Receiver(ThreadingHTTPServer):
    """Takes events as `POST /api/events` does; `refuse` names answers for the next requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[list[dict[str, Any]]] = []
        self.refuse: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for request in self.requests for event in request]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.gate.wait(limit(20))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.refuse.pop(0) if self.server.refuse else 202
        if any(event["event"] == "wrong" for event in body):
            status = 400
        if status == 202:
            self.server.requests.append(body)
        data = json.dumps({"error": {"field": "event", "message": "no"}} if status != 202 else {"ids": []}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("WHENTHEN_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("WHENTHEN_API_TOKEN", raising=False)
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> ScriptEvents:
    made = ScriptEvents()
    monkeypatch.setattr(emitted_events, "SCRIPT_EVENTS", made)
    return made


def emit(name: str = "order.made", **fields: Any) -> Any:
    return emit_event(name, resource={"prefect.resource.id": "order.1", "team": "data"}, **fields)


class Order(BaseModel):
    number: int


def test_event_goes_to_the_server_with_its_labels_and_payload(
    receiver: Receiver, sender: ScriptEvents, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "whenthen.flows"):
        first = emit(payload=Order(number=7))
        emit(related=[{"prefect.resource.id": "c.1", "prefect.resource.role": "customer"}], follows=first)
        assert sender.flush(limit(20))
    one, two = receiver.events
    assert one["id"] == str(first.id)
    assert (one["resource"], one["payload"]) == ({"id": "order.1", "team": "data"}, {"number": 7})
    assert (two["related"], two["follows"]) == ([{"id": "c.1", "role": "customer"}], str(first.id))
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"events of this program go to http://127.0.0.1:{receiver.server_port}"]


def test_caller_never_waits_and_events_are_sent_in_batches(receiver: Receiver, sender: ScriptEvents) -> None:
    receiver.gate.clear()
    begun = time.monotonic()
    for _ in range(1000):
        emit()
    assert time.monotonic() - begun < limit(5)
    assert receiver.events == []
    receiver.gate.set()
    assert sender.flush(limit(30))
    assert len({event["id"] for event in receiver.events}) == 1000
    assert len(receiver.requests) <= 20


def test_what_the_server_does_not_take_is_repeated_with_the_same_ids(receiver: Receiver, sender: ScriptEvents) -> None:
    receiver.refuse = [503, 429, 500]
    made = [emit(), emit()]
    assert sender.flush(limit(30))
    assert sorted({event["id"] for event in receiver.events}) == sorted(str(event.id) for event in made)


def test_event_that_is_refused_keeps_no_other_back(
    receiver: Receiver, sender: ScriptEvents, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.gate.clear()
    for name in ("a", "wrong", "b"):
        emit(name)
    receiver.gate.set()
    assert sender.flush(limit(30))
    assert {event["event"] for event in receiver.events} == {"a", "b"}
    assert "an event was refused" in caplog.text


def test_more_events_than_may_wait_are_left_out_and_counted(
    receiver: Receiver, sender: ScriptEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(script_events, "MOST_WAITING", 5)
    receiver.gate.clear()
    for _ in range(8):
        emit()
    receiver.gate.set()
    sender.flush(limit(20))
    assert len(receiver.events) == 5
    assert "3 events of this program did not reach the server" in caplog.text


def test_nobody_listens_is_said_once_and_the_event_is_given(
    sender: ScriptEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WHENTHEN_URL", raising=False)
    with caplog.at_level(logging.INFO, "whenthen.flows"):
        assert emit().event == "order.made"
        assert emit().event == "order.made"
    assert caplog.text.count("nobody listens") == 1


def test_program_that_ends_sends_what_waits_also_from_a_coroutine(receiver: Receiver, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nfrom whenthen.events import emit_event\n\n"
        "async def main():\n    emit_event('from.coroutine', resource={'id': 'x'})\n\n"
        "asyncio.run(main())\nemit_event('from.script', resource={'id': 'x'})\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=limit(60))
    assert ended.returncode == 0, ended.stderr
    assert {event["event"] for event in receiver.events} == {"from.coroutine", "from.script"}


def test_program_ends_soon_when_no_server_answers(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENTHEN_URL", "http://127.0.0.1:1")
    script = tmp_path / "script.py"
    script.write_text("from whenthen.events import emit_event\nemit_event('x', resource={'id': 'x'})\n")
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=limit(60))
    assert ended.returncode == 0
    assert time.monotonic() - begun < limit(10)
    assert b"1 events of this program did not reach the server" in ended.stderr
