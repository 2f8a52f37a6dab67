"""The gate of atomic batches: closed, none is under way."""

from __future__ import annotations

import asyncio

import pytest

from tests.patience import limit
from whenthen.engine.bus.request_client import BatchGate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_gate_closes_after_the_batches_that_are_under_way_and_holds_up_the_next_ones() -> None:
    gate, told, finish = BatchGate(), [], asyncio.Event()

    async def batch(name: str) -> None:
        async with gate:
            told.append(f"{name} begins")
            await finish.wait()
            told.append(f"{name} ends")

    first = asyncio.create_task(batch("first"))
    await asyncio.sleep(0)

    async def close() -> None:
        async with gate.closed():
            told.append("closed")
            await asyncio.sleep(0)
            told.append("opened")

    closing = asyncio.create_task(close())
    await asyncio.sleep(0)
    second = asyncio.create_task(batch("second"))
    await asyncio.sleep(0)
    assert told == ["first begins"]
    finish.set()
    await asyncio.gather(first, closing, second)
    assert told == ["first begins", "first ends", "closed", "opened", "second begins", "second ends"]


async def test_a_gate_is_open_after_whoever_closes_it_was_cancelled() -> None:
    gate, finish = BatchGate(), asyncio.Event()

    async def batch() -> None:
        async with gate:
            await finish.wait()

    under_way = asyncio.create_task(batch())
    await asyncio.sleep(0)

    async def close() -> None:
        async with gate.closed():
            raise AssertionError("a batch is under way")

    closing = asyncio.create_task(close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    finish.set()
    await asyncio.gather(under_way, batch())


async def test_a_batch_that_fails_leaves_the_gate() -> None:
    gate = BatchGate()
    with pytest.raises(ValueError, match="no"):
        async with gate:
            raise ValueError("no")
    async with asyncio.timeout(limit(5)), gate.closed():
        pass
