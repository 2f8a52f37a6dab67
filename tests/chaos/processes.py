"""Real processes under supervision: started, killed, started again at once, and ended for certain.

`Supervised` is one process that is brought back whenever it is gone, as a service manager does. `embedded_nats` finds the
nats-server that a `whenthen serve` has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests import forks
from tests.patience import limit, until
from tests.plain_http import plain_async_client

__all__ = ["ROOT", "Supervised", "child_of", "embedded_nats", "end", "lines_of", "ready", "whenthen"]

ROOT = Path(__file__).resolve().parents[2]
_LOOK_S = 0.05


def lines_of(file: Path) -> list[str]:
    """The lines of a text file; none when there is no file."""
    return file.read_text(errors="replace").splitlines() if file.exists() else []


def whenthen(*arguments: str | Path) -> list[str]:
    """The words of a `whenthen` command, run by this Python."""
    return [sys.executable, "-m", "whenthen.cli.main", *map(str, arguments)]


def child_of(pid: int) -> int | None:
    """The first child of a process: of a `whenthen serve` the one that does the work. None when it has none, or is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Supervised:
    """One process by name. Its output goes to `<folder>/<name>.log`. A `whenthen` command may have the namespaces of another process."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        namespaces_of: int | None = None,
    ) -> None:
        self.name = name
        self.words = list(words)
        self.log = folder / f"{name}.log"
        self.starts = 0
        self.kills = 0
        self.ended_by_itself: list[int] = []  #: exit codes that no kill of ours explains
        self._namespaces_of = namespaces_of
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | forks.Forked | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._killed: set[int] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and again whenever it is gone."""
        self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    def kill(self) -> bool:
        """SIGKILL. False when it is not there just now."""
        if not self.alive:
            return False
        self._killed.add(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        self.kills += 1
        return True

    async def replace(self, words: Sequence[str]) -> None:
        """End it as a deploy does, with SIGTERM, and have it start with other words."""
        self.words = list(words)
        process = self._process
        if process is not None and process.poll() is None:
            self._killed.add(process.pid)
            await asyncio.to_thread(end, process)

    async def halt(self, *, kill: bool = False) -> None:
        """End it, with SIGKILL at once if wanted, and leave it ended."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if kill:
            self.kill()
        if self._process is not None:
            await asyncio.to_thread(end, self._process)

    def said(self, lines: int = 20) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _spawn(self) -> None:
        command = whenthen()
        with self.log.open("ab") as log:
            if self.words[: len(command)] == command:
                arguments = self.words[len(command) :]
                self._process = forks.start(
                    arguments, cwd=ROOT, env=self._env, stdout=log, stderr=log, namespaces_of=self._namespaces_of
                )
            else:
                self._process = subprocess.Popen(self.words, cwd=ROOT, env=self._env, stdout=log, stderr=log)
        self.starts += 1

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                if self._process.pid not in self._killed:
                    self.ended_by_itself.append(code)
                self._spawn()
            await asyncio.sleep(_LOOK_S)


def end(process: subprocess.Popen[bytes] | forks.Forked, within_s: float = 20.0) -> None:
    """SIGTERM, and SIGKILL to what does not end."""
    if process.poll() is None:
        for pid in filter(None, (process.pid, child_of(process.pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(limit(within_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def embedded_nats(data_dir: Path) -> int | None:
    """The process id of the nats-server on this data directory, when it runs."""
    try:
        pid = int((data_dir / "nats" / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(data_dir / "nats").encode() in command else None


async def ready(url: str, within_s: float = 60.0) -> None:
    """Wait until a server says that it does its work."""
    async with plain_async_client() as client:

        async def answers() -> bool:
            try:
                return (await client.get(f"{url}/readyz", timeout=5)).status_code == 200
            except httpx.TransportError:
                return False

        await until(answers, within_s=within_s, what=f"{url} is ready")
