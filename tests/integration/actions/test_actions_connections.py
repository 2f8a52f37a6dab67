"""The connections of call-webhook: what is kept, what is sent again, and what an answer may look like."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from http_peers import CERTIFICATES, OK, eventually, home, listening

from tests.patience import limit
from whenthen.actions import open_http_client
from whenthen.actions.http.outgoing import MAX_BODY_BYTES, RequestFailed
from whenthen.schemas.errors import ActionError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop of the tests, and the one that `whenthen serve` runs on."""
    return "asyncio", {"use_uvloop": request.param}


CERTIFICATE = CERTIFICATES / "receiver.pem"

Calling = Callable[..., Awaitable[Any]]


@pytest.fixture
async def call(world: Any) -> AsyncIterator[Calling]:
    """Perform a call-webhook through a client of its own."""
    async with open_http_client() as client:

        async def perform(url: str, **action: Any) -> Any:
            ports = dataclasses.replace(world.ports, http=client)
            return await world.perform({"call-webhook": url, **action}, ports=ports)

        yield perform


async def test_a_connection_is_kept_and_used_again(call: Calling) -> None:
    async with listening(OK) as peer:
        for _ in range(3):
            await call(peer.url)
    assert (len(peer.requests), peer.connections) == (3, 1)


async def test_requests_at_once_have_a_connection_each(call: Calling) -> None:
    async with listening(OK, hold=asyncio.Event()) as peer:
        assert peer.hold is not None
        running = [asyncio.ensure_future(call(peer.url)) for _ in range(5)]
        await eventually(lambda: len(peer.requests) == 5)
        peer.hold.set()
        await asyncio.gather(*running)
        await call(peer.url)
    assert peer.connections == 5


async def test_a_kept_connection_that_the_other_side_closes_is_no_failed_try(call: Calling) -> None:
    """The other side takes the second request on a kept connection and hangs up: it comes again, under its key."""
    async with listening(lambda number: None if number == 2 else OK) as peer:
        await call(peer.url)
        assert (await call(peer.url)).details["status"] == 200
    assert peer.connections == 2
    assert peer.requests[1] == peer.requests[2]
    assert b"\r\nidempotency-key: f-1.0\r\n" in peer.requests[2]


async def test_a_connection_that_was_closed_while_idle_is_not_used(call: Calling) -> None:
    async with listening(OK, keeps=False) as peer:
        await call(peer.url)
        await eventually(lambda: peer.closed == 1)
        await call(peer.url)
    assert (len(peer.requests), peer.connections) == (2, 2)


async def test_a_new_connection_that_ends_without_an_answer_is_a_failed_try(call: Calling) -> None:
    async with listening(lambda _: None) as peer:
        with pytest.raises(ActionError, match="closed without an answer") as caught:
            await call(peer.url)
    assert caught.value.retryable
    assert caught.value.reason == "connection"
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nx: y",
    ],
)
async def test_an_answer_that_is_cut_off_is_a_failed_try_and_not_sent_again(call: Calling, answer: bytes) -> None:
    async with listening(lambda number: OK if number == 1 else answer) as peer:
        await call(peer.url)
        peer.keeps = False
        with pytest.raises(ActionError, match="closed in the middle of the answer") as caught:
            await call(peer.url)
    assert caught.value.retryable
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nretry-after: 9\r\n\r\n", True),
        (b"HTTP/1.1 500 No\r\n\r\nabc", False),
        (b"HTTP/1.0 500 No\r\ncontent-length: 3\r\n\r\nabc", False),
        (b"HTTP/1.1 500 No\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nretry-after: 9\r\n\r\n"
         b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nabc", True),
    ],
)  # fmt: skip
async def test_every_way_to_end_an_answer_is_understood(call: Calling, answer: bytes, keeps: bool) -> None:
    async with listening(answer, keeps=keeps) as peer:
        for _ in range(2):
            with pytest.raises(ActionError, match=r"answered 500: abc$") as caught:
                await call(peer.url)
            assert caught.value.retry_after is None
    assert peer.connections == (1 if keeps else 2)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_an_answer_that_is_cut_off_is_not_asked_for_again_by_any_method(call: Calling, method: str) -> None:
    """The library would repeat some methods by itself."""
    cut = b"HTTP/1.1 200 OK\r\nx: y"
    async with listening(lambda number: OK if number == 1 else cut) as peer:
        await call(peer.url, method=method)
        peer.keeps = False
        with pytest.raises(ActionError, match="closed in the middle of the answer"):
            await call(peer.url, method=method)
        assert len(peer.requests) == 2
    async with listening(lambda _: None) as peer:
        with pytest.raises(ActionError, match="closed without an answer"):
            await call(peer.url, method=method)
        assert len(peer.requests) == 1


