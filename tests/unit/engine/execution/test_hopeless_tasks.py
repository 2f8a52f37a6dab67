"""A task that can not be handled, for reasons that nobody foresaw, becomes a dead letter instead of coming back for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from whenthen.engine.bus.protocol import Position
from whenthen.engine.bus.records import decode_task, encode_firing, encode_task
from whenthen.engine.execution.executor import UNFORESEEN, Executor
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.firings import Firing, FiringState

pytestmark = pytest.mark.anyio

FIRING = Firing(id="f", automation="a", state=FiringState.TRIGGERED, at="", key={}, event=None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def task_data() -> bytes:
    data = encode_task(FIRING, encode_firing(FIRING, None), 0, "x", "d")
    assert decode_task(data)[0].key
    return data


class Outcomes:
    def __init__(self, *, away: bool = False) -> None:
        self.dead: list[str] = []
        self._away = away

    async def find(self, task: Any) -> Any:
        raise RuntimeError("an outcome of another version")

    async def store_dead(self, task: Any, data: bytes, error: Exception, *, event: Any) -> None:
        if self._away:
            raise BusUnavailable("away")
        self.dead.append(str(error))


def executor(outcomes: Outcomes) -> tuple[Executor, list[int]]:
    closed: list[int] = []

    async def close(reply: str, seq: int) -> None:
        closed.append(seq)

    found = object.__new__(Executor)
    found.__dict__.update(outcomes=outcomes, _close=close, bus=SimpleNamespace())
    return found, closed


def position(delivered: int) -> Position:
    return Position(delivered=delivered, seq=7, consumer_seq=7, time_us=0, pending=0)


async def test_it_is_delivered_again_at_first() -> None:
    outcomes = Outcomes()
    found, closed = executor(outcomes)
    with pytest.raises(RuntimeError):
        await found._handle("reply", position(UNFORESEEN - 1), task_data())
    assert (outcomes.dead, closed) == ([], [])


async def test_after_thirty_deliveries_it_is_a_dead_letter_and_acknowledged() -> None:
    outcomes = Outcomes()
    found, closed = executor(outcomes)
    await found._handle("reply", position(UNFORESEEN), task_data())
    assert outcomes.dead == ["it could not be handled: RuntimeError: an outcome of another version"]
    assert closed == [7]


async def test_it_stays_while_the_dead_letter_can_not_be_stored() -> None:
    found, closed = executor(Outcomes(away=True))
    await found._handle("reply", position(UNFORESEEN), task_data())
    assert closed == []
