"""Stands in for the outside: takes what the demo's actions send on loopback, and remembers it."""

from __future__ import annotations

import base64
import hmac
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import orjson

__all__ = ["Received", "Receiver", "is_signed"]

_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request that came."""

    at: datetime
    path: str
    headers: dict[str, str]  #: names in lower case
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


def is_signed(request: Received, secret: str) -> bool:
    """Whether a signature of Standard Webhooks 1.0 on the request is made with `secret`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamped = f"{request.headers.get('webhook-id')}.{request.headers.get('webhook-timestamp')}.".encode()
    expected = "v1," + base64.b64encode(hmac.digest(key, stamped + request.body, "sha256")).decode()
    given = request.headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given)


class Receiver:
    """An HTTP server on a free port of loopback that answers 204 to every POST. Use it as a context manager."""

    def __init__(self) -> None:
        self._requests: list[Received] = []
        requests = self._requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("Content-Length") or 0), _MOST_BYTES)
                body = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                requests.append(Received(at=datetime.now(UTC), path=self.path, headers=headers, body=body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the story tells what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def received(self, path: str) -> list[Received]:
        """What came to `path`, oldest first."""
        return [request for request in list(self._requests) if request.path == path]

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
