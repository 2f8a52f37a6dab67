"""The history asked over NATS by a process that has no database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.contract.history import history_messages as made
from tests.integration.conftest import bus, nats_server
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.subjects import HISTORY_QUESTIONS
from whenthen.engine.http import answer_models as answers
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.queries.history import history_questions
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.merged_lists import without_history
from whenthen.engine.projection import HistoryLag, HistoryService, history_service
from whenthen.engine.projection.history_service import LAG_QUESTION
from whenthen.history import Database, Projection
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.times import from_us

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server")]

NOTHING: dict[str, Any] = {"equal": {}, "labels": {}, "since": None, "until": None}


@contextlib.asynccontextmanager
async def answering(bus: Bus, database: Database) -> AsyncIterator[HistoryQuestions]:
    lag = HistoryLag(bus, database, report=Metrics(version="1").set_history_lag, shards=1)
    await lag.measure()
    service = HistoryService(bus, database, lag)
    task = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    await bus.nc.flush()
    try:
        yield HistoryQuestions(bus, lambda: from_us(made.START_US + made.HOUR_US))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        service.close()
        database.close()


async def page(questions: HistoryQuestions, kind: str = "events", **asked: Any) -> list[str]:
    more = {name: asked.pop(name) for name in ("id_prefix", "text", "before", "limit") if name in asked}
    return [item["id"] for item in (await questions.history_page(kind, **{**NOTHING, **asked}, more=more)).items]


async def test_pages_counts_and_stats_come_from_another_process(bus: Bus, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    messages = [made.event(n, time_us=made.START_US + n * 60_000_000) for n in range(1, 31)]
    await asyncio.to_thread(made.project, Projection(database), "EVENTS", *messages)
    async with answering(bus, database) as questions:
        assert await page(questions, since="35m") == [f"event-{n}" for n in range(30, 24, -1)]
        assert await page(questions, equal={"name": "order.*"}, labels={"id": "shop.0"}, limit=2) == [
            "event-30",
            "event-27",
        ]
        counts = await questions.history_counts("events", equal={}, by="name", since="2h", until=None, step="day")
        assert [(each.value, each.count) for each in counts] == [("order.paid", 30)]
        # without a beginning the day before the end
        for until, found in ((None, [30]), ("30d", [])):
            counts = await questions.history_counts("events", equal={}, by=None, since=None, until=until, step="hour")
            assert [each.count for each in counts] == found
        stats = await questions.history_stats()
        assert {table.name: table.rows for table in stats.tables}["events"] == 30
        assert [(each.stream, each.taken) for each in stats.streams] == [("EVENTS", 30)]
        assert stats.streams[0].behind == answers.HistoryLag(messages=0, seconds=0)
        assert await questions.lag() == answers.HistoryLag(messages=0, seconds=0)


async def test_what_is_asked_wrongly_is_said_as_anywhere_else(bus: Bus, tmp_path: Path) -> None:
    async with answering(bus, Database(tmp_path / "history.db")) as questions:
        for asked, field in (
            ({"since": "yesterday"}, "since"),
            ({"equal": {"nam": "x"}}, "nam"),
            ({"before": "'; DROP TABLE events"}, "before"),
            ({"id_prefix": "a"}, "id"),
        ):
            with pytest.raises(InvalidInput) as caught:
                await page(questions, **asked)
            assert caught.value.field == field
        for data in (
            b"",
            b"[]",
            b'{"ask": "drop"}',
            b'{"ask": "page", "query": {"kind": 7}}',
            b'{"ask": "page", "query": {"x": 1}}',
        ):
            answer = orjson.loads((await bus.client.request(HISTORY_QUESTIONS, data)).data)
            assert answer["error"]["reason"] == "invalid_input", answer


async def test_a_page_of_large_rows_fits_into_a_message_and_goes_on(bus: Bus, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    messages = [made.event(n, payload="x" * 8000) for n in range(1, 1001)]
    await asyncio.to_thread(made.project, Projection(database), "EVENTS", *messages)
    async with answering(bus, database) as questions:
        seen: list[str] = []
        before = ""
        while len(seen) < 1000:
            found = await questions.history_page("events", **NOTHING, more={"limit": 1000, "before": before})
            assert found.items
            seen += [item["id"] for item in found.items]
            before = found.next or ""
        assert seen == [f"event-{n}" for n in range(1000, 0, -1)]


async def test_one_question_more_than_may_wait_is_answered_that_there_are_too_many(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(bus, Database(tmp_path / "history.db")) as questions:
        assert await page(questions) == []
        monkeypatch.setattr(history_service, "MOST_WAITING", 0)
        with pytest.raises(BusUnavailable, match="ask again") as caught:
            await page(questions)
        assert caught.value.reason == "history_busy"


async def test_without_the_role_it_is_said_which_process_is_missing(bus: Bus) -> None:
    with pytest.raises(BusUnavailable, match="--role history") as caught:
        await page(HistoryQuestions(bus, lambda: datetime.now(UTC)))
    assert caught.value.reason == "no_history"
    assert await HistoryQuestions(bus).lag() is None


async def test_a_process_that_has_the_history_and_is_stopped_is_not_waited_for(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hear_only(message: Any) -> None:
        pass

    await bus.nc.subscribe(HISTORY_QUESTIONS, cb=hear_only)
    await bus.nc.flush()
    monkeypatch.setattr(history_questions, "LOOK_S", 0.1)
    monkeypatch.setattr(history_questions, "SILENT_S", 0.1)
    monkeypatch.setattr(history_questions, "ANSWER_S", 3600.0)
    with pytest.raises(BusUnavailable, match="does not answer") as caught:
        await page(HistoryQuestions(bus))
    assert without_history(caught.value)  # lists go on without it


async def test_an_answer_that_takes_long_is_waited_for_while_the_process_says_how_far_it_is(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_how_far = asyncio.Event()
    waiting: set[asyncio.Task[None]] = set()

    async def answer_late(message: Any) -> None:
        await asked_how_far.wait()
        await message.respond(b'{"answer": {"rows": [], "next": null, "scanned": 0, "whole": true}}')

    async def answer(message: Any) -> None:
        if message.data == LAG_QUESTION:
            await message.respond(b'{"answer": null}')
            asked_how_far.set()
        else:
            waiting.add(asyncio.create_task(answer_late(message)))

    await bus.nc.subscribe(HISTORY_QUESTIONS, cb=answer)
    await bus.nc.flush()
    monkeypatch.setattr(history_questions, "LOOK_S", 0.05)
    assert await page(HistoryQuestions(bus)) == []
    assert asked_how_far.is_set()
