"""The NATS protocol at the cost of its bytes: messages are handed to a function as they are read, and sent in one write for each
turn of the event loop.

Used by `engine.bus.request_client` and every reader of a stream, through `engine.bus.transport`. nats-py keeps connecting,
authentication, TLS, pings, reconnecting and subscribing again. Its handling of a message (a regular expression for each protocol
verb, headers decoded, an object, a queue, a task for each subscription) costs several times what the engine does with the message.
`NatsProtocol` therefore replaces nats-py's parser: it parses messages itself and gives every other protocol line to the original
parser. The private names of nats-py that this takes are listed by `missing_names`; where one is missing,
`engine.bus.transport` uses its public API instead. tests/contract/test_transport.py runs against both.
Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

__all__ = [
    "ACK",
    "Delivery",
    "Meaning",
    "NatsProtocol",
    "Position",
    "Receive",
    "ServerStatus",
    "encode_headers",
    "missing_names",
    "read_headers",
    "read_position",
    "read_status",
]

log = logging.getLogger(__name__)

#: gets subject, reply subject, header block and data of one message; the second and third may be empty
Receive = Callable[[bytes, bytes, bytes, bytes], None]

PARSER = "_ps"  #: of nats-py's client: gets each chunk that was read
NEEDED = (PARSER, "_process_msg", "_pending", "_pending_data_size", "_transport", "_reading_task")  #: of its client
NEEDED_OF_PARSER = ("buf", "parse", "reset")
HEADER_LINE = b"NATS/1.0"
ACK = b"$JS.ACK."  #: starts the reply subject of every message from a consumer
#: a protocol line; the longest is what a server says about itself and its cluster
MAX_LINE_BYTES = 1 << 20
_M, _H = b"MH"


class Delivery:
    """One message as it came. Texts and headers are decoded when somebody asks."""

    __slots__ = ("_head", "_headers", "_reply", "_subject", "data")

    def __init__(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        self.data = data
        self._subject = subject
        self._reply = reply
        self._head = head
        self._headers: dict[str, str] | None = None

    @property
    def subject(self) -> str:
        return self._subject.decode()

    @property
    def reply(self) -> str:
        """The subject of an answer; empty when none is expected."""
        return self._reply.decode()

    @property
    def headers(self) -> dict[str, str]:
        """By name, as they were sent; a status of the server's is `Status`, and what it says to it `Description`."""
        if self._headers is None:
            self._headers = read_headers(self._head)
        return self._headers

    @property
    def is_plain(self) -> bool:
        """Whether it surely has no status of the server's, as nearly every message. One that has none may say no."""
        return self._head.startswith(b"NATS/1.0\r\n")

    def header(self, name: bytes) -> str:
        """One header, for who reads a million messages: all of them take three times as long. Raises KeyError."""
        head, line = self._head, b"\r\n" + name + b":"
        start = head.rfind(line)  # of several the last, as in `headers`
        if start < 0:
            raise KeyError(name.decode())
        start += len(line)
        return head[start : head.find(b"\r\n", start)].strip().decode("utf-8", "replace")


def read_headers(head: bytes) -> dict[str, str]:
    """The headers in a header block; of several with one name the last. What is no header is left out."""
    if not head:
        return {}
    first, _, rest = head.partition(b"\r\n")
    headers = {}
    status, _, description = first[len(HEADER_LINE) :].strip().partition(b" ")
    if status:
        headers["Status"] = status.decode("latin-1")
        if description:
            headers["Description"] = description.decode("utf-8", "replace")
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("latin-1")] = value.strip().decode("utf-8", "replace")
    return headers


def encode_headers(headers: dict[str, str]) -> bytes:
    """The header block. Values must be one line each (`subjects.header_id`)."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


class Position(NamedTuple):
    """Where a consumer's message stands."""

    delivered: int  #: how many times, this one included
    seq: int  #: in the stream
    consumer_seq: int  #: among what the consumer sent
    time_us: int  #: when the server stored it
    pending: int  #: how many more the consumer had when it sent this one


