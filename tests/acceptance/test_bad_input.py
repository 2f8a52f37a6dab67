"""What must not be taken, over real HTTP: each bad request has its answer, and the server goes on as before."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.patience import eventually

from .conftest import Serving, run_command

RULES = """
automations:
  - name: endless
    trigger: {expect: endless.asked}
    actions:
      - emit-event: endless.done
        payload: {text: "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}"}
        retry: {attempts: 1}
  - {name: any, trigger: {expect: "*.checked"}, actions: do-nothing}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("bad"), {"rules.yaml": RULES})
    server.start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def alive(server: Serving) -> Iterator[Serving]:
    """The server, which after the test takes a good event and decides about it."""
    yield server
    answer = server.post("/api/events", {"event": "still.checked", "resource": {"id": "x"}})
    assert answer.status_code == 202
    eventually(lambda: [item for item in server.get("/api/firings") if item["event"] == answer.json()["ids"][0]])


def event(**fields: Any) -> dict[str, Any]:
    return {"event": "bad.input", "resource": {"id": "x"}, **fields}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty; send JSON"),
        (b"   \n ", "empty; send JSON"),
        (b'{"event": ', "not JSON at line 1"),
        (b"[" * 10_000 + b"]" * 10_000, "nested more than"),
        (b'{"event": "a", "resource": {"id": "x"}, "payload": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, "nested more than"),
        (b'{"event": "a\xff", "resource": {"id": "x"}}', "is not UTF-8"),
        (b'{"event": "a\\ud800", "resource": {"id": "x"}}', "not JSON"),
        (b"null", "an event is a JSON object"),
        (b"[]", "the list is empty"),
    ],
    ids=["empty", "blank", "cut off", "deep list", "deep payload", "invalid UTF-8", "lone surrogate", "null", "no events"],
)  # fmt: skip
def test_a_body_that_is_no_event_is_refused(alive: Serving, body: bytes, said: str) -> None:
    with alive.client() as client:
        answer = client.post("/api/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (event(occurred="9999-12-31T23:59:59Z"), "occurred"),
        (event(occurred="1969-12-31T23:59:59Z"), "occurred"),
        (event(occurred="2026-01-31T08:00:00"), "occurred"),
        (event(occurred="2026-02-30T08:00:00Z"), "occurred"),
        (event(resource={"id": "x", **{f"label-{number}": "y" for number in range(1000)}}), "resource"),
        (event(event=""), "event"),
        (event(event="line\nbreak"), "event"),
        (event(event="n" * 10_000), "event"),
        (event(evnt="x"), "evnt"),
        ([event(), event(resource={})], "[1].resource.id"),
    ],
    ids=[
        "year 9999", "before 1970", "no zone", "no such day", "1,000 labels", "empty name", "control character",
        "long name", "unknown field", "second of a list",
    ],
)  # fmt: skip
def test_an_event_with_a_bad_field_is_refused_with_its_name(alive: Serving, data: Any, field: str) -> None:
    answer = alive.post("/api/events", data)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize(
    "name", ["with some spaces", "star * and > greater", ".leading.dot", "..", "ünïcødé.✓", ">", "a..b"]
)
def test_an_odd_name_is_stored_and_found_again_as_it_is(alive: Serving, name: str) -> None:
    answer = alive.post("/api/events", event(event=name))
    assert answer.status_code == 202, answer.text
    stored = alive.get(f"/api/events/{answer.json()['ids'][0]}")
    assert stored["event"] == name


