"""The way of a source's messages: what is counted, what is kept aside, and what is told of a trouble."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from whenthen.engine.bus.connection import Ack
from whenthen.engine.metrics import Metrics
from whenthen.engine.sources import message_intake
from whenthen.engine.sources.message_intake import MessageIntake, SourceWatch
from whenthen.schemas.errors import BusUnavailable, WhenthenError
from whenthen.schemas.event_sources import Source
from whenthen.schemas.events import Event
from whenthen.sources import Translation
from whenthen.sources.readings import SourceMessage, SourceTranslator

pytestmark = pytest.mark.anyio

EVENT = SourceMessage(body=b'{"event": "a", "resource": {"id": "one"}}', delivery="1")


class Faulty(SourceTranslator):
    def translate(self, message: SourceMessage, now: datetime) -> Translation:
        raise ZeroDivisionError("a fault")


class Desk:
    """What becomes of messages."""

    def __init__(self, kind: type[SourceTranslator] = SourceTranslator, *, away: int = 0) -> None:
        self.published: list[str] = []
        self.aside: list[tuple[str, str]] = []
        self.away = away
        read: Any = {"type": "nats", "url": "nats://nowhere:4222", "subject": "a.>"}
        translator = kind(Source.model_validate({"name": "orders", "read": read}))
        self.intake = MessageIntake(
            translator, self.publish, metrics=Metrics(version="0", roles=("source",)), keep_aside=self.keep
        )

    async def publish(self, event: Event) -> Ack:
        self.published.append(event.id)
        return Ack(seq=len(self.published), duplicate=self.published.count(event.id) > 1)

    async def keep(self, source: str, message: SourceMessage, error: WhenthenError) -> None:
        if self.away:
            self.away -= 1
            raise BusUnavailable("the server is away")
        self.aside.append((source, error.reason))


async def test_messages_events_duplicates_and_refusals_are_counted() -> None:
    desk = Desk()
    await desk.intake.deliver(EVENT)
    await desk.intake.deliver(EVENT)
    await desk.intake.deliver(SourceMessage(body=b"{"))
    watch = desk.intake.watch
    assert (watch.messages, watch.events, watch.duplicates, watch.refused) == (3, 2, 1, {"invalid_json": 1})
    assert desk.aside == [("orders", "invalid_json")]


async def test_message_that_this_program_fails_on_is_kept_aside_and_does_not_come_for_ever() -> None:
    desk = Desk(Faulty)
    await desk.intake.deliver(EVENT)
    assert desk.aside == [("orders", "internal")]


async def test_message_is_not_done_with_until_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_intake, "RETRY_S", (0.0, 0.0))
    desk = Desk(away=3)
    await desk.intake.deliver(SourceMessage(body=b"{"))
    assert (desk.away, len(desk.aside)) == (0, 1)


def test_a_trouble_is_told_once_until_it_is_another_or_was_over(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = SourceWatch()
    assert watch.in_trouble("wrong password")
    watch.become("reading")  # for a moment only
    assert not watch.in_trouble("wrong password")
    assert watch.in_trouble("no such queue")
    watch.become("reading")
    watch.since -= message_intake.WELL_S + 1
    assert watch.in_trouble("no such queue")
    assert (watch.state, watch.detail) == ("trouble", "no such queue")
