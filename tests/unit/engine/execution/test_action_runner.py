"""What actions are given of the events that led to them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from whenthen.actions import Redactor
from whenthen.engine.execution.action_runner import ActionRunner
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing, FiringState, Ref


class Stream:
    """Remembers which positions were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def event_at(self, seq: int) -> Event:
        self.asked.append(seq)
        return Event({"id": f"e{seq}", "event": "order.paid", "payload": {"n": seq}}, seq)


def task(action: dict[str, Any]) -> ActionTask:
    firing = Firing(
        id="f",
        automation="a",
        state=FiringState.TRIGGERED,
        at="2026-01-01T00:00:00.000000Z",
        key={},
        event={"id": "e3", "event": "order.paid", "resource": {"id": "order"}, "payload": {"n": 3}},
        seq=3,
        refs=tuple(Ref(f"e{seq}", seq, seq) for seq in (1, 2, 3)),
    )
    return ActionTask(key="f.0", index=0, firing=firing, action=action)


class Sink:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def emit(self, event: Event) -> None:
        self.events.append(event)


def emit(payload: Any) -> dict[str, Any]:
    return {"type": "emit-event", "event": "order.seen", "resource": {"id": "order"}, "payload": payload}


@pytest.mark.parametrize(
    "payload",
    [{"all": "$.events"}, {"ids": "{{ events | map(attribute='id') | join(',') }}"}, {"second": "$['events'][1]"}],
)
def test_an_action_that_names_events_is_given_all_of_them(payload: Any) -> None:
    stream, sink = Stream(), Sink()
    acting = ActionRunner(stream, SimpleNamespace(events=sink, redactor=Redactor()))  # type: ignore[arg-type]
    asyncio.run(acting.perform(task(emit(payload))))
    assert stream.asked == [1, 2]
    assert "e2" in str(sink.events[0].payload)


def test_an_action_that_names_no_events_costs_no_look_up() -> None:
    stream, sink = Stream(), Sink()
    acting = ActionRunner(stream, SimpleNamespace(events=sink, redactor=Redactor()))  # type: ignore[arg-type]
    asyncio.run(acting.perform(task(emit({"n": "$.payload.n", "of": "{{ event.id }}"}))))
    assert stream.asked == []
    assert sink.events[0].payload == {"n": 3, "of": "e3"}