def read_position(reply: bytes) -> Position:
    """What the reply subject of a consumer's message says:
    `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending>`, or with domain and account before
    the stream and a random token at the end."""
    words = reply.split(b".")
    delivered, seq, consumer_seq, time_ns, pending = words[4:9] if len(words) == 9 else words[6:11]
    return Position(int(delivered), int(seq), int(consumer_seq), int(time_ns) // 1000, int(pending))


class Meaning(Enum):
    """What follows from a status."""

    ALIVE = "alive"  #: the consumer is there
    ENDED = "ended"  #: the pull request is over, and how much of it is left is known
    GONE = "gone"  #: nothing serves the consumer
    UNCLEAR = "unclear"  #: the consumer information has to tell


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A message of the server's own to a pull request."""

    code: int
    text: str  #: for people
    left: int | None  #: messages of the pull request that will not come
    last_consumer_seq: int  #: of a heartbeat: the last message that the consumer sent; 0 when it does not say

    @property
    def meaning(self) -> Meaning:
        if self.code == 100:
            return Meaning.ALIVE
        if self.code in (404, 408, 409) and self.left is not None:
            return Meaning.ENDED
        return Meaning.GONE if self.code == 503 else Meaning.UNCLEAR


def read_status(head: bytes) -> ServerStatus | None:
    """The status in a header block; None when there is none, as in a message that somebody published."""
    headers = read_headers(head)
    code = _number(headers.get("Status"))
    if code is None:
        return None
    left = _number(headers.get("Nats-Pending-Messages"))
    last = _number(headers.get("Nats-Last-Consumer")) or 0
    return ServerStatus(code, headers.get("Description", ""), left, last)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def missing_names(nc: Client) -> list[str]:
    """Which private names of nats-py `NatsProtocol` needs and this version does not have; none when it can be used."""
    missing = [f"Client.{name}" for name in NEEDED if not hasattr(nc, name)]
    parser = getattr(nc, PARSER, None)
    if parser is not None:
        missing += [f"Parser.{name}" for name in NEEDED_OF_PARSER if not hasattr(parser, name)]
    try:
        inspect.signature(getattr(nc, "_process_msg", lambda *_: None)).bind(1, b"", b"", b"", None)
    except TypeError:
        missing.append("Client._process_msg with five parameters")
    if not hasattr(Subscription(nc), "_id"):
        missing.append("Subscription._id")
    return missing


class NatsProtocol:
    """The messages of one connected client (`engine.bus.transport.Transport`). Not for two at once on one client."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self._receivers: dict[bytes, Receive] = {}
        self._out: list[bytes] = []
        self._parser = _Parser(nc, self._receivers)
        setattr(nc, PARSER, self._parser)

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        sub = await self.nc.subscribe(subject, cb=_ignore, pending_msgs_limit=0, pending_bytes_limit=0)
        # nothing has come yet: whoever subscribes asks for messages afterwards
        self._receivers[str(sub._id).encode()] = receive
        return sub

    async def unsubscribe(self, sub: Subscription) -> None:
        self._receivers.pop(str(sub._id).encode(), None)
        if not self.nc.is_closed:
            try:
                await sub.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("a subscription was not ended on the server: %r", error)

    async def drain(self, sub: Subscription) -> None:
        try:
            await sub.unsubscribe()
            self._flush()  # nats-py's ping would overtake it
            await self.nc.flush()  # answered after all messages that were sent before
        finally:
            self._receivers.pop(str(sub._id).encode(), None)

    async def close(self) -> None:
        self._flush()

    def send(self, subject: str, data: bytes, *, reply: str = "", head: bytes = b"") -> None:
        nc = self.nc
        if not nc.is_connected:
            raise nats.errors.ConnectionClosedError
        if len(head) + len(data) > nc.max_payload:
            raise nats.errors.MaxPayloadError
        to = f"{subject} {reply}" if reply else subject
        if head:
            line = f"HPUB {to} {len(head)} {len(head) + len(data)}\r\n"
        else:
            line = f"PUB {to} {len(data)}\r\n"
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += (line.encode(), head, data, b"\r\n")

    def _flush(self) -> None:
        out, self._out = self._out, []
        nc: Any = self.nc
        if not nc.is_connected or nc._transport is None:
            return  # lost with the connection: each request is ended by `RequestClient.lost`
        if nc._pending:  # such as the subscription that the answer will come through
            out[:0] = nc._pending
            nc._pending = []
            nc._pending_data_size = 0
        if not out:
            return
        try:
            nc._transport.write(b"".join(out))
        except RuntimeError:  # uvloop's transport is closed already, and nats-py has not noticed
            log.debug("%d messages were not sent: the connection is lost", len(out) // 4)


async def _ignore(_: Msg) -> None:
    """The callback that nats-py asks for; messages of the subscription never reach it."""


class _Parser:
    """Reads the protocol in nats-py's place: `parse` and `reset` are what its client calls."""

    def __init__(self, nc: Client, receivers: dict[bytes, Receive]) -> None:
        self._nc: Any = nc
        self._other: Any = getattr(nc, PARSER)
        self._receivers = receivers
        self._parts: list[bytes] = [bytes(self._other.buf)]  #: read, and not complete
        self._have = len(self._parts[0])
        self._need = 0  #: bytes without which nothing more can be made out
        self._other.reset()
        self._reading = self._nc._reading_task  #: what reads the connection that the parts came from

    def reset(self) -> None:
        """Forget what is incomplete; the connection is a new one."""
        self._parts.clear()
        self._have = self._need = 0
        self._other.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read.

        Raises:
            nats.errors.ProtocolError: it is not the NATS protocol.
        """
        nc = self._nc
        if nc.is_reconnecting or nc.is_closed:
            return  # of the connection that was lost
        if self._reading is not nc._reading_task:
            self._reading = nc._reading_task
            self.reset()
        if self._have:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
        position = 0
        size = len(data)
        receivers = self._receivers
        while position < size:
            end = data.find(b"\r\n", position)
            if end < 0:
                if size - position > MAX_LINE_BYTES:
                    raise nats.errors.ProtocolError
                self._keep(data[position:], 0)
                return
            verb = data[position]
            if verb != _M and verb != _H:
                await self._other.parse(data[position : end + 2])
                position = end + 2
                continue
            try:
                # MSG <subject> <sid> [reply] <bytes>, HMSG <subject> <sid> [reply] <header bytes> <bytes>
                words = data[position:end].split()
                size_of_head = int(words.pop(-2)) if verb == _H else 0
                if len(words) == 4:
                    _, subject, sid, total = words
                    reply = b""
                else:
                    _, subject, sid, reply, total = words
                start = end + 2
                stop = start + int(total)
                body = start + size_of_head
            except (ValueError, IndexError):
                raise nats.errors.ProtocolError from None
            if stop + 2 > size:
                self._keep(data[position:], stop + 2 - position)
                return
            position = stop + 2
            receive = receivers.get(sid)
            if receive is None:
                head = data[start:body] or None
                await nc._process_msg(int(sid), subject, reply, data[body:stop], head)
                continue
            try:
                receive(subject, reply, data[start:body], data[body:stop])
            except Exception:
                # it would end the reading of the connection
                log.exception("a message on %s was not handled", subject.decode("utf-8", "replace"))

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts = [rest]
        self._have = len(rest)
        self._need = need
