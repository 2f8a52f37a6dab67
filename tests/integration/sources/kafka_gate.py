"""A gate before Kafka's brokers: it speaks the part of the protocol that comes before everything else, logins, and passes on the rest.

The mock cluster knows no logins. SCRAM is that of RFC 5802, held to the exchange that RFC 7677 prints.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whenthen.cancellation import end_task

__all__ = ["Gate", "LoginRefused", "Scram", "gate"]

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
REFUSED = 58  #: SASL_AUTHENTICATION_FAILED
ITERATIONS = 4096
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class LoginRefused(Exception):
    """The login proves nothing."""


class Scram:
    """The server's side of one login."""

    def __init__(self, mechanism: str, password: str, *, salt: bytes = b"salt", nonce: str = "") -> None:
        self._hash = HASHES[mechanism]
        self._password = password.encode()
        self._salt = salt
        self._nonce = nonce or os.urandom(12).hex()
        self._said = ""  #: what is signed

    def answer(self, message: str) -> str:
        """Raises LoginRefused."""
        return self._last(message) if self._said else self._first(message)

    def _first(self, message: str) -> str:
        bare = message.removeprefix("n,,")
        self._nonce = bare.partition(",r=")[2] + self._nonce
        answer = f"r={self._nonce},s={base64.b64encode(self._salt).decode()},i={ITERATIONS}"
        self._said = f"{bare},{answer}"
        return answer

    def _last(self, message: str) -> str:
        head, _, proof = message.partition(",p=")
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, self._salt, ITERATIONS)
        said = f"{self._said},{head}".encode()
        key = self._sign(salted, b"Client Key")
        signature = self._sign(hashlib.new(self._hash, key).digest(), said)
        wanted = bytes(one ^ other for one, other in zip(key, signature, strict=True))
        if head != f"c=biws,r={self._nonce}" or base64.b64decode(proof) != wanted:
            raise LoginRefused
        return "v=" + base64.b64encode(self._sign(self._sign(salted, b"Server Key"), said)).decode()

    def _sign(self, key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, self._hash)


class Gate:
    """Lets those through to `behind` who know the password; without one behind it they are told so and left alone.

    `shown` are the first messages of the logins that were tried. With `in_words` a wrong password is said in SCRAM's words and not Kafka's.
    """

    def __init__(self, mechanism: str, password: str, behind: str, *, in_words: bool = False) -> None:
        self.port = 0
        self.password = password
        self.shown: list[bytes] = []
        self._mechanism = mechanism
        self._behind = behind
        self._in_words = in_words
        self._open: set[asyncio.StreamWriter] = set()

    def turn_out(self) -> None:
        """End all connections."""
        for writer in self._open:
            writer.transport.abort()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if await self._admit(reader, writer):
                await self._pass_on(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        scram = Scram(self._mechanism, self.password) if self._mechanism in HASHES else None
        steps = 0
        while True:
            request = await _frame(reader)
            kind, _version, number = struct.unpack(">hhi", request[:8])
            (name,) = struct.unpack(">h", request[8:10])
            body, done = request[10 + max(name, 0) :], False
            if kind == API_VERSIONS:
                answer = await self._versions(request)
            elif kind == HANDSHAKE:
                answer = struct.pack(">hi", 0, 1) + _text(self._mechanism.encode())
            elif kind == AUTHENTICATE:
                steps += 1
                if steps == 1:
                    self.shown.append(body[4:])
                answer, done = self._authenticate(scram, body[4:], last=scram is None or steps == 2)
            else:
                return False
            writer.write(struct.pack(">ii", len(answer) + 4, number) + answer)
            if done:
                return True

    def _authenticate(self, scram: Scram | None, message: bytes, *, last: bool) -> tuple[bytes, bool]:
        """The answer, and whether that is all."""
        try:
            if scram is not None:
                words = scram.answer(message.decode())
            elif message.endswith(f"\0{self.password}".encode()):
                words = ""
            else:
                raise LoginRefused
        except LoginRefused:
            if self._in_words:
                words, last = "e=invalid-proof", False
            else:
                return struct.pack(">h", REFUSED) + _text(b"the gate does not know this login") + struct.pack(
                    ">i", 0
                ), False
        data = words.encode()
        return struct.pack(">hhi", 0, -1, len(data)) + data, last

    async def _versions(self, request: bytes) -> bytes:
        """What the broker knows, and logins."""
        known = [(API_VERSIONS, 0, 0), (3, 0, 1)]
        if self._behind:
            reader, writer = await self._connect()
            writer.write(_framed(request))
            answer = (await _frame(reader))[10:]
            writer.close()
            known = [struct.unpack(">hhh", answer[at : at + 6]) for at in range(0, len(answer), 6)]
        known += [(HANDSHAKE, 0, 1), (AUTHENTICATE, 0, 0)]
        return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *each) for each in known)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._behind:
            await reader.read()
            return
        answers, requests = await self._connect()
        host, _, port = self._behind.rpartition(":")
        behind, here = (host.encode() + struct.pack(">i", number) for number in (int(port), self.port))

        async def ask() -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    requests.write(_framed(await _frame(reader)))

        async def answer() -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:  # that the broker is at this gate
                    writer.write(_framed((await _frame(answers)).replace(behind, here)))

        tasks = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.close()
            await end_task(*tasks)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._behind.rpartition(":")
        return await asyncio.open_connection(host, int(port))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _framed(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _text(data: bytes) -> bytes:
    return struct.pack(">h", len(data)) + data


@asynccontextmanager
async def gate(
    context: ssl.SSLContext | None = None,
    *,
    mechanism: str = "PLAIN",
    password: str = "right",
    behind: str = "",
    in_words: bool = False,
) -> AsyncIterator[Gate]:
    made = Gate(mechanism, password, behind, in_words=in_words)
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.turn_out()
