"""A process that actions call: writes each request's `Idempotency-Key`, and who sent it, to a file before it answers.

    python -m tests.chaos.receiver PORT LOG

A key that was answered with 2xx is in the file whatever happens to this process afterwards: it is one write in append
mode, which a killed process can not take back.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Receiver", "main", "received"]


class Receiver(ThreadingHTTPServer):
    """Listens on loopback and appends to `log`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, log: Path) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        key = self.headers.get("Idempotency-Key", "")
        os.write(self.server.log, f"{self.headers.get('X-Chaos-Process', '-')} {key}\n".encode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def received(log: Path) -> list[tuple[str, str]]:
    """Sender and key of every request that was taken, in order."""
    if not log.exists():
        return []
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [(sender, key) for sender, key in lines]


def main(arguments: list[str]) -> None:
    Receiver(int(arguments[0]), Path(arguments[1])).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
