"""A script of a test that serves its flows: a Python of its own, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.flows.programs import ROOT
from tests.integration.served import environment
from tests.patience import SERVER_SETTINGS, eventually, limit
from tests.plain_http import plain_client
from tests.ports import free_port

__all__ = ["ServedProgram", "serving_program"]


class ServedProgram:
    """`python FILE` in its own session, with its output in a file. Without `url` it starts a server of its own."""

    def __init__(self, file: Path, *, cwd: Path, url: str = "", **settings: str) -> None:
        self.file = file
        self._output = cwd / f"{file.stem}-{free_port()}.out"
        port = free_port()
        self.url = url or f"http://127.0.0.1:{port}"
        told = {"WHENTHEN_URL": url} if url else {"WHENTHEN_PORT": str(port)}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(file)],
                cwd=cwd,
                env={
                    **environment(**{**SERVER_SETTINGS, **told, "WHENTHEN_DRAIN_GRACE": "20s", **settings}),
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                    "XDG_STATE_HOME": str(cwd / "state"),
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._state = cwd / "state"

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_until_serving(self) -> None:
        def serving() -> bool:
            assert self.process.poll() is None, self.output
            return "Ctrl-C lets runs" in self.output

        eventually(serving, within_s=60)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(limit(60))

    def interrupt(self) -> int:
        """Its exit code after Ctrl-C."""
        self.send(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def get(self, path: str) -> Any:
        with self.http() as http:
            return http.get(path).raise_for_status().json()

    def post(self, path: str, json: Any = None) -> Any:
        with self.http() as http:
            return http.post(path, json=json).raise_for_status().json()

    def http(self) -> Any:
        token = os.environ.get("WHENTHEN_API_TOKEN") or self._token()
        return plain_client(base_url=self.url, headers={"Authorization": f"Bearer {token}"})

    def _token(self) -> str:
        """As a command of the user finds it."""
        from whenthen.noted_tokens import find_token

        found = find_token(self.url, {"XDG_STATE_HOME": str(self._state)})
        assert found is not None
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"/api/runs?deployment={deployment}&limit=1000")
        return found

    def completed(self, deployment: str) -> dict[str, Any]:
        """The newest run of a deployment, once it has completed."""
        run = eventually(lambda: [run for run in self.runs(deployment) if run["state"] in ENDED], within_s=30)[0]
        detail: dict[str, Any] = self.get(f"/api/runs/{run['id']}")
        assert detail["state"] == "Completed", (detail, self.output)
        return detail


ENDED = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled")


@contextmanager
def serving_program(file: Path, *, cwd: Path, url: str = "", **settings: str) -> Iterator[ServedProgram]:
    """It serves in the block, and is killed behind it if it still runs."""
    program = ServedProgram(file, cwd=cwd, url=url, **settings)
    try:
        program.wait_until_serving()
        yield program
    finally:
        program.kill()
