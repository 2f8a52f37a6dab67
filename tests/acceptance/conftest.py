"""The `whenthen` command as a user runs it: as a process, with its own data directory, over HTTP and its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests import forks
from tests.acceptance.wheel import install
from tests.chaos.processes import child_of
from tests.patience import SERVER_SETTINGS, eventually, limit
from tests.plain_http import plain_client
from tests.ports import free_port

PYTHON = "WHENTHEN_TEST_PYTHON"  #: of the environment that has the wheel


@pytest.fixture(scope="session", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The wheel is installed once for all workers, in a folder that ends with the session's other temporary ones."""
    base = tmp_path_factory.getbasetemp()
    os.environ[PYTHON] = str(install((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"))


def installed_python() -> str:
    """The Python of the virtual environment that has the wheel."""
    return os.environ[PYTHON]


def whenthen_command() -> list[str]:
    """The command that the wheel installed."""
    return [str(Path(installed_python()).with_name("whenthen"))]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without settings of whenthen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WHENTHEN_", "PYTHON"))}
    return {
        **kept,
        "COLUMNS": "200",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "XDG_STATE_HOME": str(Path(tempfile.gettempdir()) / f"whenthen-tests-{os.getpid()}"),
        **(extra or {}),
    }


def run_command(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as a fork of one that is ready; `whenthen_command` is for what a start is about."""
    return forks.run(
        [str(argument) for argument in arguments],
        env=environment(env),
        within_s=90,
        cwd=cwd,
        stdin=stdin or "",
        python=installed_python(),
    )


class Serving:
    """A `whenthen serve` of a test. `rules` is a folder that the test may write to."""

    def __init__(self, folder: Path, rules: Mapping[str, str], *, env: Mapping[str, str] | None = None) -> None:
        self.rules = folder / "rules"
        self.data_dir = folder / "data"
        self.log_path = folder / "server.log"
        self.screen_path = folder / "server.out"
        self.env = dict(env or {})
        self.rules.mkdir(parents=True, exist_ok=True)
        for name, text in rules.items():
            self.write(name, text)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: forks.Forked | None = None

    def write(self, name: str, text: str) -> None:
        """Put a file into the rules folder, whole at once."""
        path = self.rules / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)

    def start(self, *options: str) -> None:
        """Start it and wait until it is ready."""
        words = ["serve", str(self.rules), "--port", str(self.port), "--data-dir", str(self.data_dir), *options]
        with self.log_path.open("ab") as log, self.screen_path.open("ab") as screen:
            self._process = forks.start(
                words,
                env=environment({**SERVER_SETTINGS, **self.env}),
                cwd=self.rules.parent,
                stdout=screen,
                stderr=log,
                start_new_session=True,
                python=installed_python(),
            )
        eventually(self._ready, within_s=30)
        eventually(lambda: "Ctrl-C drains" in self.screen, within_s=30)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"serve ended with {self._process.returncode}:\n{self.log}"
        try:
            return self.open("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        """The process that does the work, a child of the one that was started."""
        assert self._process is not None
        return child_of(self._process.pid) or self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def screen(self) -> str:
        return self.screen_path.read_text(encoding="utf-8", errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, wait for it, and give its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(limit(60))
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise
        return self._process.returncode

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command of the command line against this server; gives what it prints, and fails when it fails."""
        done = run_command(*arguments, env={"WHENTHEN_URL": self.url, **self.env}, stdin=stdin)
        assert done.returncode == 0, f"whenthen {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return orjson.loads(self.run(*arguments, "--json"))

    def refuse(self, *arguments: str) -> str:
        """Run a command that is to fail with exit code 1; gives what it says."""
        done = run_command(*arguments, env={"WHENTHEN_URL": self.url, **self.env})
        assert done.returncode == 1, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    @property
    def authorization(self) -> dict[str, str]:
        """The header that `/api` demands; with the token that the server made for itself unless it was given one."""
        token = self.env.get("WHENTHEN_API_TOKEN")
        if token is None:
            path = self.data_dir / "api-token"
            token = path.read_text(encoding="utf-8").strip() if path.exists() else "none"
        return {"Authorization": f"Bearer {token}"}

    def client(self) -> httpx.Client:
        return plain_client(base_url=self.url, timeout=limit(30), headers=self.authorization)

    def open(self, path: str) -> httpx.Response:
        """The answer to somebody without a token."""
        with plain_client(base_url=self.url) as client:
            return client.get(path)

    def get(self, path: str, **query: Any) -> Any:
        with self.client() as client:
            answer = client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Makes servers that are stopped after the test."""
    made: list[Serving] = []

    def make(rules: Mapping[str, str], *options: str, env: Mapping[str, str] | None = None) -> Serving:
        server = Serving(tmp_path / f"server-{len(made)}", rules, env=env)
        made.append(server)
        server.start(*options)
        return server

    yield make
    for server in made:
        server.stop()
