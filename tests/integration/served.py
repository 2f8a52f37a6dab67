"""A `whenthen serve` of a test: a process of its own, on a folder with `rules` and `data`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import forks
from tests.patience import SERVER_SETTINGS, eventually, limit
from tests.plain_http import plain_client
from tests.ports import free_port

TOKEN = "token-of-this-test-0123456789"


def environment(**settings: str) -> dict[str, str]:
    """The caller's environment with these settings of whenthen and no others."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("WHENTHEN_")}, **settings}


class Served:
    """Started at once; `wait_until_ready` before use."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, *, port: int = 0) -> None:
        port = port or free_port()
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self.url = f"http://127.0.0.1:{port}"
        words = ["serve", str(folder / "rules"), "--port", str(port)]
        with self.log.open("ab") as log:
            self._process = forks.start(
                [*words, "--data-dir", str(self.data_dir)],
                env=environment(**{**SERVER_SETTINGS, "WHENTHEN_API_TOKEN": TOKEN, **(settings or {})}),
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        self.http = plain_client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"})

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self._process.poll() is None, self.log.read_text()
            try:
                return self.http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, within_s=60)

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def emit(self, name: str, payload: Any = None, **more: Any) -> None:
        """As a sender does: what is answered 503, because NATS is slow on a busy machine, is sent again and is the same event."""
        event = {"event": name, "resource": {"id": "one"}, "payload": payload or {}, "id": uuid.uuid4().hex, **more}
        eventually(lambda: self._takes(event))

    def _takes(self, event: dict[str, Any]) -> bool:
        answer = self.http.post("/api/events", json=event)
        return answer.status_code != 503 and bool(answer.raise_for_status())

    def fired(self) -> Counter[str]:
        return Counter(
            each["automation"] for each in self.get("/api/firings?limit=1000") if each["state"] == "Triggered"
        )

    def reasons(self, automation: str) -> list[str]:
        return [each["reason"] for each in self.get(f"/api/automations/{automation}")["decisions"]]

    @property
    def nats_pid(self) -> int:
        return int((self.data_dir / "nats" / "pid").read_text())

    def kill(self, *, with_nats: bool = True) -> None:
        """SIGKILL to it and to its NATS server, which otherwise gets SIGTERM from the system."""
        nats = self.nats_pid
        self._process.kill()
        self._process.wait()
        if with_nats:
            os.kill(nats, signal.SIGKILL)
        self.http.close()
        eventually(self._has_given_up_its_data)  # the process below the one that was killed ends a moment later

    def _has_given_up_its_data(self) -> bool:
        with (self.data_dir / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, within_s: float | None = None) -> int:
        """Its exit code. Raises `TimeoutError` when it goes on for `within_s`."""
        try:
            return self._process.wait(limit(40) if within_s is None else within_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self.wait()
        except TimeoutError:
            self._process.kill()
            raise
        finally:
            self.http.close()

    def interrupt(self) -> int:
        """Its exit code after a SIGINT."""
        return self.stop(signal.SIGINT)


@contextmanager
def serving(folder: Path, files: Mapping[str, str], settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server on these files of rules, ready; it is killed at the end. `settings` are further variables of its environment."""
    (folder / "rules").mkdir()
    for name, text in files.items():
        (folder / "rules" / name).write_text(text)
    served = Served(folder, settings)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.kill()
