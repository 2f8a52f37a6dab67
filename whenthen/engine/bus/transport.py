"""How messages go over a connection: the interface, its implementation by the public API of nats-py, and the choice between that
and the faster `engine.bus.protocol`.

Called by `engine.bus.request_client`. `NatsProtocol` is used where nats-py has the private names that it needs; else
`PublicProtocol`, with a warning. tests/contract/test_transport.py runs against both.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from typing import Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from whenthen.engine.bus.protocol import HEADER_LINE, NatsProtocol, Receive, missing_names, read_headers

__all__ = ["PublicProtocol", "Transport", "open_transport"]

log = logging.getLogger(__name__)


class Transport(Protocol):
    """Subscriptions with a plain function, and sending without waiting, on one connection of nats-py's."""

    nc: Client

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        """Hand every message on `subject` to `receive`, in order, also after a reconnection. End it with `unsubscribe` or
        `drain`. An exception of `receive` is logged, and the next message is handed over.

        Raises:
            nats.errors.Error, OSError: there is no connection.
        """

    async def unsubscribe(self, sub: Subscription) -> None:
        """No message of `sub` is handed over any more, and it does not come back with the connection."""

    async def drain(self, sub: Subscription) -> None:
        """End `sub` after the messages that the server has sent already were handed over.

        Raises:
            nats.errors.Error, OSError, TimeoutError: the connection was lost meanwhile.
        """

    def send(self, subject: str, data: bytes, *, reply: str = "", head: bytes = b"") -> None:
        """Send one message after those sent before; `head` is a header block. What is lost with the connection is lost.

        Raises:
            nats.errors.ConnectionClosedError: there is no connection; nothing was sent.
            nats.errors.MaxPayloadError: `head` and `data` are larger than the server accepts; it would end the connection.
        """

    async def close(self) -> None:
        """Hand what was sent to the connection."""


def open_transport(nc: Client) -> Transport:
    """The faster of the two that this version of nats-py allows."""
    missing = missing_names(nc)
    if not missing:
        return NatsProtocol(nc)
    log.warning(
        "nats-py %s lacks %s; messages go through its public API, which is slower."
        " Install a version that whenthen was tested with: pip install --upgrade whenthen chooses one",
        version("nats-py"),
        ", ".join(missing),
    )
    return PublicProtocol(nc)


class PublicProtocol:
    """The messages of one connected client by the public API of nats-py alone, slower: each message costs an object, a queue and
    a task switch. What nats-py buffers for a subscription is bounded by what the pull requests of its reader asked for."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self._out: deque[tuple[str, bytes, str, bytes]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        async def deliver(message: Msg) -> None:
            head = _header_block(message.headers)
            try:
                receive(message.subject.encode(), message.reply.encode(), head, message.data)
            except Exception:
                # as NatsProtocol does; nats-py would report it as an error of the connection
                log.exception("a message on %s was not handled", message.subject)

        return await self.nc.subscribe(subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0)

    async def unsubscribe(self, sub: Subscription) -> None:
        if not self.nc.is_closed:
            try:
                await sub.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("a subscription was not ended on the server: %r", error)

    async def drain(self, sub: Subscription) -> None:
        await sub.drain()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender])

    def send(self, subject: str, data: bytes, *, reply: str = "", head: bytes = b"") -> None:
        nc = self.nc
        if not nc.is_connected:
            raise nats.errors.ConnectionClosedError
        if len(head) + len(data) > nc.max_payload:
            raise nats.errors.MaxPayloadError
        self._out.append((subject, data, reply, head))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all(), name="NATS sender")

    async def _send_all(self) -> None:
        """Publish what is queued, one after the other, so that the order is kept."""
        try:
            while self._out:
                subject, data, reply, head = self._out.popleft()
                try:
                    await self.nc.publish(subject, data, reply=reply, headers=read_headers(head) if head else None)
                except (nats.errors.Error, OSError) as error:
                    # lost with the connection: each request is ended by `RequestClient.lost`
                    log.debug("a message on %s was not sent: %r", subject, error)
        finally:
            self._sender = None


def _header_block(headers: Mapping[str, str] | None) -> bytes:
    """The header block as the server wrote it, but for the order of its lines."""
    if not headers:
        return b""
    status, text = headers.get("Status", ""), headers.get("Description", "")
    first = f"{HEADER_LINE.decode()} {status} {text}".rstrip() if status else HEADER_LINE.decode()
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if name not in ("Status", "Description"))]
    return "\r\n".join([*lines, "", ""]).encode()
