"""The way to the worker: lines of JSON over the Unix socket that the environment names, or into a file where that would make the run wait.

`WHENTHEN_RUN_SOCKET` is the socket's path, `WHENTHEN_RUN_TOKEN` what proves that the process belongs to the run's attempt. Any number of
processes may connect: forks, and programs that are started with the environment. Each line is in the kernel's hands, or in the file's,
when `tell` returns, so that nothing is lost with a process that is killed; but for lines of the log, what the socket has is in a file, too, so
that nothing is lost with a worker that is killed. Meaning: docs/deployments.md, "What a run tells its worker".
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from whenthen.flows.clock import sleep, steady
from whenthen.flows.flow_errors import (
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
    NeedsServer,
    ObjectNotFound,
    ServerError,
)
from whenthen.flows.reporting.report_file import ReportFiles, SentLines, dropped_line

__all__ = ["MAX_LINE_BYTES", "PROTOCOL", "SOCKET_VARIABLE", "TOKEN_VARIABLE", "WorkerChannel", "WorkerRefusal"]

PROTOCOL: Final = 1  #: the version of what is said; the worker says which it speaks
SOCKET_VARIABLE: Final = "WHENTHEN_RUN_SOCKET"
TOKEN_VARIABLE: Final = "WHENTHEN_RUN_TOKEN"
MAX_LINE_BYTES: Final = 1 << 20  #: of one line in either direction

_AGAIN_S = 0.2  #: from a socket that was full or not there until it is tried again; twice as long each time that it is full at once
_AGAIN_MOST_S = 5.0
_BUSY_S = 0.05  #: until a worker with too many connections is asked again
_BUSY_MOST_S = 1.0
_WELCOME_S = 10.0  #: for the worker's answer to a greeting
_BUFFER_BYTES = 1 << 20  #: asked for; the system gives what it allows

_ENCODE = json.JSONEncoder(separators=(",", ":"), default=str).encode  # `json.dumps` makes an encoder for each call
#: what a refusal of the worker is raised as, by its reason; any other is a `ServerError`
_ERRORS: Final[dict[str, type[Exception]]] = {
    "not_found": ObjectNotFound,
    "invalid_input": ConfigurationError,
    "no_such_limit": ConcurrencySlotAcquisitionError,
}
_CHANNELS: weakref.WeakSet[WorkerChannel] = weakref.WeakSet()


class WorkerRefusal(ServerError):
    """The worker is there, and does not speak with this process: its protocol is another, or the token is not that of the attempt."""

    reason = "worker_refusal"


class WorkerChannel:
    """What one process says to its worker. Safe between threads and across forks."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token
        self._kinds: frozenset[str] | None = None
        self._renew()
        _CHANNELS.add(self)

    def tell(self, message: dict[str, Any], *, may_drop: bool = False) -> None:
        """Hand over one message. Does not wait, and raises only for a message that is no JSON or too large.

        Raises:
            ConfigurationError: see there.
        """
        self.tell_lines(encoded(message), may_drop=may_drop)

    def tell_lines(self, line: bytes, *, may_drop: bool = False) -> None:
        """As `tell`, of messages that are encoded already: one line or several, each of at most `MAX_LINE_BYTES`."""
        with self._lock:
            if self._try_at <= steady():
                if self._ready() and self._sent(line if may_drop else self._noted(line)):
                    return
                self._break_off()
            self._files.write(line, may_drop=may_drop)

    def ask(self, kind: str, body: dict[str, Any]) -> Any:
        """The worker's answer, however long it takes.

        Raises:
            NeedsServer: it does not answer such requests.
            ServerError: it is gone, or could not do it.
        """
        wait_s = _BUSY_S
        while (answer := self._answer(kind, body)).get("type") == "busy":
            sleep(wait_s)
            wait_s = min(2 * wait_s, _BUSY_MOST_S)
        return _value_of(kind, answer)

    def _answer(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._conversation() as (made, file, welcome):
            self._kinds = frozenset(map(str, welcome.get("kinds") or ()))
            if kind not in self._kinds:
                raise NeedsServer(f"the worker of this run (whenthen {welcome.get('version')}) does not answer {kind}")
            made.sendall(encoded({"type": "request", "kind": kind, "body": body}))
            return _object(file.readline(MAX_LINE_BYTES + 1), "its answer")

    def answers(self, kind: str) -> bool:
        """Whether the worker answers requests of a kind. False when it can not be asked."""
        if self._kinds is None:
            try:
                self.greet()
            except ServerError:
                return False
        return self._kinds is not None and kind in self._kinds

    def greet(self) -> None:
        """See that the worker is there and speaks the same protocol.

        Raises:
            WorkerRefusal: it does not. ServerError: it is not.
        """
        with self._conversation() as (_, _, welcome):
            self._kinds = frozenset(map(str, welcome.get("kinds") or ()))

    def in_fork(self) -> None:
        """What belongs to the parent is left to it."""
        with contextlib.suppress(OSError):
            self._let_go()
        self._files.forget()
        self._kept.forget()
        self._renew()

    # The line of reports

    def _renew(self) -> None:
        self._lock = threading.RLock()  # a signal handler may log in the middle of a report
        self._socket: socket.socket | None = None
        self._inode = (0, 0)
        self._try_at = 0.0
        self._again_s = _AGAIN_S
        self._connected_at = 0.0
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        folder = Path(self._path).parent / "reports"
        self._files = ReportFiles(folder, self._process)
        self._kept = SentLines(folder, self._process)

    def _ready(self) -> bool:
        """Whether there is a connection."""
        try:
            if not self._is_ours():
                self._connect()
        except OSError:
            return False
        return True

    def _noted(self, line: bytes) -> bytes:
        """The line, written to the file of what the socket gets. When that is full the worker is told behind it."""
        full = self._kept.write(line)
        return line if full is None else line + encoded({"type": "kept", "file": full})

    def _sent(self, line: bytes) -> bool:
        """Whether the whole line is with the kernel. A part of one is left aside by the worker, when the connection has ended."""
        assert self._socket is not None
        try:
            if self._files.dropped:
                told = dropped_line(self._files.dropped)
                if self._socket.send(told, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) < len(told):
                    return False
                self._files.dropped = 0
            return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)
        except OSError:
            return False

    def _connect(self) -> None:
        self._let_go()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            made.setblocking(False)
            with _short(self._path) as path:
                made.connect(path)
            hello = self._hello("reports") | {"process": self._process, "closed": self._files.close()}
            if made.send(encoded(hello), socket.MSG_NOSIGNAL) == 0:
                raise BlockingIOError
        except BaseException:
            made.close()
            raise
        found = os.fstat(made.fileno())
        self._socket, self._inode = made, (found.st_dev, found.st_ino)
        self._connected_at = steady()

    def _is_ours(self) -> bool:
        """Whether there is a socket, and its descriptor is still the socket's: user code may have closed it, and opened a file."""
        if self._socket is None:
            return False
        try:
            found = os.fstat(self._socket.fileno())
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def _break_off(self) -> None:
        """Write to a file for a while."""
        self._let_go()
        now = steady()
        # a worker that does not read at all would be given lines that only it could pass on
        at_once = now - self._connected_at < 2 * self._again_s
        self._again_s = min(2 * self._again_s, _AGAIN_MOST_S) if at_once else _AGAIN_S
        self._try_at = now + self._again_s

    def _let_go(self) -> None:
        if self._socket is not None:
            if self._is_ours():
                self._socket.close()
            else:
                self._socket.detach()  # the number is somebody else's now
            self._socket = None

    # Requests: each on a connection of its own, so that threads and forks do not wait for each other

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[tuple[socket.socket, Any, dict[str, Any]]]:
        """A connection for one request, what it is read from, and the worker's greeting. Waits while the run has too many connections.

        Raises:
            ServerError: the worker is not there, or refuses the protocol or the token.
        """
        with contextlib.ExitStack() as opened:
            wait_s = _BUSY_S
            while (found := self._welcomed(opened)) is None:
                sleep(wait_s)
                wait_s = min(2 * wait_s, _BUSY_MOST_S)
            try:
                yield found
            except OSError as error:
                raise ServerError(f"the worker of this run is gone: {error}") from None

    def _welcomed(self, opened: contextlib.ExitStack) -> tuple[socket.socket, Any, dict[str, Any]] | None:
        """A connection with the worker's greeting; None while it takes no further one."""
        with contextlib.ExitStack() as own:
            made = own.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            made.settimeout(_WELCOME_S)
            try:
                with _short(self._path) as path:
                    made.connect(path)
                file = own.enter_context(made.makefile("rb"))  # one to write would raise again when it is closed
                made.sendall(encoded(self._hello("requests")))
                line = file.readline(MAX_LINE_BYTES)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                return (
                    None  # its queue is full, or it has closed what is too much: one that has died refuses the next try
                )
            except OSError as error:
                raise ServerError(f"the worker of this run can not be asked: {error}") from None
            welcome = _object(line, "its greeting") if line else {"type": "busy"}
            if welcome.get("type") == "busy":
                return None
            if welcome.get("type") != "welcome":
                raise WorkerRefusal(f"the worker of this run refuses it: {welcome.get('message', welcome)}")
            made.settimeout(None)
            opened.push(own.pop_all())
            return made, file, welcome

    def _hello(self, what: str) -> dict[str, Any]:
        return {"type": "hello", "protocol": PROTOCOL, "token": self._token, "for": what}


