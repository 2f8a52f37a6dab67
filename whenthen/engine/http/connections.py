"""One connection of the HTTP server: uvicorn's protocol over httptools, with limits of size, time and number.

Built by `serving` for each connection. What it refuses never reaches the application: a head that is too large (431) or
takes too long (408), a body that takes too long (408), what is not HTTP (400), one connection more than there may be (503). An
answer that ends a connection reaches its client though the rest of the request is unread: the connection is then closed for
writing only, and what still comes is thrown away for a while, as closing it at once would have the client see a reset
(RFC 9112, section 9.6). Meaning and reasons of the numbers: docs/reliability.md, "Limits of the HTTP server".
"""

from __future__ import annotations

import asyncio
import enum
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from whenthen.engine.http.answers import error_answer
from whenthen.engine.http.monitoring.refusal_log import KeptBack
from whenthen.engine.metrics import Metrics

__all__ = ["ConnectionGate", "ConnectionLimits", "LimitedProtocol"]

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024  #: of request line and headers together; nginx and Node take 32 and 16 KiB
HEADERS = 100  #: in a request, as in Apache
PIPELINED = 100  #: requests of one connection that wait for the answer to one before
FRAMING_SHARE = 8  #: bytes around chunks for each byte in them; chunks of one byte take five
LINGER_S = 5.0  #: for which the rest of a refused request is thrown away
LINGER_BYTES = 64_000_000  #: so much of it at most
UNREAD_AT_END_S = 2.0  #: for which an answer may wait to be read when the server stops


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and how long what may take. `connections` is bounded by the open files, too."""

    connections: int = 4096
    head_s: float = 10.0
    body_s: float = 30.0
    keep_alive_s: float = 75.0

    @property
    def most(self) -> int:
        """Connections at once: a quarter of the file descriptors is left to NATS, runs, actions and files."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.connections if soft == resource.RLIM_INFINITY else max(1, min(self.connections, soft * 3 // 4))


