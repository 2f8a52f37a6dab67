"""Listings of a stream, against a stream in memory that counts what is held."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.bus.stream_pages import StoredMessage, StreamPage, newest
from whenthen.schemas.errors import BusUnavailable

MB = 1 << 20


class FakeStream:
    """Messages of given sizes from position 1; made when they are asked for, and counted as long as somebody holds them."""

    def __init__(self, sizes: Mapping[int, int] | list[int]) -> None:
        self.sizes = dict(enumerate(sizes, 1)) if isinstance(sizes, list) else dict(sizes)
        self.held = 0
        self.most_held = 0
        self.read = 0

    async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
        last = max(self.sizes, default=0)
        first = min(self.sizes, default=1)
        state = {"first_seq": first, "last_seq": last, "bytes": sum(self.sizes.values()), "messages": len(self.sizes)}
        return {"state": state}

    async def read_stored(self, stream: str, request: Mapping[str, Any], receive: Callable[[Any], None]) -> bool:
        sent = 0
        wanted = [seq for seq in self.sizes if seq >= request["seq"]]
        for count, seq in enumerate(wanted):
            if count == request["batch"] or (sent and sent + self.sizes[seq] > request["max_bytes"]):
                return True
            sent += self.sizes[seq]
            self.read += self.sizes[seq]
            receive(FakeDelivery(self, seq))
        return False


class FakeDelivery:
    def __init__(self, stream: FakeStream, seq: int) -> None:
        size = stream.sizes[seq]
        self.headers = {"Nats-Sequence": str(seq), "Nats-Subject": "s", "Nats-Time-Stamp": "t"}
        self.data = Data(stream, size)


class Data:
    """Stands for bytes of a size."""

    def __init__(self, stream: FakeStream, size: int) -> None:
        self.size = size
        stream.held += size
        stream.most_held = max(stream.most_held, stream.held)
        weakref.finalize(self, self._gone, stream, size)

    @staticmethod
    def _gone(stream: FakeStream, size: int) -> None:
        stream.held -= size

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True


def listed(stream: FakeStream, pick: Callable[[StoredMessage], Any], **options: Any) -> StreamPage[Any]:
    return asyncio.run(newest(stream, "S", "s", pick=pick, **{"limit": 1000, **options}))  # type: ignore[arg-type]


def whole(message: StoredMessage) -> StoredMessage:
    return message


def seqs(page: StreamPage[Any]) -> list[int]:
    return [message.seq for message in page]


@pytest.mark.parametrize("limit", [1, 10, 499, 500, 501, 2000])
def test_the_newest_come_first(limit: int) -> None:
    page = listed(FakeStream([100] * 1700), whole, limit=limit)
    assert seqs(page) == list(range(1700, max(0, 1700 - limit), -1))
    assert page.next is None


def test_large_messages_that_are_not_wanted_are_not_held() -> None:
    stream = FakeStream([3 * MB] * 600)
    assert listed(stream, lambda message: None) == []
    assert stream.most_held <= 2 * 3 * MB
    assert stream.read < 600 * 3 * MB * 1.5


def test_an_answer_of_large_messages_is_cut_and_says_where_to_go_on() -> None:
    stream = FakeStream([3 * MB] * 600)
    page = listed(stream, whole)
    assert seqs(page) == [600, 599]
    assert page.next == 599
    assert stream.most_held <= 5 * 3 * MB
    del page
    found: list[int] = []
    before = None
    while True:
        page = listed(stream, whole, before=before)
        found += seqs(page)
        if page.next is None:
            break
        before = page.next
    assert found == list(range(600, 0, -1))


def test_a_message_that_is_larger_than_an_answer_may_be_comes_alone() -> None:
    page = listed(FakeStream([10, 60 * MB, 10]), whole)
    assert (seqs(page), page.next) == ([3], 3)
    page = listed(FakeStream([10, 60 * MB, 10]), whole, before=3)
    assert (seqs(page), page.next) == ([2], 2)


def test_large_messages_after_many_small_ones_do_not_make_a_block_of_gigabytes() -> None:
    stream = FakeStream([50] * 100_000 + [6 * MB] * 400)
    page = listed(stream, lambda message: message.seq, limit=3)
    assert list(page) == [100_400]
    assert stream.read < 10 * 16 * MB


@pytest.mark.parametrize("seed", range(20))
def test_pages_together_are_what_the_stream_holds(seed: int) -> None:
    draw = random.Random(seed)
    sizes = {seq: draw.choice([10, 1000, MB, 5 * MB]) for seq in range(1, 400) if draw.random() < 0.8}
    wanted = [seq for seq in sorted(sizes, reverse=True) if seq % 3]
    found: list[int] = []
    before = None
    while True:
        limit = draw.randint(1, 50)
        page = listed(FakeStream(sizes), lambda m: m if m.seq % 3 else None, limit=limit, before=before)
        assert len(page) <= limit
        assert sum(len(m.data) for m in page[1:]) <= 8 * MB
        found += seqs(page)
        if page.next is None and len(page) < limit:
            break
        before = page.next if page.next is not None else page[-1].seq
    assert found == wanted


def test_a_stream_that_can_not_be_asked_is_an_error_that_says_so() -> None:
    class Away(FakeStream):
        async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
            return {
                "error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
            }

    with pytest.raises(BusUnavailable, match="stream S can not be asked: JetStream system") as refused:
        listed(Away([1]), whole)
    assert refused.value.reason == BusReason.BUSY
