"""A fake API on loopback, and commands run against it in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import pytest
from typer.testing import CliRunner, Result

from whenthen.cli.main import app


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None
    headers: dict[str, str]


@dataclass
class FakeServer:
    """Answers what `answers` has for `METHOD /path`: a value (200), `(status, value)`, or a function of the request."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  #: that stand in the head of each answer

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        found = self.answers.get(f"{asked.method} {asked.path}")
        if callable(found):
            found = found(asked)
        if found is None:
            return 404, {"error": {"reason": "not_found", "field": None, "message": f"nothing at {asked.path}"}}
        return found if isinstance(found, tuple) else (200, found)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._take("GET")

        def do_POST(self) -> None:
            self._take("POST")

        def _take(self, method: str) -> None:
            split = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(
                method=method,
                path=unquote(split.path),
                query=dict(parse_qsl(split.query)),
                body=orjson.loads(raw) if raw else None,
                authorization=self.headers.get("Authorization"),
                headers={name.lower(): value for name, value in self.headers.items()},
            )
            status, value = fake.answer(asked)
            body = value if isinstance(value, bytes) else orjson.dumps(value)
            self.send_response(status)
            if status == 503:
                self.send_header("Retry-After", "2")
            for note in fake.notes:
                self.send_header("Whenthen-Note", note)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    fake.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield fake
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command against the fake server."""
    monkeypatch.delenv("WHENTHEN_API_TOKEN", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def command(*arguments: str, code: int = 0, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        settings = {"WHENTHEN_URL": server.url, "TZ": "UTC", "COLUMNS": "200", **(env or {})}
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=settings)
        assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
        return result

    return command