class ConnectionGate:
    """What the connections of a server share: their number, and how refusals are counted and logged."""

    def __init__(
        self, limits: ConnectionLimits, *, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.most = limits.most
        self.open = 0
        self._metrics = metrics
        self._kept_back = KeptBack(clock)

    def refuse(self, reason: str, text: str, *args: object) -> None:
        """Count a refusal; log it, unless one of its kind was logged in the last seconds."""
        self._metrics.connections_refused.labels(reason).inc()
        more = self._kept_back.admit(reason)
        if more is not None:
            log.warning(text + "%s", *args, more)


class _Part(enum.Enum):
    """Which part of a request is being read."""

    NONE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


class _Transport:
    """The connection's transport, whose `close` lets the last answer reach the client."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], closing: Callable[[], bool]) -> None:
        self._transport = transport
        self.write = transport.write
        self.close = close
        self.is_closing = closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        gate: ConnectionGate,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gate = gate
        self._counted = False
        self._wire: asyncio.Transport | None = None
        self._part = _Part.NONE
        self._number = 0  #: of the request, of all of the connection
        self._head_bytes = 0  #: of complete header lines
        self._unread = 0  #: bytes that came without completing the head, or without bringing a part of the body
        self._body_bytes = 0
        self._ended = False  #: whether a request was complete within the piece at hand
        self._fault = ""  #: why the request at hand is refused
        self._deaf = False  #: nothing that comes counts any more
        self._lingering = False
        self._thrown_away = 0
        self._timed: tuple[_Part, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        gate = self._gate
        self._wire = transport
        if gate.open >= gate.most:
            gate.refuse(
                "connections", "%d connections are open, as many as there may be; new ones are answered 503", gate.open
            )
            self._deaf = True
            transport.write(_answer(503, "too_many_connections", "this server has as many connections as it takes"))
            transport.close()
            return
        gate.open += 1
        self._counted = True
        super().connection_made(_Transport(transport, self._close, self._is_closing))  # type: ignore[arg-type]
        self._timed = (_Part.NONE, -1)
        self._timer = self.loop.call_later(gate.limits.head_s, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._counted:
            return
        self._counted = False
        self._gate.open -= 1
        self._stop_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self.pipeline.clear()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        if self._lingering and self._wire is not None:
            self._wire.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        # a client that does not read its answer may not keep it here for ever
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._gate.limits.body_s, self._not_read)

    def shutdown(self) -> None:
        super().shutdown()
        # a server that stops waits for who reads, not for who does not
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = self.loop.call_later(UNREAD_AT_END_S, self._not_read)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    # -- what comes

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._throw_away(len(data))
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        number, body_bytes = self._number, self._body_bytes
        self._ended = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as if no upgrade had been asked for
        except httptools.HttpParserError as error:
            if not self._fault:
                self._refuse(400, "malformed", f"the request is not HTTP/1.1: {error}"[:200])
                return
        if self._fault:
            self._refuse_fault()
            return
        part = self._part
        if part is _Part.NONE:
            if self._timer is not None:
                self._stop_timer()
            return
        if self._ended or number != self._number:
            self._unread = 0
        elif part is _Part.HEAD:
            self._unread += len(data)
        else:
            self._unread += len(data) - (self._body_bytes - body_bytes)
        if part is _Part.HEAD and self._unread > HEAD_BYTES:
            self._fault = "head"
            self._refuse_fault()
            return
        if part is _Part.BODY and self._unread > HEAD_BYTES + FRAMING_SHARE * self._body_bytes:
            self._refuse(400, "malformed", "the parts of the body bring next to nothing of it")
            return
        if self._timed != (part, self._number):
            self._stop_timer()
            limits = self._gate.limits
            self._timed = (part, self._number)
            self._timer = self.loop.call_later(limits.head_s if part is _Part.HEAD else limits.body_s, self._too_late)

    def on_message_begin(self) -> None:
        self._part = _Part.HEAD
        self._number += 1
        self._head_bytes = 0
        self._body_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > HEAD_BYTES:
            self._fault = "head"
        else:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is not _Part.HEAD:
            return  # after a body in chunks: nobody reads them
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES or len(self.headers) >= HEADERS:
            self._fault = "head"
            return
        # what uvicorn's does; called for each header of every request
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._part = _Part.BODY
        self._unread = 0
        if len(self.pipeline) >= PIPELINED:
            self._fault = "pipelined"
        if not (self._fault or self._deaf):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not (self._fault or self._deaf):
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = _Part.NONE
        self._ended = True
        if not (self._fault or self._deaf):
            super().on_message_complete()

    # -- refusals

    def _refuse_fault(self) -> None:
        if self._fault == "pipelined":
            self._gate.refuse("pipelined", "%s sends requests without waiting for answers; closed", self._from())
            self._deaf = True
            if self._wire is not None:
                self._wire.abort()
            return
        self._refuse(
            431,
            "head_too_large",
            f"the request line and the headers take more than {HEAD_BYTES} bytes, or are more than {HEADERS} headers",
        )

    def _refuse(self, status: int, reason: str, message: str) -> None:
        """Answer the request at hand and end the connection; answers to requests before it are still sent."""
        self._gate.refuse(reason, "a request from %s is refused: %s", self._from(), message)
        self._deaf = True
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._part is not _Part.BODY or self.pipeline:
                cycle.keep_alive = False  # and the connection ends with that answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self._linger()
                return
        elif cycle is not None and self._part is _Part.BODY and not self._fault:
            self._linger()  # it has its answer
            return
        assert self._wire is not None
        self._wire.write(_answer(status, reason, message))
        self._linger()

    def _too_late(self) -> None:
        self._timer = None
        limits = self._gate.limits
        if self._part is _Part.NONE:
            assert self._wire is not None
            self._wire.close()
        elif self._part is _Part.HEAD:
            self._refuse(408, "head_timeout", f"the head was not complete within {limits.head_s:g} seconds")
        else:
            self._refuse(408, "body_timeout", f"the body was not complete within {limits.body_s:g} seconds")

    def _not_read(self) -> None:
        self._gate.refuse("not_read", "%s does not read its answer; closed", self._from())
        if self._wire is not None:
            self._wire.abort()

    def _stop_timer(self) -> None:
        self._timed = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _from(self) -> str:
        return f"{self.client[0]}:{self.client[1]}" if self.client else "an unknown address"

    # -- the end

    def _is_closing(self) -> bool:
        return self._lingering or self._wire is None or self._wire.is_closing()

    def _close(self) -> None:
        assert self._wire is not None
        if self._lingering or self._wire.is_closing():
            return
        if self._part is _Part.NONE and not self.flow.read_paused and not self.pipeline:
            self._deaf = True
            self._wire.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close for writing, and take what still comes without looking at it."""
        wire = self._wire
        assert wire is not None
        self._deaf = self._lingering = True
        self._stop_timer()
        self.pipeline.clear()
        if wire.is_closing():
            return
        if wire.can_write_eof():
            wire.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_S, wire.close)

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > LINGER_BYTES and self._wire is not None:
            self._wire.close()


def _answer(status: int, reason: str, message: str) -> bytes:
    body = error_answer(status, reason, message).body
    phrase = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