def test_100_mb_are_refused_without_being_read(alive: Serving) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000_000

    with alive.client() as client:
        announced = client.post("/api/events", content=b" " * 100_000_000)
        try:
            status = client.post("/api/events", content=chunks()).status_code
        except (httpx.WriteError, httpx.ReadError):
            status = 413  # the connection was closed while the rest was still being sent
    assert announced.status_code == 413
    assert status == 413
    held = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{alive.pid}/status").read_text())
    assert held is not None
    assert int(held[1]) < 400_000, "the body was held in memory"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/hooks/no-such-webhook", {}, 404),
        ("GET", "/api/no-such-thing", {}, 404),
        ("DELETE", "/api/events", {}, 405),
        ("POST", "/api/events", {"Content-Type": "text/csv"}, 415),
        ("POST", "/api/events", {"Content-Encoding": "gzip", "Content-Type": "application/json"}, 415),
    ],
)
def test_the_wrong_address_or_form_has_its_status(
    alive: Serving, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    with alive.client() as client:
        answer = client.request(method, path, headers=headers, content=b"{}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_template_that_loops_for_ever_fails_alone(alive: Serving) -> None:
    sent = alive.post("/api/events", event(event="endless.asked")).json()["ids"][0]
    dead = eventually(lambda: alive.get("/api/actions", outcome="dead", automation="endless"))
    firing = next(item for item in alive.get("/api/firings", automation="endless") if item["event"] == sent)
    assert dead[0]["key"] == f"{firing['id']}.0"


def test_a_yaml_alias_bomb_is_refused(alive: Serving, tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    (tmp_path / "bomb.yaml").write_text(bomb)
    checked = run_command("check", tmp_path)
    assert checked.returncode == 1
    assert "bomb.yaml:" in checked.stderr
    assert "aliases stand for more than" in checked.stderr
    alive.write("bomb.yaml", bomb)
    assert eventually(lambda: alive.get("/api/status")["problems"])[0]["file"] == "bomb.yaml"
    (alive.rules / "bomb.yaml").unlink()
    eventually(lambda: not alive.get("/api/status")["problems"])


def test_two_automations_of_one_name_are_refused(alive: Serving, tmp_path: Path) -> None:
    rule = "{name: twin, trigger: {expect: x}, actions: do-nothing}"
    (tmp_path / "a.yaml").write_text(f"automations: [{rule}]")
    (tmp_path / "b.yaml").write_text(f"automations: [{rule}]")
    checked = run_command("check", tmp_path)
    assert checked.returncode == 1
    assert "b.yaml:1:" in checked.stderr
    assert "twin" in checked.stderr


def test_no_accepted_event_is_lost_when_nats_is_killed(serving: Callable[..., Serving]) -> None:
    """Four clients send while nats-server is killed twice; every id of a 2xx is in the stream afterwards."""
    server = serving({"rules.yaml": RULES})
    accepted: list[str] = []
    statuses: set[int] = set()
    done = threading.Event()

    def send(sender: int) -> None:
        with server.client() as client:
            number = 0
            while not done.wait(0.005):  # a few hundred a second between them
                number += 1
                sent = f"{sender}-{number}"
                try:
                    answer = client.post("/api/events", json=event(event="sent.checked", id=sent))
                except httpx.TransportError:
                    continue
                statuses.add(answer.status_code)
                if answer.status_code == 202:
                    accepted.append(sent)
                else:
                    assert "retry-after" in answer.headers

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(2):
            before = len(accepted)
            eventually(lambda before=before: len(accepted) > before + 50)
            os.kill(_nats_of(server), signal.SIGKILL)
        after = len(accepted)
        eventually(lambda: len(accepted) > after + 50, within_s=40)
    finally:
        done.set()
        for sender in senders:
            sender.join()
    assert statuses <= {202, 503}
    stored = {orjson.loads(line)["id"] for line in _lines(server)}
    assert set(accepted) <= stored
    fired = eventually(lambda: _firings(server) >= set(accepted) and _firings(server), within_s=30)
    assert fired <= stored
    assert server.stop() == 0


def _nats_of(server: Serving) -> int:
    """The process id of the server's nats-server."""
    for children in Path(f"/proc/{server.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if "nats-server" in Path(f"/proc/{child}/comm").read_text():
                return int(child)
    raise AssertionError("the server has no nats-server child")


def _lines(server: Serving) -> list[str]:
    found = orjson.loads(server.run("events", "--json", "-n", "100000"))
    return [orjson.dumps(item).decode() for item in found]


def _firings(server: Serving) -> set[str]:
    return {item["event"] for item in orjson.loads(server.run("firings", "--json", "-n", "100000"))}