def _in_fork() -> None:
    for channel in list(_CHANNELS):
        channel.in_fork()


os.register_at_fork(after_in_child=_in_fork)


def encoded(message: dict[str, Any]) -> bytes:
    """One line.

    Raises:
        ConfigurationError: it is no JSON, or too large.
    """
    try:
        line = _ENCODE(message).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{message.get('type')} can not be told to the worker: it is no JSON: {error}"
        ) from None
    if len(line) > MAX_LINE_BYTES:
        raise ConfigurationError(
            f"{message.get('type')} can not be told to the worker: {len(line):,} bytes; at most {MAX_LINE_BYTES:,}; "
            "refer to large data"
        )
    return line


def _object(line: bytes, what: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ServerError(f"the worker of this run is gone: {what} has no end")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ServerError(f"{what} is no object")
    return found


def _value_of(kind: str, answer: dict[str, Any]) -> Any:
    if answer.get("ok"):
        return answer.get("value")
    reason = str(answer.get("reason"))
    error = _ERRORS.get(reason, ServerError)(f"{kind}: {answer.get('message')}")
    if isinstance(error, ServerError):
        error.answered = reason
    raise error


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """A name of the socket that is short enough for one: a path may be longer than the 107 bytes of an address."""
    if len(path.encode()) <= 100:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
