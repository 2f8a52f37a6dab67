"""The reader of the NATS protocol: the same messages however the bytes are cut, and what it leaves to nats-py."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from whenthen.engine.bus.protocol import (
    PARSER,
    Delivery,
    NatsProtocol,
    Position,
    encode_headers,
    missing_names,
    read_headers,
    read_position,
)

WORDS = st.text("abcXYZ019_-", min_size=1, max_size=12).map(str.encode)
NAMES = st.text("ABCabc-", min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n", exclude_categories=("Z", "C")), max_size=30)
#: subject, reply, headers, data
MESSAGES = st.tuples(WORDS, st.just(b"") | WORDS, st.dictionaries(NAMES, VALUES, max_size=3), st.binary(max_size=300))


class Client_:
    """What the wire needs of a client, remembering what is handed to it."""

    def __init__(self) -> None:
        self.other = Other()
        self._ps = self.other
        self._pending: list[bytes] = []
        self._pending_data_size = 0
        self._transport = None
        self._reading_task = None
        self.is_reconnecting = self.is_closed = False
        self.passed_on: list[tuple[Any, ...]] = []

    async def _process_msg(self, *message: Any) -> None:
        self.passed_on.append(message)


class Other:
    """The parser that was there before."""

    buf = bytearray()

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def parse(self, data: bytes) -> None:
        self.lines.append(data)

    def reset(self) -> None:
        pass


def wired() -> tuple[Client_, NatsProtocol, Any]:
    client: Any = Client_()
    protocol = NatsProtocol(client)
    return client, protocol, client._ps


def frame(sid: int, subject: bytes, reply: bytes, headers: dict[str, str], data: bytes) -> bytes:
    to = b"%s %d %s" % (subject, sid, reply + b" " if reply else b"")
    if headers:
        head = encode_headers(headers)
        return b"HMSG %s%d %d\r\n%s%s\r\n" % (to, len(head), len(head) + len(data), head, data)
    return b"MSG %s%d\r\n%s\r\n" % (to, len(data), data)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(0, 10_000), max_size=30))
def test_messages_are_the_same_however_the_bytes_are_cut(messages: list[Any], places: list[int]) -> None:
    _, wire, parser = wired()
    came: list[tuple[bytes, bytes, dict[str, str], bytes]] = []
    wire._receivers[b"7"] = lambda subject, reply, head, data: came.append((subject, reply, read_headers(head), data))

    async def feed() -> None:
        for chunk in cut(b"".join(frame(7, *message) for message in messages), places):
            await parser.parse(chunk)

    asyncio.run(feed())
    assert came == messages


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_no_message_and_subscriptions_of_others_are_left_to_nats_py(places: list[int]) -> None:
    client, _, parser = wired()
    sent = (
        b"PING\r\n" + frame(3, b"a.b", b"r", {"K": "v"}, b"x\r\ny") + b"PONG\r\n+OK\r\n" + frame(4, b"c", b"", {}, b"")
    )

    async def feed() -> None:
        for chunk in cut(sent, places):
            await parser.parse(chunk)

    asyncio.run(feed())
    assert client.other.lines == [b"PING\r\n", b"PONG\r\n", b"+OK\r\n"]
    assert client.passed_on == [
        (3, b"a.b", b"r", b"x\r\ny", encode_headers({"K": "v"})),
        (4, b"c", b"", b"", None),
    ]


def test_a_receiver_that_fails_stops_neither_the_messages_nor_the_connection() -> None:
    _, wire, parser = wired()
    came: list[bytes] = []

    def receive(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        came.append(data)
        if data == b"bad":
            raise ValueError(data)

    wire._receivers[b"1"] = receive
    asyncio.run(parser.parse(frame(1, b"s", b"", {}, b"bad") + frame(1, b"s", b"", {}, b"good")))
    assert came == [b"bad", b"good"]


@pytest.mark.parametrize("line", [b"MSG a 1 x\r\n", b"MSG 5\r\n", b"HMSG a 1 5\r\n....", b"M" * (1 << 20) + b"MM"])
def test_what_is_not_the_protocol_is_an_error(line: bytes) -> None:
    _, _, parser = wired()
    with pytest.raises(nats.errors.ProtocolError):
        asyncio.run(parser.parse(line))


def test_what_a_lost_connection_left_is_not_read_on_with_the_next_one() -> None:
    client, wire, parser = wired()
    came: list[bytes] = []
    wire._receivers[b"1"] = lambda subject, reply, head, data: came.append(data)
    half = frame(1, b"s", b"", {}, b"half")[:-4]
    asyncio.run(parser.parse(half))
    client._reading_task = "of the next connection"
    asyncio.run(parser.parse(frame(1, b"s", b"", {}, b"whole")))
    client.is_reconnecting = True
    asyncio.run(parser.parse(half))
    client.is_reconnecting = False
    asyncio.run(parser.parse(frame(1, b"s", b"", {}, b"whole too")))
    assert came == [b"whole", b"whole too"]


def test_what_was_half_read_is_forgotten_with_the_connection() -> None:
    _, wire, parser = wired()
    came: list[bytes] = []
    wire._receivers[b"1"] = lambda subject, reply, head, data: came.append(data)
    asyncio.run(parser.parse(frame(1, b"s", b"", {}, b"half")[:-4]))
    parser.reset()
    asyncio.run(parser.parse(frame(1, b"s", b"", {}, b"whole")))
    assert came == [b"whole"]


@pytest.mark.parametrize(
    ("head", "headers"),
    [
        (b"", {}),
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 3\r\n\r\n",
         {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "3"}),
        (b"NATS/1.0\r\nA:b\r\nA: c: d \r\nno header\r\n\r\n", {"A": "c: d"}),
    ],
)  # fmt: skip
def test_headers_are_read_as_the_server_writes_them(head: bytes, headers: dict[str, str]) -> None:
    assert read_headers(head) == headers
    assert Delivery(b"s", b"", head, b"").headers == headers


@pytest.mark.parametrize(
    "reply",
    [b"$JS.ACK.EVENTS.c.2.70.5.1700000000123456789.9", b"$JS.ACK.hub.acc.EVENTS.c.2.70.5.1700000000123456789.9.x7"],
)
def test_a_consumers_message_says_where_it_stands(reply: bytes) -> None:
    assert read_position(reply) == Position(2, 70, 5, 1_700_000_000_123_456, 9)


def test_what_is_missing_in_a_nats_py_that_is_built_differently_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    assert missing_names(client) == []
    NatsProtocol(client)
    assert getattr(client, PARSER).reset() is None
    assert "Client._ps" in missing_names(object())  # type: ignore[arg-type]
    monkeypatch.setattr(Client, "_process_msg", lambda self, message: None)
    assert missing_names(Client()) == ["Client._process_msg with five parameters"]


@pytest.mark.parametrize(
    "head",
    [
        b"NATS/1.0\r\nNats-Subject: engine.a\r\nNats-Sequence: 7\r\n\r\n",
        b"NATS/1.0\r\nNats-TTL: 5s\r\nNats-Sequence: 1\r\nNats-Subject:engine.b \r\nNats-Sequence: 8\r\n\r\n",
        b"NATS/1.0\r\nX-Nats-Subject: other\r\nNats-Subject: \xc3\xa4\xff\r\nNats-Sequence-Of: 2\r\nNats-Sequence:\r\n\r\n",
    ],
)
def test_one_header_is_what_all_of_them_say(head: bytes) -> None:
    message = Delivery(b"a", b"", head, b"")
    for name in ("Nats-Subject", "Nats-Sequence"):
        assert message.header(name.encode()) == message.headers[name]
    with pytest.raises(KeyError):
        message.header(b"Nats-Stream")


@pytest.mark.parametrize(
    ("head", "plain"),
    [
        (b"NATS/1.0\r\nNats-Subject: a\r\n\r\n", True),
        (b"NATS/1.0 404 No Messages\r\n\r\n", False),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", False),
        (b"", False),
    ],
)
def test_a_plain_message_has_no_status(head: bytes, plain: bool) -> None:
    message = Delivery(b"a", b"", head, b"")
    assert message.is_plain is plain
    assert not (plain and "Status" in message.headers)
