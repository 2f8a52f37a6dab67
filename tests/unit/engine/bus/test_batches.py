"""Atomic batches as they are sent, and what the server's answers to them mean."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson
import pytest

from whenthen.engine.bus.batches import MessageTooLarge, StaleBatch, publish_batch
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BatchGate, BusReason, RequestClient
from whenthen.schemas.errors import BusUnavailable

pytestmark = pytest.mark.anyio

BATCH = [Message("engine.a", b"1"), Message("engine.b", b"2"), Message("engine.offset", b"3")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """Answers each batch with the next of `answers`, and keeps what it was sent: subject, batch and number in the batch."""

    class nc:
        max_payload = 1 << 20

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.batches = BatchGate()
        self.sent: list[tuple[str, str, int]] = []
        self._answers = list(answers)

    def send(self, subject: str, data: bytes, head: bytes = b"") -> None:
        headers = Delivery(b"", b"", head, data).headers
        self.sent.append((subject, headers["Nats-Batch-Id"], int(headers["Nats-Batch-Sequence"])))

    async def request(self, subject: str, data: bytes, head: bytes = b"", *, timeout_s: float) -> Delivery:
        self.send(subject, data, head)
        await asyncio.sleep(0)
        return Delivery(b"", b"", b"", orjson.dumps(self._answers.pop(0)))


async def publish(server: Server) -> int:
    return await publish_batch(cast(RequestClient, server), BATCH, expect=7)


def error(code: int) -> dict[str, Any]:
    return {"error": {"err_code": code, "description": "so it is"}}


async def test_a_batch_that_was_abandoned_is_begun_anew_under_another_id() -> None:
    server = Server(error(10176), {"seq": 12})
    with pytest.raises(BusUnavailable, match="10176") as caught:
        await publish(server)
    assert caught.value.reason == BusReason.BUSY
    assert await publish(server) == 12
    ids = list(dict.fromkeys(batch for _, batch, _ in server.sent))
    assert len(ids) == 2
    whole = [(message.subject, number) for number, message in enumerate(BATCH, 1)]
    for one in ids:
        assert [(subject, number) for subject, batch, number in server.sent if batch == one] == whole


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (10176, BusReason.BUSY),  # incomplete
        (10210, BusReason.BUSY),  # too many batches under way
        (10167, BusReason.BUSY),  # too many requests
        (10009, BusReason.BUSY),  # not the leader
        (10077, BusReason.FULL),
        (10047, BusReason.FULL),
        (10166, BusReason.REFUSED),  # something about the messages
    ],
)
async def test_what_the_server_says_of_itself_is_told_from_what_it_says_of_the_messages(code: int, reason: str) -> None:
    with pytest.raises(BusUnavailable) as caught:
        await publish(Server(error(code)))
    assert caught.value.reason == reason


async def test_a_stale_batch_and_one_too_large_are_told_by_their_codes() -> None:
    with pytest.raises(StaleBatch):
        await publish(Server(error(10071)))
    with pytest.raises(MessageTooLarge) as caught:
        await publish(Server(error(10199)))
    assert caught.value.batch
