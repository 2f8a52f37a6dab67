"""How outcomes and their events are sent: the event first, both at once, and again what was not acknowledged."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from whenthen.engine.bus.records import OutcomeState
from whenthen.engine.bus.request_client import BatchGate, BusReason, unavailable
from whenthen.engine.execution import outcome_store as outcomes
from whenthen.engine.execution.outcome_store import Outcomes
from whenthen.schemas.errors import ActionError, BusUnavailable
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import ActionTask, Firing, FiringState

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
STORED = b'{"stream":"X","seq":1}'
REFUSED = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'


class Bus:
    """Answers each message as `answers` say, in order, and with `STORED` afterwards; an exception is raised."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.client = self
        self.nc = SimpleNamespace(max_payload=1 << 20)
        self.batches = BatchGate()
        self.answers = list(answers)
        self.sent: list[str] = []
        self.under_way = self.most_under_way = 0

    async def start(self, subject: str, data: bytes, head: bytes = b"", *, timeout_s: float) -> asyncio.Future[Any]:
        self.sent.append(subject)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        answer = self.answers.pop(0) if self.answers else STORED
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            self.under_way -= 1
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(SimpleNamespace(data=answer))

        asyncio.get_running_loop().call_soon(arrive)
        return future

    async def request(self, subject: str, data: bytes, head: bytes = b"", *, timeout_s: float) -> Any:
        return await (await self.start(subject, data, head, timeout_s=timeout_s))

    def send(self, subject: str, data: bytes, head: bytes = b"") -> None:
        self.sent.append(subject)

    async def publish(self, event: Event) -> None:
        answer = await self.request(f"events.{event.name}", event.encode(), timeout_s=1.0)
        if b"error" in answer.data:
            raise unavailable("full", BusReason.FULL)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(_: float) -> None:
        return None

    monkeypatch.setattr(outcomes, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))


def task() -> ActionTask:
    firing = Firing(id="f", automation="a", state=FiringState.TRIGGERED, at="", key={}, event=None)
    return ActionTask(key="f.0", index=0, firing=firing, action={"type": "x"})


EVENT = new_event("told", resource={"id": "r"}, now=NOW, source="t", id="f.0.executed")


def store(bus: Bus, event: Event | None = EVENT) -> None:
    written = Outcomes(bus, ttl_s=60, dead_ttl_s=0, now=lambda: NOW)  # type: ignore[arg-type]
    asyncio.run(written.store(task(), OutcomeState.EXECUTED, event=event))


def test_the_event_goes_before_the_outcome_and_both_are_under_way_at_once() -> None:
    bus = Bus()
    store(bus)
    assert bus.sent == ["events.told", "engine.outcome.a.f.0"]
    assert bus.most_under_way == 2


def test_without_an_event_the_outcome_alone_is_sent() -> None:
    bus = Bus()
    store(bus, None)
    assert bus.sent == ["engine.outcome.a.f.0"]


@pytest.mark.parametrize("answer", [REFUSED, b"", unavailable("no answer", BusReason.TIMEOUT)])
def test_only_what_was_not_acknowledged_is_sent_again(answer: bytes | Exception) -> None:
    bus = Bus(answer)
    store(bus)
    assert bus.sent == ["events.told", "engine.outcome.a.f.0", "events.told"]
    bus = Bus(STORED, answer)
    store(bus)
    assert bus.sent == ["events.told", "engine.outcome.a.f.0", "engine.outcome.a.f.0"]


def test_what_can_not_be_stored_is_an_error_so_that_the_task_is_not_acknowledged() -> None:
    bus = Bus(STORED, *[unavailable("no answer", BusReason.TIMEOUT)] * 100)
    with pytest.raises(BusUnavailable):
        store(bus)
    bus = Bus(*[REFUSED, STORED], *[REFUSED] * 100)
    with pytest.raises(BusUnavailable):
        store(bus)


def test_a_dead_letter_and_its_outcome_are_stored_before_the_event_says_so() -> None:
    bus = Bus()
    written = Outcomes(bus, ttl_s=60, dead_ttl_s=0, now=lambda: NOW)  # type: ignore[arg-type]
    asyncio.run(written.store_dead(task(), b"{}", ActionError("no"), event=EVENT))
    assert bus.sent == ["engine.dead.a.f.0", "engine.outcome.a.f.0", "events.told"]
    assert bus.most_under_way == 1