async def test_a_request_is_sent_twice_at_most(call: Calling) -> None:
    async with listening(lambda number: OK if number == 1 else None) as peer:
        await call(peer.url)
        with pytest.raises(ActionError, match="closed without an answer"):
            await call(peer.url, method="PUT")
    assert len(peer.requests) == 3


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "without an answer: Connection reset"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", "in the middle"),
    ],
)
async def test_a_reset_is_a_failed_try(call: Calling, sent: bytes, message: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        plain = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ActionError, match=message) as caught:
            await call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", method="GET")
    assert caught.value.retryable
    assert caught.value.reason == "connection"


async def test_a_connection_that_ends_under_a_large_request_is_a_failed_try_that_quotes_no_path(call: Calling) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret-path"
        with pytest.raises(ActionError, match="closed without an answer") as caught:
            await call(url, body="x" * 6_000_000)
    assert caught.value.retryable
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n"])
async def test_an_answer_that_drips_is_given_up_after_the_timeout(call: Calling, head: bytes) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not (reader.at_eof() or reader.exception()):
            writer.write(b"y")
            await asyncio.sleep(0.01)
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(65536), 0.001)
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ActionError, match="not done within 1s"):
            await call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout="1s")
        async with asyncio.timeout(limit(10)):
            await ended.wait()


