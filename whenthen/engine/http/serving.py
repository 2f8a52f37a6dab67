"""The HTTP server under the application: a listening socket and uvicorn, whose signals are the command's business."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from whenthen.engine.http.connections import ConnectionGate, LimitedProtocol
from whenthen.schemas import SetupError

__all__ = ["HttpServer", "listen"]

_BACKLOG = 4096


class HttpServer(uvicorn.Server):
    """uvicorn without access log, dates and signal handlers. `serve(sockets=[...])` until `should_exit`."""

    def __init__(self, app: Any, *, drain_s: float, gate: ConnectionGate) -> None:
        protocol = partial(LimitedProtocol, gate)
        super().__init__(
            uvicorn.Config(
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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket and its URL, so that a port in use is an error before anything starts.

    Raises:
        SetupError: the address can not be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.set_inheritable(True)
    except OSError as error:
        raise SetupError(f"can not listen on {host}:{port}: {error.strerror}; choose another --port") from None
    bound, taken = listening.getsockname()[:2]
    return listening, f"http://{f'[{bound}]' if ':' in bound else bound}:{taken}"
