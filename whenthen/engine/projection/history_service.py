"""Answers questions about the history over NATS: any process asks, one that has the database answers.

A question is JSON: `{"ask": "page", "query": {...}}` with the fields of `HistoryQuery`, `{"ask": "counts", ...}` with those of
`HistoryReader.counts`, `{"ask": "reasons", "events": [...]}`, `{"ask": "parts", "of": "tries" or "states", "id": ...}`, `{"ask": "stats"}`, or `{"ask": "lag"}`, which is answered from what was measured last. The answer is `{"answer": ...}`, or `{"error": {"reason", "detail", "path"}}`.
Asked by `engine.process.queries.history.history_questions`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats.errors
import orjson
from nats.aio.msg import Msg

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.subjects import HISTORY_QUESTIONS
from whenthen.engine.projection.history_lag import HistoryLag
from whenthen.history import Database, HistoryQuery, HistoryReader, RowCounts, read_stats
from whenthen.schemas.errors import WhenthenError

__all__ = ["HistoryService"]

log = logging.getLogger(__name__)

QUEUE = "history"  #: of several processes one answers
LAG_QUESTION = b'{"ask":"lag"}'
THREADS = 2
MOST_WAITING = 32  #: questions; one more is answered that it is too busy


class HistoryService:
    """Reads from threads of its own, beside the one that writes."""

    def __init__(self, bus: Bus, database: Database, lag: HistoryLag) -> None:
        self._bus = bus
        self._database = database
        self._lag = lag
        self._reader = HistoryReader(database)
        self._rows = RowCounts(database, time.monotonic)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="history questions")
        self._waiting: set[asyncio.Task[None]] = set()
        self._questions: Mapping[str, Callable[[dict[str, Any]], Any]] = {
            "page": self._page,
            "counts": self._counts,
            "reasons": self._reasons,
            "parts": self._parts,
            "stats": self._stats,
        }

    async def run(self) -> None:
        """Answer until cancelled."""
        subscription = await self._bus.nc.subscribe(HISTORY_QUESTIONS, queue=QUEUE, cb=self._take)
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("the subscription for questions was not ended: %r", error)
            for task in list(self._waiting):
                task.cancel()

    def close(self) -> None:
        """End the threads after what they do now."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._rows.close()

    async def _take(self, message: Msg) -> None:
        if message.data == LAG_QUESTION:  # it reads no database, and is asked where one that is locked shows
            await self._answer(message, orjson.dumps({"answer": self._behind()}))
            return
        if len(self._waiting) >= MOST_WAITING:
            await self._answer(message, _error("busy", "the history has too many questions at once; ask again"))
            return
        task = asyncio.create_task(self._handle(message))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _handle(self, message: Msg) -> None:
        data = await asyncio.get_running_loop().run_in_executor(self._threads, self._found, message.data)
        if len(data) > self._bus.nc.max_payload:
            data = _error("too_large", "the answer is larger than a message of NATS; ask for fewer rows or numbers")
        await self._answer(message, data)

    async def _answer(self, message: Msg, data: bytes) -> None:
        try:
            await message.respond(data)
        except (nats.errors.Error, OSError) as error:
            log.info("a question about the history is not answered: %r", error)

    def _found(self, data: bytes) -> bytes:
        try:
            question = orjson.loads(data)
            return orjson.dumps({"answer": self._questions[question.pop("ask")](question)})
        except WhenthenError as error:
            return _error(error.reason, error.detail, error.path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _error("invalid_input", f"this is no question about the history: {error!r:.200}")

    def _page(self, question: dict[str, Any]) -> dict[str, Any]:
        query = HistoryQuery(**question["query"], most_bytes=self._bus.nc.max_payload // 2)
        return dataclasses.asdict(self._reader.page(query))

    def _counts(self, question: dict[str, Any]) -> list[tuple[int, str, int]]:
        return self._reader.counts(question.pop("kind"), **question)

    def _reasons(self, question: dict[str, Any]) -> list[tuple[str, str, int]]:
        return self._reader.event_reasons(question["events"])

    def _parts(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        parts = {"tries": self._reader.tries, "states": self._reader.states}
        return parts[question["of"]](question["id"])

    def _stats(self, _: dict[str, Any]) -> dict[str, Any]:
        found = dataclasses.asdict(read_stats(self._database, self._rows.count))
        behind = self._lag.now()
        for cursor in found["cursors"]:
            cursor["behind"] = behind.get((cursor["stream"], cursor["shard"]))
        return found

    def _behind(self) -> tuple[int, float] | None:
        """Messages and seconds, of all streams; None before they were measured."""
        found = self._lag.now().values()
        return (sum(messages for messages, _ in found), max(seconds for _, seconds in found)) if found else None


def _error(reason: str, detail: str, path: tuple[str | int, ...] = ()) -> bytes:
    return orjson.dumps({"error": {"reason": reason, "detail": detail, "path": list(path)}})
