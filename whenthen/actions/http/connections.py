"""One HTTP/1.1 connection of a caller: one request at a time, its answer read up to a limit, and kept when that is safe.

The answer is parsed by httptools, the parser that the server uses as well; a general client costs two to five times
the processor time. Called by the pool of `egress`, which decides where a connection may go. Where the text says so, see
RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httptools

__all__ = ["MAX_BODY_BYTES", "Answer", "Broken", "Connection", "Unanswered", "encode_request"]

#: of an answer's body; the rest is not read, and the connection is closed
MAX_BODY_BYTES = 64 * 1024
#: of an answer in all, with its status line, headers and the framing of its body
MAX_ANSWER_BYTES = 1024 * 1024

Headers = Sequence[tuple[bytes, bytes]]


class Broken(Exception):
    """There is no connection, or it ended before the answer did, or what came is not HTTP. Says which."""


class Unanswered(Broken):
    """The connection ended before the first byte of an answer. On one that was kept, the other side had likely closed it
    already (RFC 9112, 9.5)."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Headers  #: in order, names as they came
    body: bytes  #: the first `MAX_BODY_BYTES`


def encode_request(method: str, target: bytes, headers: Headers, body: bytes) -> bytes:
    """A request as it is sent.

    Raises:
        ValueError: a line break or a zero byte, with which a value would become more than a value.
    """
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), *(b"%s: %s" % header for header in headers)]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise ValueError("a header or the URL has a line break or a zero byte in it")
    return head + body


class Connection(asyncio.Protocol):
    """A connection that is open, or was. Made by the event loop; `exchange` as long as it is `usable`."""

    def __init__(self) -> None:
        self.idle_since = 0.0  #: kept for the pool
        self._transport: Any = None
        self._usable = False
        self._parser: httptools.HttpResponseParser | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._reset()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent: as far as is known, it is open, and nothing is left of the last one."""
        return self._usable

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and give its answer. A cancellation closes the connection.

        Raises:
            Unanswered: the connection ended before an answer began; the request may have arrived.
            Broken: it ended later, or the answer is not HTTP.
        """
        if not self._usable:
            raise Unanswered("the connection is closed")
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)  # RFC 9112, 2.2
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._done = done
        self._transport.write(request)
        try:
            return await done
        finally:
            if done.cancelled():
                self.close()
            self._done = None

    def close(self) -> None:
        """Close at once."""
        self._usable = False
        self._parser = None
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        self._received = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._status = 0  # once all headers are there
        self._delimited = False  # the answer says where its body ends, without closing the connection

    # -- of asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._usable = True

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # nobody asked
            self.close()
            return
        self._received += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken(f"the answer is not HTTP/1.1: {error}"))
            self.close()
            return
        if self._received > MAX_ANSWER_BYTES and self._parser is not None:
            self._fail(Broken(f"the answer has no end within {MAX_ANSWER_BYTES} bytes"))
            self.close()

    def eof_received(self) -> None:
        if self._status and not self._delimited:
            self._answer(keep=False)  # the end of the connection is the end of the body (RFC 9112, 6.3)
        self._usable = False

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._status and not self._delimited:
            self._answer(
                keep=False
            )  # as at the end of input, which uvloop does not tell when TLS ends without a goodbye
        self._usable = False
        self._parser = None
        kind = Broken if self._received else Unanswered
        where = "in the middle of the answer" if self._received else "without an answer"
        why = getattr(error, "strerror", None) or (str(error) if error is not None else "")
        self._fail(kind(f"the connection was closed {where}" + (f": {why}" if why else "")))

    # -- of httptools

    def on_message_begin(self) -> None:
        if self._parser is None:  # bytes behind the answer: whatever they are, no request asked for them
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parser is None or self._status:
            return  # trailers are no headers (RFC 9110, 6.5.1)
        self._headers.append((name, value))
        kind = name.lower()
        if kind == b"content-length" or (kind == b"transfer-encoding" and b"chunked" in value.lower()):
            self._delimited = True

    def on_headers_complete(self) -> None:
        if self._parser is not None:
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._parser is None:
            return
        self._body += body
        if len(self._body) >= MAX_BODY_BYTES:
            self._answer(keep=False)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        if 100 <= self._status < 200 and self._status != 101:
            self._status = 0  # an interim answer; the one that counts follows (RFC 9110, 15.2)
            self._headers.clear()
            self._delimited = False
            return
        # what is not sent yet belongs to a request that the other side did not wait for
        self._answer(keep=parser.should_keep_alive() and not self._transport.get_write_buffer_size())

    def _answer(self, *, keep: bool) -> None:
        self._parser = None
        if self._done is not None and not self._done.done():
            self._done.set_result(Answer(self._status, self._headers, bytes(self._body[:MAX_BODY_BYTES])))
        if not keep:
            self.close()

    def _fail(self, error: Broken) -> None:
        self._parser = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
