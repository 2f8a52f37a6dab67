"""The `whenthen` command as a process that starts in milliseconds: a fork of one that has imported the package.

A command by itself spends most of its time on imports. Where a test is about what a command does, it is started here; where it is about
the start, it is started as a user does. See tests/fork_server.py.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from tests.patience import limit

__all__ = ["Forked", "run", "start", "write_shim"]

#: isolated and without site-packages, which costs a shell twenty milliseconds
SHIM = """#!{python} -IS
import json, os, socket, sys

request = {{"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "session": False, "namespaces_of": None}}
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server = socket.socket(fileno={server})
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2, theirs.fileno()])
theirs.close()
ours.recv(64)  # the process id
sys.exit(int(ours.recv(64)))
"""
SERVER = Path(__file__).with_name("fork_server.py")


class Forked:
    """A command that runs; with the face of `subprocess.Popen`. One thread may wait while another one polls."""

    def __init__(self, arguments: Sequence[str], report: socket.socket) -> None:
        self.args = ["whenthen", *arguments]
        self._report = report
        self._report.settimeout(limit(60))
        self._taking = threading.Lock()
        self.pid = int(self._read())
        self.returncode: int | None = None

    def _read(self) -> str:
        if not (message := self._report.recv(64)):
            raise RuntimeError("the server of forks has ended")
        return message.decode()

    def poll(self) -> int | None:
        return self._take(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._take(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _take(self, timeout: float | None) -> int | None:
        if not self._taking.acquire(blocking=timeout != 0):
            return self.returncode  # whoever waits will have it
        try:
            if self.returncode is None:
                self._report.settimeout(timeout)
                self.returncode = int(self._read())
                self._report.close()
        except (BlockingIOError, TimeoutError):
            pass  # it runs
        finally:
            self._taking.release()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: IO[bytes],
    stderr: IO[bytes],
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
    python: str = sys.executable,
    start_new_session: bool = False,
    namespaces_of: int | None = None,
) -> Forked:
    """Start `whenthen ARGUMENTS` with the package that `python` has; if wanted, with the users and mounts of another process."""
    request = {
        "arguments": list(arguments),
        "env": dict(env),
        "cwd": str(cwd or Path.cwd()),
        "session": start_new_session,
        "namespaces_of": namespaces_of,
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, open(os.devnull, "rb") as nothing:
        descriptors = [(stdin or nothing).fileno(), stdout.fileno(), stderr.fileno(), theirs.fileno()]
        socket.send_fds(_server(python), [json.dumps(request).encode()], descriptors)
    return Forked(arguments, ours)


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    within_s: float,
    cwd: Path | None = None,
    stdin: str = "",
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run `whenthen ARGUMENTS` to its end; kills it and fails when it does not end within the `limit`."""
    with _temporary() as given, _temporary() as printed, _temporary() as said:
        given.write(stdin.encode())
        given.seek(0)
        process = start(arguments, env=env, stdin=given, stdout=printed, stderr=said, cwd=cwd, python=python)
        try:
            code = process.wait(limit(within_s))
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = []
        for file in (printed, said):
            file.seek(0)
            texts.append(file.read().decode().replace("\r\n", "\n"))
        return subprocess.CompletedProcess(process.args, code, *texts)


def write_shim(folder: Path, *, python: str = sys.executable) -> int:
    """Put a `whenthen` into `folder` for shells that inherit the descriptor that this gives; it starts commands as `start` does."""
    server = _server(python).fileno()
    shim = folder / "whenthen"
    shim.write_text(SHIM.format(python=python, server=server))
    shim.chmod(0o755)
    return server


def _temporary() -> IO[bytes]:
    return os.fdopen(os.memfd_create("whenthen"), "w+b")


@cache
def _server(python: str) -> socket.socket:
    """A connection to the server of forks of a Python, which all processes of a test run share; it ends with the last connection."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(6)
    folder = Path(tempfile.gettempdir()) / f"whenthen-forks-{run[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    address = folder / hashlib.sha256(python.encode()).hexdigest()[:12]
    server = None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with address.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connect(str(address))
        except (FileNotFoundError, ConnectionRefusedError):
            address.unlink(missing_ok=True)
            server = _start_server(python, address)
            connection.connect(str(address))

    def end() -> None:
        connection.close()
        if server is not None:
            server.wait(limit(60))
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return connection


def _start_server(python: str, address: Path) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WHENTHEN_", "PYTHON"))}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, open(os.devnull, "wb") as nothing:
        listening.bind(str(address))
        listening.listen(64)
        # -P: the folder of the script is not searched for modules, as that of the console script has none
        return subprocess.Popen(
            [python, "-P", str(SERVER)], stdin=listening, stdout=nothing, env=kept, start_new_session=True
        )
