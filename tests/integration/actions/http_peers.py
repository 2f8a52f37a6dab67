"""Servers over plain sockets for the tests of outgoing requests: they answer as a test says, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.patience import limit

CERTIFICATES = Path(__file__).parent / "certificates"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Peer:
    """A server that answers request number n (from 1, over all connections) as a test says; None closes instead."""

    answer: Callable[[int], bytes | None]
    port: int = 0
    keeps: bool = True  #: whether the connection stays open after an answer
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: int = 0  #: by the caller, or at its end
    open: list[asyncio.StreamWriter] = field(default_factory=list)
    hold: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.requests.append(head + await reader.readexactly(length))
                while not (self.hold is None or self.hold.is_set() or reader.at_eof() or reader.exception()):
                    await asyncio.sleep(0.005)
                answer = self.answer(len(self.requests))
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                if answer is None or not self.keeps:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()


@asynccontextmanager
async def listening(
    answer: bytes | Callable[[int], bytes | None], *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Peer]:
    peer = Peer(answer if callable(answer) else lambda _: answer, **options)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.open:
            writer.close()
        await eventually(lambda: peer.closed == peer.connections)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(limit(10)):
        while not holds():
            await asyncio.sleep(0.005)


async def home(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


def server_tls(
    certificate: str, *, demand_clients_of: str | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A receiver with a certificate and its key; one that demands client certificates of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / certificate)
    if demand_clients_of is not None:
        context.load_verify_locations(CERTIFICATES / demand_clients_of)
        context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.maximum_version = version
    return context


@dataclass
class DemandingPeer:
    """Serves each connection from a thread: asyncio's servers close without the alert that says why."""

    listener: socket.socket
    tls: ssl.SSLContext
    requests: int = 0

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain: socket.socket) -> None:
        secure = self.tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with secure, contextlib.suppress(OSError):
            try:
                while secure.recv(65536):
                    self.requests += 1
                    secure.sendall(OK)
            except ssl.SSLError:
                # what the client sent must be read before the end: a reset could overtake the alert
                with socket.socket(fileno=secure.detach()) as under:
                    under.shutdown(socket.SHUT_WR)
                    while under.recv(65536):
                        pass


@asynccontextmanager
async def demanding_clients(version: ssl.TLSVersion | None = None) -> AsyncIterator[DemandingPeer]:
    """A receiver that takes clients with a certificate of `authority.pem` alone."""
    tls = server_tls("signed.pem", demand_clients_of="authority.pem", version=version)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = DemandingPeer(listener, tls)
        thread = threading.Thread(target=peer.run, daemon=True)
        thread.start()
        try:
            yield peer
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@dataclass
class Proxy:
    """An HTTP proxy. It leads every host to this machine; with `status` it refuses, and with `hold` it only takes requests."""

    port: int = 0
    status: bytes | None = None
    hold: bool = False
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        far: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            method, target, _ = head.split(b" ", 2)
            if self.hold:
                await reader.read()
                return
            if self.status is not None:
                writer.write(self.status)
                await writer.drain()
                return
            place = target if method == b"CONNECT" else target.split(b"/")[2]
            port = int(place.rpartition(b":")[2])
            back, far = await asyncio.open_connection("127.0.0.1", port)
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far.write(head)
            there = asyncio.ensure_future(self._relay(reader, far))
            await self._relay(back, writer)
            there.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()
            if far is not None:
                far.close()

    @staticmethod
    async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def proxying(**options: Any) -> AsyncIterator[Proxy]:
    proxy = Proxy(**options)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for writer in proxy.open:
            writer.close()
        await eventually(lambda: proxy.closed == proxy.connections)
