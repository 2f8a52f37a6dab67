"""A server of its own in a temporary folder: started as a child process, waited for, and always stopped.

The child is what `whenthen serve` is, with its own data directory, free ports and none of the caller's settings.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx
import orjson

from whenthen.cli.token_files import token_of
from whenthen.rules.jsonschema import rules_schema
from whenthen.schemas.errors import SetupError

__all__ = ["Stage", "copy_project"]

READY_WITHIN_S = 60.0  #: on a machine that is slow or busy; one that ended is told of at once
STOPPED_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05


def copy_project(folder: Path) -> Path:
    """The demo's rules as files in `folder`."""
    target = folder / "project"
    with importlib.resources.as_file(importlib.resources.files("whenthen.cli.demo") / "project") as source:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    schema = orjson.dumps(rules_schema(), option=orjson.OPT_INDENT_2)
    (target / "rules.schema.json").write_bytes(schema)  # what the first line of each file names, for editors
    return target


class Stage:
    """Runs `whenthen serve` on `rules`. Use it as a context manager; entering it waits until the server is ready."""

    def __init__(self, folder: Path, rules: Path, *, secrets: Mapping[str, str]) -> None:
        self.folder = folder
        self.rules = rules
        self.log_path = folder / "server.log"
        self.exit_code: int | None = None  #: once it was stopped
        self._secrets = secrets
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        """The API token that the server made for itself."""
        return token_of(self.folder / "data")

    def log(self) -> str:
        """What the server wrote so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Stage:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "whenthen.cli.main", "serve", str(self.rules)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(self.folder / "data")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WHENTHEN_")}
        # a checkout that is not installed works, too
        package_root = str(Path(__file__).resolve().parents[3])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), package_root]))
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **self._secrets}
        environment["XDG_STATE_HOME"] = str(
            self.folder.resolve() / "state"
        )  # nothing stays behind in the home directory
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the server in order
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Have the server drain and end; its exit code. One that does not end in time is killed with its children."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.exit_code = process.returncode
        return self.exit_code

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN_S
        with httpx.Client(base_url=self.url, timeout=2, trust_env=False) as client:
            while time.monotonic() < until:
                if self._process.poll() is not None:
                    raise SetupError(f"the server ended with {self._process.returncode}:\n{self.log().strip()}")
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        return
                time.sleep(_LOOK_EVERY_S)
        raise SetupError(f"the server was not ready within {READY_WITHIN_S:.0f} seconds:\n{self.log().strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
