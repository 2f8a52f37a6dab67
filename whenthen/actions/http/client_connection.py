"""A connection of the HTTP client: aiohttp's, with a limit for the bytes of an answer, and not trusted longer than it deserves.

Bytes that no request asked for end a kept connection, and so does a request that was not sent whole. `http_client` makes
connections and tells each, in the context of the task, which exchange it serves.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from whenthen.actions.http.address_policy import AddressPolicy

__all__ = ["EXCHANGE", "MAX_ANSWER_BYTES", "Connection", "Exchange"]

#: of an answer in all, with its status line, headers and the framing of its body
MAX_ANSWER_BYTES = 1024 * 1024


@dataclass(slots=True)
class Exchange:
    """One sending of one request; its connection finds it in the context of the task."""

    origin: tuple[str, str, int, str]  #: scheme, host, port, proxy
    policy: AddressPolicy  #: for the addresses that are connected to
    connection: Connection | None = None
    kept: bool = False  #: the connection had served another request before


EXCHANGE: ContextVar[Exchange] = ContextVar("whenthen_http_exchange")


class Connection(ResponseHandler):
    """A connection of aiohttp that knows what has been received, and ends when it can not be trusted any more.

    `set_response_params` begins an exchange, `feed_data` is told the head of each answer that the parser found, and
    `should_close` is asked when the answer is read and the connection may be kept.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, opened: WeakSet[Connection], limit: int) -> None:
        super().__init__(loop)
        self.origin: tuple[str, str, int, str] | None = None
        self.used_at = loop.time()
        self.received = 0  #: bytes since the exchange began
        self.failure: str | None = None  #: why the connection was given up here
        self.garbage: HttpProcessingError | None = None
        self.ended = asyncio.Event()
        self.ended_by: BaseException | None = None
        self._opened = opened
        self._limit = limit
        self._answered = False

    @property
    def idle(self) -> bool:
        """Whether the last answer is complete."""
        return self._answered and (self._payload is None or self._payload.is_eof())

    def end(self, failure: str | None = None) -> None:
        """Close at once. What has been received of an answer can still be read."""
        self.failure = self.failure or failure
        self.force_close()
        if self.idle:
            self._parser = None
            self._payload = None
        if self.transport is not None:
            self.transport.abort()

    # -- of aiohttp

    def set_response_params(self, **options: Any) -> None:
        exchange = EXCHANGE.get()
        exchange.connection = self
        exchange.kept = self.origin is not None
        self.origin = exchange.origin
        self.received = 0
        self.failure = self.garbage = None
        self._answered = False
        super().set_response_params(**options)

    def feed_data(self, data: Any, size: int = 0) -> None:
        status = data[0].code
        if self._answered:
            return  # a second answer; `data_received` ends the connection
        self._answered = not 100 <= status < 200 or status == 101
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        if isinstance(exc, HttpProcessingError):
            self.garbage = exc
        super().set_exception(exc, *cause)

    @property
    def should_close(self) -> bool:
        # what is not sent yet belongs to a request that the other side did not wait for
        return super().should_close or self.transport is None or self.transport.get_write_buffer_size() > 0

    # -- of asyncio

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._opened.add(self)
        alive = [other for other in self._opened if other.is_connected()]
        if len(alive) > self._limit:
            idle = [other for other in alive if other.idle]
            if idle:
                min(idle, key=lambda other: other.used_at).end()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.ended_by = exc
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp goes on with what it had put aside
            super().data_received(data)
            return
        self.received += len(data)
        while data and not self.idle:
            # the head by itself: what follows a complete answer must not spoil it
            cut = -1 if self._answered else data.find(b"\r\n\r\n")
            part, data = (data, b"") if cut < 0 else (data[: cut + 4], data[cut + 4 :])
            super().data_received(part)
            if self.garbage is not None:
                # aiohttp tells who waits for the head, and after some faults in the body's framing nobody else
                if self._payload is not None and not self._payload.is_eof():
                    self._payload.set_exception(self.garbage)
                return
            if self.transport is None:
                return
        if self.idle:
            self.used_at = self._loop.time()
            if data or (self._parser is not None and self._parser.feed_eof() is not None):
                self.end()  # whatever it is, no request asked for it
        elif self.received > MAX_ANSWER_BYTES:
            self.end(f"the answer has no end within {MAX_ANSWER_BYTES} bytes")
