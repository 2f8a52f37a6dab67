"""Sends the events of a program that no worker started to the server at `WHENTHEN_URL`, beside the program: it never waits and never fails for it.

One thread a process, started with the first event, sends batches and repeats what the server did not take, with the same ids; at the end of the
program it has `FLUSH_S` to send the rest. At most `MOST_WAITING` events and `MOST_BYTES` wait; further ones are left out and counted.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import deque
from typing import Any

from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.flow_errors import ServerError
from whenthen.flows.services.server_requests import ServerAddress

__all__ = ["SCRIPT_EVENTS", "ScriptEvents"]

MOST_WAITING = 10_000
MOST_BYTES = 16 << 20
BATCH = 100  #: events of one request
BATCH_BYTES = 2 << 20
FLUSH_S = 5.0  #: at the end of the program
FIRST_WAIT_S = 0.2  #: until another try; each further one waits twice as long
LONGEST_WAIT_S = 30.0
_SHORT = ("id", "name", "role")  #: labels that Prefect writes with `prefect.resource.` before them


class ScriptEvents:
    """What waits to be sent. Safe between threads, and in a forked process, which has a thread of its own."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._left_out = 0
        self._sending = False
        self._ending = False
        self._thread: threading.Thread | None = None
        self._said = False

    def add(self, event: Any) -> None:
        """Send an event later. Never waits."""
        if os.getpid() != self._pid:
            self._begin()  # what waits is the parent's, which sends it
        if not os.environ.get("WHENTHEN_URL"):
            self._say("nobody listens to events of this program; set WHENTHEN_URL to the address of a server")
            return
        data = json.dumps(_document(event), default=str).encode()
        with self._changed:
            if len(self._waiting) >= MOST_WAITING or self._bytes + len(data) > MOST_BYTES:
                self._left_out += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="whenthen-events", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Whether everything was sent within a time, or refused by the server."""
        if os.getpid() != self._pid:
            return True
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting and not self._sending, timeout_s)
            self._ending = False
            left = len(self._waiting) + self._left_out
        if left:
            engine_logger().warning("%d events of this program did not reach the server", left)
        return done

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = self._batch()
                self._sending = True
            try:
                sent = self._send(batch)
            except Exception as error:
                engine_logger().warning("events of this program wait: %s", error)
                sent = 0
            with self._changed:
                self._sending = False
                for _ in range(sent):
                    self._bytes -= len(self._waiting.popleft())
                self._changed.notify_all()
                if sent:
                    wait_s = FIRST_WAIT_S
                    continue
                # the end of the program wakes it, for another try at once
                self._changed.wait_for(lambda: self._ending, wait_s)
                if self._ending:
                    self._changed.wait(FIRST_WAIT_S)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for data in self._waiting:
            if len(batch) >= BATCH or (batch and size + len(data) > BATCH_BYTES):
                break
            batch.append(data)
            size += len(data)
        return batch

    def _send(self, batch: list[bytes]) -> int:
        """How many of the first events are done with, stored or refused."""
        server = ServerAddress.of_environment("emit_event")
        self._say(f"events of this program go to {server.url}")
        try:
            server.post_json("/api/events", b"[" + b",".join(batch) + b"]")
        except ServerError as error:
            if error.status is None or error.status >= 500 or error.status in (408, 429):
                raise
            if len(batch) > 1:  # one of them is wrong, and the others are not
                return sum(self._send([data]) for data in batch)
            engine_logger().error("an event was refused: %s", error)
        return len(batch)

    def _say(self, text: str) -> None:
        if not self._said:
            self._said = True
            engine_logger().info("%s", text)


def _document(event: Any) -> dict[str, Any]:
    """The event as the API takes it."""
    shown: dict[str, Any] = event.model_dump(mode="json")
    shown["resource"] = _labels(shown["resource"])
    shown["related"] = [_labels(labels) for labels in shown["related"]]
    return {name: value for name, value in shown.items() if value is not None}


def _labels(labels: dict[str, str]) -> dict[str, str]:
    named = {f"prefect.resource.{name}": name for name in _SHORT}
    return {named.get(label, label): value for label, value in labels.items()}


SCRIPT_EVENTS = ScriptEvents()
