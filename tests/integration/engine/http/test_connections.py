"""What one connection may do to a server, over real sockets: sizes, deadlines, numbers, and that refusals reach their client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from tests.patience import limit
from tests.unit.engine.http.http_fakes import FakeApi, app_over
from whenthen.engine.http import ConnectionGate, ConnectionLimits, HttpServer, listen

EVENT = b'{"event":"order.created","resource":{"id":"order.1"}}'
WITHIN_S = limit(20)


@dataclass
class Running:
    api: FakeApi
    gate: ConnectionGate
    port: int
    app: Any

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *pieces: bytes) -> list[tuple[int, str]]:
        """Send pieces and read what comes until the server closes; each answer's status and reason."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(WITHIN_S):
                return answers(await reader.read())
        finally:
            writer.close()

    async def alive(self) -> None:
        assert (await self.ask(request(EVENT, "connection: close")))[0][0] == 202

    def refused(self, reason: str) -> float:
        found = self.api.registry.connections_refused.labels(reason)
        return float(found._value.get())


def request(body: bytes = b"", *headers: str, path: str = "/api/events", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", *headers]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(raw: bytes) -> list[tuple[int, str]]:
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        body, raw = json.loads(raw[:length]), raw[length:]
        found.append((int(lines[0].split()[1]), body.get("error", {}).get("reason", "")))
    return found


@contextlib.asynccontextmanager
async def running(limits: ConnectionLimits | None = None, **options: Any) -> AsyncIterator[Running]:
    api = FakeApi()
    app = app_over(api, **options)
    gate = ConnectionGate(limits or ConnectionLimits(), metrics=api.registry)
    listening, url = listen("127.0.0.1", 0)
    server = HttpServer(app, drain_s=1, gate=gate)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await until(lambda: server.started)
        yield Running(api, gate, int(url.rpartition(":")[2]), app)
    finally:
        server.should_exit = True
        await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop of `whenthen serve`
        runner.run(asyncio.wait_for(work(), limit(60)))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (["a: " + "x" * 60_000], 202),
        (["a: " + "x" * 66_000], 431),
        ([f"a{number}: x" for number in range(90)], 202),
        ([f"a{number}: x" for number in range(101)], 431),
    ],
)
def test_a_head_of_64_kib_and_100_headers_is_the_largest(head: list[str], status: int) -> None:
    async def work() -> None:
        async with running() as server:
            assert (await server.ask(request(EVENT, "connection: close", *head)))[0][0] == status
            await server.alive()

    run(work)


def test_a_header_that_never_ends_is_answered_431_after_64_kib() -> None:
    async def work() -> None:
        async with running() as server:
            reader, writer = await server.connect()
            writer.write(b"POST /nothing HTTP/1.1\r\nhost: x\r\na: ")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof() and not reader._buffer and sent < 50_000_000:  # type: ignore[attr-defined]
                    writer.write(b"x" * 65_536)
                    sent += 65_536
                    await writer.drain()
                    await asyncio.sleep(0)
            assert answers(await reader.read()) == [(431, "head_too_large")]
            assert sent < 5_000_000
            writer.close()
            assert server.refused("head_too_large") == 1
            await server.alive()

    run(work)


def test_a_url_that_never_ends_is_answered_431() -> None:
    async def work() -> None:
        async with running() as server:
            assert await server.ask(b"GET /" + b"x" * 100_000) == [(431, "head_too_large")]

    run(work)