async def test_an_early_answer_counts_and_its_connection_is_not_used_again(call: Calling) -> None:
    """Before the whole request has been sent: the rest of it must not be taken for the next one."""
    connections = 0
    answered_twice = asyncio.Event()
    ended: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 3\r\n\r\nabc")
        await writer.drain()
        await answered_twice.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()
        ended.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(2):
            with pytest.raises(ActionError, match="answered 413: abc") as caught:
                await call(url, body="x" * 6_000_000)
            assert not caught.value.retryable
        answered_twice.set()
        await eventually(lambda: len(ended) == 2)
    assert connections == 2


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"extension=" + b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x-header: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 ", b"x" * 1000),
    ],
    ids=["interim answers", "chunk extensions", "trailers", "headers", "reason"],
)
async def test_what_has_no_end_is_given_up_whatever_it_is(call: Calling, head: bytes, more: bytes) -> None:
    async with listening(head + more * (3_000_000 // len(more))) as peer:
        with pytest.raises(ActionError, match=r"has no end within 1048576 bytes|is not HTTP/1\.1") as caught:
            await call(peer.url)
    assert caught.value.retryable
    assert len(str(caught.value)) < 200


async def test_switching_protocols_is_no_success_and_reads_nothing_more(call: Calling) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with listening(answer) as peer:
        for _ in range(2):
            with pytest.raises(ActionError, match="answered 101"):
                await call(peer.url)
    assert peer.connections == 2


async def test_cookies_are_not_kept_and_bodies_not_unpacked(call: Calling) -> None:
    packed = gzip.compress(b"a" * 1_000_000)
    head = b"HTTP/1.1 500 No\r\nset-cookie: session=1; path=/\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    async with listening(head % len(packed) + packed) as peer:
        for _ in range(2):
            with pytest.raises(ActionError, match="answered 500") as caught:
                await call(peer.url)
            assert "aaaa" not in str(caught.value)
    assert peer.connections == 1
    assert b"cookie" not in peer.requests[1].lower()


async def test_an_answer_for_another_request_never_answers_this_one(call: Calling) -> None:
    """Half of a second answer behind the first, the other half when the next request is under way."""
    first = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 500 No\r\nconte"
    async with listening(lambda number: first if number == 1 else b"nt-length: 0\r\n\r\n" + OK, keeps=True) as peer:
        assert (await call(peer.url)).details["status"] == 200
        await eventually(lambda: peer.closed == 1)
        with pytest.raises(ActionError, match="is not HTTP"):
            await call(peer.url)
    assert peer.connections == 2


async def test_an_answer_without_a_body_needs_no_length(call: Calling) -> None:
    async with listening(b"HTTP/1.1 204 No Content\r\n\r\n") as peer:
        for _ in range(2):
            assert (await call(peer.url)).details["status"] == 204
    assert peer.connections == 1


@pytest.mark.parametrize(
    "behind", [b"x", b"HTTP/1.1 500 No\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
async def test_bytes_behind_an_answer_answer_no_other_request(call: Calling, behind: bytes) -> None:
    async with listening(lambda number: OK + behind if number == 1 else OK) as peer:
        for _ in range(2):
            assert (await call(peer.url)).details["status"] == 200
    assert peer.connections == 2


async def test_bytes_that_nobody_asked_for_end_a_kept_connection(call: Calling) -> None:
    async with listening(OK) as peer:
        await call(peer.url)
        peer.open[0].write(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
        await eventually(lambda: peer.closed == 1)
        await call(peer.url)
    assert peer.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"\0\0\0",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nmany\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_failed_try(call: Calling, answer: bytes) -> None:
    async with listening(answer) as peer:
        with pytest.raises(ActionError, match="is not HTTP") as caught:
            await call(peer.url)
    assert caught.value.reason == "connection"


async def test_headers_without_end_are_given_up(call: Calling) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3_000_000) as peer:
        with pytest.raises(ActionError, match="has no end within 1048576 bytes"):
            await call(peer.url)


async def test_a_long_answer_is_cut_and_its_connection_not_used_again(call: Calling) -> None:
    size = 4 * MAX_BODY_BYTES
    async with listening(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"y" * size) as peer:
        for _ in range(2):
            assert (await call(peer.url)).details["status"] == 200
    assert peer.connections == 2


async def test_a_large_request_arrives_whole(call: Calling) -> None:
    async with listening(OK) as peer:
        await call(peer.url, body="x" * 3_000_000)
    assert peer.requests[0].endswith(b"\r\n\r\n" + b"x" * 3_000_000)


async def test_giving_up_a_try_closes_its_connection(call: Calling) -> None:
    async with listening(OK, hold=asyncio.Event()) as peer:
        assert peer.hold is not None
        with pytest.raises(ActionError, match="not done within 1s"):
            await call(peer.url, timeout="1s")  # in which it connects
        await eventually(lambda: peer.closed == 1)
        peer.hold.set()
        await call(peer.url)
    assert peer.connections == 2


async def test_more_requests_than_connections_wait_and_a_cancelled_one_keeps_no_place(world: Any) -> None:
    async with open_http_client(max_connections=2) as client, listening(OK, hold=asyncio.Event()) as peer:
        assert peer.hold is not None
        ports = dataclasses.replace(world.ports, http=client)
        running = [asyncio.ensure_future(world.perform({"call-webhook": peer.url}, ports=ports)) for _ in range(6)]
        await eventually(lambda: len(peer.requests) == 2)
        for one in (running[0], running[4]):
            one.cancel()
        peer.hold.set()
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ended] == [True, False, False, False, True, False]
        assert len(peer.open) - peer.closed <= 2


async def test_a_full_pool_closes_what_was_idle_longest(world: Any) -> None:
    async with (
        open_http_client(max_connections=2) as client,
        listening(OK) as first,
        listening(OK) as second,
        listening(OK) as third,
    ):
        ports = dataclasses.replace(world.ports, http=client)
        for peer in (first, second, third, second):
            await world.perform({"call-webhook": peer.url}, ports=ports)
        await eventually(lambda: first.closed == 1)
        assert (second.connections, second.closed, third.closed) == (1, 0, 0)


async def test_a_connection_that_nobody_uses_is_closed_after_a_while(world: Any) -> None:
    async with open_http_client(keepalive_s=0.05) as client, listening(OK) as peer:
        await world.perform({"call-webhook": peer.url}, ports=dataclasses.replace(world.ports, http=client))
        await eventually(lambda: peer.closed == 1)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_value_with_a_line_break_makes_no_request(value: str) -> None:
    async with listening(OK) as peer, open_http_client() as client:
        with pytest.raises(ValueError, match="line break"):
            await client.request("POST", httpx.URL(peer.url), {"x": value}, b"")
        with pytest.raises(ValueError, match="line break"):
            await client.request("POST", httpx.URL(peer.url), {value: "x"}, b"")
        with pytest.raises((ValueError, httpx.InvalidURL)):
            await client.request("POST", httpx.URL(peer.url + "/" + value), {}, b"")
    assert peer.connections == 0


async def test_line_ends_may_be_bare() -> None:
    async with listening(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok") as peer, open_http_client() as client:
        answer = await client.request("POST", httpx.URL(peer.url), {}, b"")
    assert (answer.status, answer.body) == (200, b"ok")


async def test_an_answer_may_end_with_a_connection_that_says_no_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of many small servers: the socket is closed under TLS."""

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    def serve(listener: socket.socket) -> None:
        for answer in (b"HTTP/1.1 200 OK\r\n\r\nok", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"):
            plain, _ = listener.accept()
            with tls.wrap_socket(plain, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(answer)
                with socket.socket(fileno=secure.detach()) as under:
                    under.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = httpx.URL(f"https://receiver.example.com:{listener.getsockname()[1]}/")
        async with open_http_client(resolve=home) as client:
            answer = await client.request("POST", url, {}, b"")
            assert (answer.status, answer.body) == (200, b"ok")
            with pytest.raises(RequestFailed, match="in the middle of the answer"):
                await client.request("POST", url, {}, b"")
        await served


async def test_tls_needs_a_trusted_certificate_of_the_host(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with listening(OK, tls=tls) as peer:

        async def call(host: str) -> Any:
            async with open_http_client(resolve=home) as client:
                ports = dataclasses.replace(world.ports, http=client)
                for _ in range(2):
                    found = await world.perform({"call-webhook": f"https://{host}:{peer.port}/"}, ports=ports)
                return found

        with pytest.raises(ActionError, match=r"no trusted TLS connection: .*self.signed"):
            await call("receiver.example.com")
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with pytest.raises(ActionError, match=r"not valid for 'other\.example\.com'") as caught:
            await call("other.example.com")
        assert caught.value.reason == "connection"
        assert peer.requests == []
        assert (await call("receiver.example.com")).details["status"] == 200
        assert len(peer.requests) == 2
