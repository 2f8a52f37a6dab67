"""The HTTP server under the application: a listening socket and uvicorn, whose signals are the command's business."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import uvicorn

from whenthen.engine.http.connections import ConnectionGate, LimitedProtocol
from whenthen.schemas.errors import SetupError

__all__ = ["HttpServer", "Listening", "ServerTls", "listen"]

log = logging.getLogger(__name__)

_BACKLOG = 4096
_CERTIFICATE_EVERY_S = 30.0  #: so often at most the files of a certificate are looked at


class _Config(uvicorn.Config):
    """uvicorn's, with a TLS context that is made already."""

    context: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.ssl = self.context


class HttpServer(uvicorn.Server):
    """uvicorn without access log, dates and signal handlers. `serve(sockets=[...])` until `should_exit`."""

    def __init__(self, app: Any, *, drain_s: float, gate: ConnectionGate, tls: ServerTls | None = None) -> None:
        self.config: _Config
        protocol = partial(LimitedProtocol, gate)
        super().__init__(
            _Config(
                app,
                http=cast(type[asyncio.Protocol], protocol),
                ws="none",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(drain_s) or 1,
                timeout_keep_alive=cast(int, gate.limits.keep_alive_s),
                backlog=_BACKLOG,
            )
        )
        if tls is not None:
            self.config.context = tls.context

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ServerTls:
    """The server's side of TLS, whose certificate is read again when its files have changed.

    Raises:
        SetupError: they can not be read, or do not fit.
    """

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._files = (certificate, key or certificate)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._looked = time.monotonic()
        try:
            self._seen = self._stamps()
            self._load()
        except OSError as error:  # those of TLS are of this kind, too
            raise SetupError(f"tls_certificate: {_said(error, certificate)}") from None
        self.context.sni_callback = self._look

    def _look(self, *_: object) -> None:
        """Called at each handshake; what is loaded here is for the next one."""
        now = time.monotonic()
        if now - self._looked < _CERTIFICATE_EVERY_S:
            return
        self._looked = now
        try:
            stamps = self._stamps()
            if stamps != self._seen:
                self._load()
                self._seen = stamps
                log.info("the changed certificate %s is in use", self._files[0])
        except OSError as error:
            log.warning("the certificate stays the one that was read before: %s", _said(error, self._files[0]))

    def _load(self) -> None:
        # an encrypted key is refused; without a password here OpenSSL would ask the terminal for one
        self.context.load_cert_chain(*self._files, password=b"")

    def _stamps(self) -> list[tuple[int, int]]:
        return [(found.st_mtime_ns, found.st_ino) for found in (path.stat() for path in self._files)]


def _said(error: OSError, path: Path) -> str:
    return f"{error.filename or path}: {error.strerror or error}"


class Listening(NamedTuple):
    """A socket that is bound, and its URL."""

    sock: socket.socket
    address: str

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port


def listen(host: str, port: int, *, secure: bool = False, remedy: str = "choose another --port") -> Listening:
    """Bind the address, so that a port in use is an error before anything starts or is stored.

    Raises:
        SetupError: the address can not be had; its message ends with the `remedy`.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.set_inheritable(True)
    except OSError as error:
        raise SetupError(f"can not listen on {host}:{port}: {error.strerror}; {remedy}") from None
    bound, taken = listening.getsockname()[:2]
    scheme = "https" if secure else "http"
    return Listening(listening, f"{scheme}://{f'[{bound}]' if ':' in bound else bound}:{taken}")