def test_headers_after_a_body_in_chunks_are_bounded_too() -> None:
    chunked = request(b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")

    async def work() -> None:
        async with running() as server:
            for tail in (b"5\r\nhello\r\n0\r\na: ", b"5;"):
                found = await server.ask(chunked + tail, *[b"x" * 50_000] * 8)
                assert found[0][0] == 400
            await server.alive()

    run(work)


def test_a_body_in_small_chunks_is_taken() -> None:
    chunked = request(b"", "transfer-encoding: chunked", "connection: close").replace(b"content-length: 0\r\n", b"")
    padded = EVENT + b" " * 30_000
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\nafter: x\r\n\r\n"

    async def work() -> None:
        async with running() as server:
            assert await server.ask(chunked, pieces) == [(202, "")]

    run(work)


@pytest.mark.parametrize("begin", [b"POST /api/events HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_takes_too_long_is_answered_408(begin: bytes) -> None:
    async def work() -> None:
        async with running(ConnectionLimits(head_s=limit(0.2))) as server:
            assert await server.ask(begin) == [(408, "head_timeout")]
            await server.alive()

    run(work)


def test_a_head_that_comes_byte_by_byte_is_given_no_more_time() -> None:
    async def work() -> None:
        async with running(ConnectionLimits(head_s=0.3)) as server:
            reader, writer = await server.connect()
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof() and not reader._buffer:  # type: ignore[attr-defined]
                    writer.write(b"G" if server.gate.open else b"")
                    await asyncio.sleep(0.02)
            writer.close()
            await until(lambda: server.gate.open == 0)

    run(work)


def test_a_silent_connection_is_closed() -> None:
    async def work() -> None:
        async with running(ConnectionLimits(head_s=limit(0.2))) as server:
            assert await server.ask() == []
            await until(lambda: server.gate.open == 0)

    run(work)


def test_a_body_that_takes_too_long_is_answered_408_and_nothing_of_it_is_stored() -> None:
    async def work() -> None:
        async with running(ConnectionLimits(body_s=limit(0.2))) as server:
            assert await server.ask(request(EVENT, length=len(EVENT) + 1)) == [(408, "body_timeout")]
            assert server.api.order == []
            await until(lambda: server.app._ingest._budget.held == 0)
            await server.alive()

    run(work)


def test_a_request_after_another_one_has_its_own_time() -> None:
    async def work() -> None:
        each_s = limit(0.5)
        async with running(ConnectionLimits(head_s=each_s, body_s=each_s)) as server:
            reader, writer = await server.connect()
            for _ in range(4):
                whole = request(EVENT)
                writer.write(whole[:-5])
                await asyncio.sleep(0.3 * each_s)
                writer.write(whole[-5:])
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 202 " in head
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            writer.close()

    run(work)


def test_the_answer_413_reaches_a_client_that_goes_on_sending() -> None:
    async def work() -> None:
        async with running(body_limit=100_000) as server:
            for _ in range(5):
                body = b" " * 10_000_000
                assert await server.ask(request(b"", length=len(body)), body) == [(413, "body_too_large")]
            await server.alive()

    run(work)


def test_the_answer_to_a_missing_token_reaches_a_client_that_goes_on_sending() -> None:
    async def work() -> None:
        async with running(token="t" * 20) as server:
            assert await server.ask(request(b" " * 3_000_000)) == [(401, "unauthorized")]

    run(work)


def test_bodies_of_all_requests_together_are_bounded() -> None:
    async def work() -> None:
        async with running(body_limit=1_000_000, bodies_limit=3_000_000) as server:
            budget = server.app._ingest._budget
            slow = []
            for _ in range(20):
                reader, writer = await server.connect()
                writer.write(request(b" " * 900_000, length=950_000))
                slow.append((reader, writer))
            await until(lambda: server.gate.open <= 4 or budget.held > 2_000_000)
            found = await server.ask(request(EVENT + b" " * 990_000, "connection: close"))
            assert found in ([(503, "busy")], [(202, "")])
            assert budget.held <= 3_000_000
            read = [asyncio.create_task(reader.read()) for reader, _ in slow]

            def refused() -> int:
                return [answers(each.result()) for each in read if each.done()].count([(503, "busy")])

            await until(lambda: refused() >= 16)
            assert budget.held <= 3_000_000
            for _, writer in slow:
                writer.close()
            await asyncio.wait(read)
            await until(lambda: budget.held == 0)
            await server.alive()

    run(work)


def test_a_connection_too_many_is_answered_503_and_named_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with running(ConnectionLimits(connections=3)) as server:
            held = [await server.connect() for _ in range(3)]
            await until(lambda: server.gate.open == 3)
            for _ in range(5):
                assert await server.ask() == [(503, "too_many_connections")]
            assert server.refused("connections") == 5
            for _, writer in held:
                writer.close()
            await until(lambda: server.gate.open == 0)
            await server.alive()

    with caplog.at_level(logging.WARNING):
        run(work)
    assert [record.getMessage() for record in caplog.records if "connections are open" in record.getMessage()] == [
        "3 connections are open, as many as there may be; new ones are answered 503"
    ]


def test_connections_leave_file_descriptors_to_the_rest_of_the_process() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert ConnectionLimits(connections=1_000_000_000).most <= soft * 3 // 4
    assert ConnectionLimits(connections=5).most == 5


def test_what_is_not_http_is_answered_400_and_the_log_says_from_where_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with running() as server:
            for _ in range(20):
                assert await server.ask(b"\x16\x03\x01 nonsense\r\n\r\n") == [(400, "malformed")]
            assert server.refused("malformed") == 20

    with caplog.at_level(logging.WARNING):
        run(work)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("a request from 127.0.0.1:")


def test_requests_in_one_piece_are_answered_in_order_and_what_follows_a_refusal_is_not() -> None:
    async def work() -> None:
        async with running(body_limit=10_000) as server:
            found = await server.ask(request(EVENT) * 5 + request(EVENT, "connection: close"))
            assert found == [(202, "")] * 6
            found = await server.ask(request(EVENT) + request(b" " * 20_000) + request(EVENT) * 3)
            assert found == [(202, ""), (413, "body_too_large")]
            assert len(server.api.order) == 7

    run(work)


def test_thousands_of_requests_in_one_piece_end_the_connection() -> None:
    async def work() -> None:
        async with running() as server:
            with contextlib.suppress(ConnectionError):
                await server.ask(b"GET /healthz HTTP/1.1\r\n\r\n" * 5_000)
            assert server.refused("pipelined") == 1
            await until(lambda: server.gate.open == 0)
            await server.alive()

    run(work)


def test_a_wrong_token_of_a_webhook_is_refused_before_the_body_is_read() -> None:
    from whenthen.schemas.errors import Refused

    async def work() -> None:
        async with running() as server:

            def check(asked: Any) -> None:
                assert asked.body == b""
                raise Refused("x-token is missing", status=401)

            server.api.check_head = check  # type: ignore[method-assign, assignment]
            assert (await server.ask(request(b"", path="/hooks/orders", length=4_000_000)))[0][0] == 401

    run(work)
