"""Publishing to `ENGINE`: several messages as one atomic batch, or each by itself under the fence of a shard's offset.

Called by the commit, and for atomic batches by the executor and the dead letters. What either means for a shard is said
in `engine.evaluation.commits.commit`; nothing here tries again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import orjson

from whenthen.engine.bus.protocol import Delivery, encode_headers
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, RequestClient, refusal, unavailable
from whenthen.schemas.errors import BusUnavailable

__all__ = [
    "BATCH_MESSAGES",
    "HEADER_BYTES",
    "MessageTooLarge",
    "StaleBatch",
    "publish_batch",
    "publish_fenced",
]

#: messages of an atomic batch, the server's limit
BATCH_MESSAGES = 1000
HEADER_BYTES = 512  #: of a message at most: batch, time to live, expectation with a subject
ANSWER_S = 2.5  #: how long the answer to a commit may take, and this much longer for each so many bytes
ANSWER_BYTES_PER_S = 10 << 20
YIELD_BYTES = 1 << 20  #: after so much was written, let the connection send it
EXPECT = "Nats-Expected-Last-Subject-Sequence"
EXPECT_OF = "Nats-Expected-Last-Subject-Sequence-Subject"
#: another sequence is the last one; or, with replicas, a message under the same expectation is being stored
WRONG_SEQUENCE = frozenset({10071, 10164})
#: the message is larger than the stream takes, its headers are; the batch has more messages than the server takes
TOO_LARGE = frozenset({10054, 10097})
TOO_MANY = 10199


class StaleBatch(Exception):
    """The expected sequence of the offset is not the last one."""


class MessageTooLarge(Exception):
    """The server takes no message of this size, or no batch of so many (`batch`). Nothing of this sending was stored."""

    def __init__(self, detail: str, *, batch: bool = False) -> None:
        super().__init__(detail)
        self.batch = batch


async def publish_batch(client: RequestClient, messages: Sequence[Message], *, expect: int | None) -> int:
    """Publish up to 1,000 messages as one atomic batch and give the last one's sequence.

    `expect` is the last sequence of the last message's subject, 0 for none; None does not ask.

    Raises:
        StaleBatch: it is another one; nothing was stored.
        MessageTooLarge: the server does not take one of that size; nothing was stored.
        BusUnavailable: not stored, or not known to be.
    """
    whole = _check_sizes(client, messages)
    if len(messages) == 1:
        return await _publish_batch(client, messages, whole, expect=expect)
    async with client.batches:
        return await _publish_batch(client, messages, whole, expect=expect)


async def _publish_batch(client: RequestClient, messages: Sequence[Message], whole: int, *, expect: int | None) -> int:
    """Send the messages, of `whole` bytes together, and wait for the last one's answer."""
    batch = uuid.uuid4().hex
    last = len(messages)
    # a leader that died does not answer; whoever sends a batch sends it again, so a short wait costs nothing
    timeout_s = ANSWER_S + whole / ANSWER_BYTES_PER_S
    start = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: "
    size = 0
    for number, message in enumerate(messages[:-1], 1):
        ends = f"\r\nNats-TTL: {message.ttl_s}s\r\n\r\n" if message.ttl_s else "\r\n\r\n"
        client.send(message.subject, message.data, f"{start}{number}{ends}".encode())
        size += len(message.data)
        if size > YIELD_BYTES:
            size = 0
            await asyncio.sleep(0)
    closing = messages[-1]
    headers = {}
    if last > 1:  # one message is atomic by itself, and far cheaper
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(last), "Nats-Batch-Commit": "1"}
    if closing.ttl_s:
        headers["Nats-TTL"] = f"{closing.ttl_s}s"
    if expect is not None:
        headers[EXPECT] = str(expect)
    head = encode_headers(headers) if headers else b""
    answer = await client.request(closing.subject, closing.data, head, timeout_s=timeout_s)
    return _stored(answer)


async def publish_fenced(client: RequestClient, messages: Sequence[Message], *, subject: str, expect: int) -> None:
    """Publish each message by itself, all of them under way at once, as long as `subject` has the last sequence `expect`.

    An error says nothing about the other messages, nor, unless it is a refusal, about the one that met it.

    Raises:
        StaleBatch: `subject` has another last sequence, or the server could not tell.
        MessageTooLarge: the server does not take one of that size; others may be stored.
        BusUnavailable: not all are stored, or not known to be.
    """
    whole = _check_sizes(client, messages)
    fence = {EXPECT: str(expect), EXPECT_OF: subject}
    plain = encode_headers(fence)
    timeout_s = ANSWER_S + whole / ANSWER_BYTES_PER_S
    waiting: list[asyncio.Future[Delivery]] = []
    try:
        for message in messages:
            head = encode_headers({**fence, "Nats-TTL": f"{message.ttl_s}s"}) if message.ttl_s else plain
            waiting.append(await client.start(message.subject, message.data, head, timeout_s=timeout_s))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        for future in waiting:
            future.cancel()  # of those that are sent when another one can not be
    failed: BusUnavailable | MessageTooLarge | None = None
    for answer in answers:
        try:
            if isinstance(answer, BaseException):
                raise answer
            _stored(answer)
        except (BusUnavailable, MessageTooLarge) as error:
            failed = error
    if failed is not None:
        raise failed


def _check_sizes(client: RequestClient, messages: Sequence[Message]) -> int:
    """The bytes of all messages. Refuses what the connection would refuse halfway through a batch, which the server then
    keeps until it times out."""
    sizes = [len(message.data) for message in messages]
    largest = max(sizes)
    if largest + HEADER_BYTES > client.nc.max_payload:
        raise MessageTooLarge(f"{largest} bytes; the NATS server takes {client.nc.max_payload}, headers included")
    return sum(sizes)


def _stored(answer: Delivery) -> int:
    """The sequence that the server gave, or what it says instead."""
    if not answer.data:
        raise unavailable("the server did not commit the batch", BusReason.REFUSED)
    result = orjson.loads(answer.data)
    error = result.get("error")
    if error is None:
        return int(result["seq"])
    if error.get("err_code") in WRONG_SEQUENCE:
        raise StaleBatch(error.get("description"))
    if error.get("err_code") in TOO_LARGE:
        raise MessageTooLarge(f"{error.get('description')} ({error.get('err_code')})")
    if error.get("err_code") == TOO_MANY:
        raise MessageTooLarge(f"{error.get('description')} ({error.get('err_code')})", batch=True)
    raise refusal("commit refused", error)
