"""A reader that is started again while messages are on their way: each comes once, in order, whatever the reading before had here."""

from __future__ import annotations

import asyncio

import pytest

from tests.patience import limit
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.evaluation.event_reader import EventReader

pytestmark = pytest.mark.anyio

EVENTS = 3000
AGAIN_AFTER = 7  #: messages


async def test_what_the_reading_before_had_on_its_way_is_not_read_out_of_turn(bus: Bus) -> None:
    async def publish() -> None:
        for number in range(EVENTS):
            bus.client.send("events.order", str(number).encode())
            if number % 10 == 0:
                await asyncio.sleep(0.001)

    reader = EventReader(bus)
    publishing = asyncio.create_task(publish())
    taken: list[int] = []
    try:
        async with asyncio.timeout(limit(60)):
            while len(taken) < EVENTS:
                await reader.start(len(taken), ["events.>"])
                for _ in range(min(AGAIN_AFTER * (1 + len(taken) // 300), EVENTS - len(taken))):
                    while (message := reader.take()) is None:
                        await reader.wait(5)
                    taken.append(message.seq)
    finally:
        await end_task(publishing)
        await reader.stop()
    assert taken == list(range(1, EVENTS + 1))
    assert reader.buffered == 0
