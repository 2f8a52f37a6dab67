"""Logins and TLS of Kafka: a server that speaks the part of the protocol which comes before everything else."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.authority import Authority
from tests.integration.sources.reading import Reading, reading
from tests.patience import until

pytestmark = pytest.mark.anyio

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36


class Gate:
    """Lets nobody through; `shown` are the logins that were tried. Who has the password `right` is told so and then left alone."""

    def __init__(self) -> None:
        self.port = 0
        self.shown: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                kind, version, number = struct.unpack(">hhi", request[:8])
                (name,) = struct.unpack(">h", request[8:10])
                answer = self._answer(kind, version, request[10 + max(name, 0) :])
                if answer is None:
                    break
                writer.write(struct.pack(">ii", len(answer) + 4, number) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, kind: int, version: int, body: bytes) -> bytes | None:
        if kind == API_VERSIONS:
            known = [(API_VERSIONS, 0, 0), (HANDSHAKE, 0, 1), (AUTHENTICATE, 0, 0), (3, 0, 1)]
            return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *each) for each in known)
        if kind == HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _text(b"PLAIN")
        if kind == AUTHENTICATE:
            self.shown.append(body[4:])
            if body.endswith(b"\0right"):
                return struct.pack(">hhi", 0, -1, 0)
            return struct.pack(">h", 58) + _text(b"the gate does not know this login") + struct.pack(">i", 0)
        return None


def _text(data: bytes) -> bytes:
    return struct.pack(">h", len(data)) + data


@asynccontextmanager
async def gate(context: ssl.SSLContext | None = None) -> AsyncIterator[Gate]:
    made = Gate()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def rules(port: int, more: str, host: str = "127.0.0.1") -> str:
    return f"sources:\n  - {{name: orders, read: {{type: kafka, servers: '{host}:{port}', topic: orders{more}}}}}\n"


async def says(here: Reading, text: str) -> None:
    async def said() -> bool:
        runner = here.server._running._sources  # type: ignore[union-attr]
        return runner is not None and "orders" in runner.watches and text in runner.watches["orders"].detail

    await until(said, within_s=60)


async def test_login_that_is_refused_is_said_and_its_password_read_again(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    async with gate() as server:
        login = f", username: reader, password: 'file:{password}'"
        async with reading(tmp_path, rules(server.port, login)) as here:
            await says(here, "the gate does not know this login")
            assert server.shown[0] == b"reader\0reader\0wrong"
            password.write_text("right\n")

            async def shown_anew() -> bool:
                return server.shown[-1] == b"reader\0reader\0right"

            await until(shown_anew, within_s=60)


async def test_certificate_of_an_authority_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    login = ", username: reader, password: env:HOME, tls: "
    async with gate(authority.server("localhost")) as server:
        async with reading(tmp_path, rules(server.port, login + "true", "localhost")) as here:
            await says(here, "certificate verify failed")
            assert server.shown == []
        trusting = login + f"{{ca: 'file:{authority.ca}'}}"
        async with reading(tmp_path, rules(server.port, trusting, "localhost")) as here:
            await says(here, "the gate does not know this login")
        async with reading(tmp_path, rules(server.port, login + f"{{ca: 'file:{tmp_path}/rules.yaml'}}")) as here:
            await says(here, "`tls` is not usable")


async def test_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with gate() as server:
        port = server.port
    async with reading(tmp_path, rules(port, "")) as here:
        await says(here, f"Kafka can not be read: 127.0.0.1:{port}: ")
