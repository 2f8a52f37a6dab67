"""The history, asked over NATS: of whichever process has its database (`engine.projection.history_service`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.subjects import HISTORY_QUESTIONS
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.queries.moments import time_range
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.history_rows import HOUR_US, shown_row
from whenthen.schemas.times import format_us, to_us

__all__ = ["HistoryQuestions"]

ANSWER_S = 30.0  #: that an answer is waited for
LAG_S = 2.0  #: the same for how far it is, which is in memory
LOOK_S = 3.0  #: without an answer, after which it is asked whether anybody is there
SILENT_S = 5.0  #: without an answer to that, after which nobody is
_DAY_HOURS = 24


class HistoryQuestions:
    """Answers `GET /api/history` and what is below it, by asking."""

    def __init__(self, bus: Bus, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._bus = bus
        self._clock = clock

    async def history_page(
        self,
        kind: str,
        *,
        equal: Mapping[str, str],
        labels: Mapping[str, str],
        since: str | None,
        until: str | None,
        more: Mapping[str, Any],
    ) -> answers.HistoryPage:
        """Rows of a kind, newest first. Raises InvalidInput, BusUnavailable."""
        since_us, until_us = time_range({"since": since, "until": until}, self._clock())
        found = await self.rows(
            {
                "kind": kind,
                "equal": dict(equal),
                "labels": dict(labels),
                "since_us": since_us,
                "until_us": until_us,
                **more,
            }
        )
        return answers.HistoryPage(
            items=[shown_row(row) for row in found["rows"]],
            next=found["next"],
            scanned=found["scanned"],
            whole=found["whole"],
        )

    async def rows(self, query: Mapping[str, Any]) -> Mapping[str, Any]:
        """A page as it is stored: `query` has fields of `HistoryQuery`, the answer those of `HistoryPage`. Raises InvalidInput, BusUnavailable."""
        found: Mapping[str, Any] = await self._ask({"ask": "page", "query": query})
        return found

    async def history_counts(
        self, kind: str, *, equal: Mapping[str, str], by: str | None, since: str | None, until: str | None, step: str
    ) -> list[answers.HistoryCount]:
        """How many of a kind there were in each step. Raises InvalidInput, BusUnavailable."""
        if step not in ("hour", "day"):
            raise InvalidInput(f"{step[:40]!r} is neither hour nor day", path=("step",))
        now = self._clock()
        since_us, until_us = time_range({"since": since, "until": until}, now)
        if since_us is None:
            since_us = (to_us(now) if until_us is None else until_us) - _DAY_HOURS * HOUR_US
        found = await self._ask(
            {
                "ask": "counts",
                "kind": kind,
                "equal": dict(equal),
                "by": by,
                "since_us": since_us,
                "until_us": to_us(now) + 1 if until_us is None else until_us,
                "step_hours": 1 if step == "hour" else _DAY_HOURS,
            }
        )
        return [answers.HistoryCount(at=format_us(start), value=value, count=count) for start, value, count in found]

    async def history_stats(self) -> answers.HistoryStats:
        """How much there is. Raises BusUnavailable."""
        found = await self._ask({"ask": "stats"})
        return answers.HistoryStats(
            where=found["where"],
            bytes=found["bytes"],
            tables=[
                answers.HistoryTable(
                    name=name,
                    rows=table["rows"],
                    more=table.get("more", False),
                    oldest=format_us(table["oldest_us"]) if table["oldest_us"] else None,
                    newest=format_us(table["newest_us"]) if table["newest_us"] else None,
                )
                for name, table in found["tables"].items()
            ],
            streams=[
                answers.HistoryCursor(
                    stream=cursor["stream"],
                    shard=cursor["shard"],
                    taken=cursor["taken"],
                    incarnation=cursor["incarnation"],
                    at=format_us(cursor["clock_us"]) if cursor["clock_us"] else None,
                    behind=_lag(cursor["behind"]),
                )
                for cursor in sorted(found["cursors"], key=lambda cursor: (cursor["stream"], cursor["shard"]))
            ],
        )

    async def event_reasons(self, events: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many decisions of each reason there are of each of these events. Raises BusUnavailable."""
        found: dict[str, dict[str, int]] = {}
        if events:
            for event, reason, count in await self._ask({"ask": "reasons", "events": list(events)}):
                found.setdefault(event, {})[reason] = count
        return found

    async def action_tries(self, key: str) -> list[dict[str, Any]]:
        """The tries of an action, the first one first. Raises BusUnavailable."""
        return await self._parts("tries", key)

    async def run_states(self, run_id: str) -> list[dict[str, Any]]:
        """The states that a run entered, the first one first. Raises BusUnavailable."""
        return await self._parts("states", run_id)

    async def _parts(self, of: str, id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._ask({"ask": "parts", "of": of, "id": id})
        return found

    async def lag(self) -> answers.HistoryLag | None:
        """How far the history is behind; None where nobody says so in time."""
        try:
            found = await self._requested({"ask": "lag"}, LAG_S)
        except BusUnavailable:
            return None
        return _lag(orjson.loads(found)["answer"])

    async def _ask(self, question: Mapping[str, Any]) -> Any:
        try:
            found = await self._heard(question)
        except BusUnavailable as error:
            if error.reason == BusReason.TIMEOUT:
                raise unavailable("the process that has the history does not answer", "history_silent") from error
            if error.reason != BusReason.NO_STREAM:
                raise
            why = "no process has the role history; start one, such as whenthen serve --role history"
            raise unavailable(why, "no_history") from error
        answer = orjson.loads(found)
        if "error" not in answer:
            return answer["answer"]
        error_fields = answer["error"]
        if error_fields["reason"] == "invalid_input":
            raise InvalidInput(error_fields["detail"], path=tuple(error_fields["path"]))
        raise unavailable(error_fields["detail"], f"history_{error_fields['reason']}")

    async def _heard(self, question: Mapping[str, Any]) -> bytes:
        """The answer. One that reads much may take long, but not that of a process that is stopped or hangs: it does not say how far it is, either."""
        asking = asyncio.create_task(self._requested(question, ANSWER_S))
        try:
            while not (await asyncio.wait({asking}, timeout=LOOK_S))[0]:
                try:
                    await self._requested({"ask": "lag"}, SILENT_S)
                except BusUnavailable as error:
                    if not asking.done():
                        raise error
            return await asking
        finally:
            await end_task(asking)

    async def _requested(self, question: Mapping[str, Any], timeout_s: float) -> bytes:
        found = await self._bus.client.request(HISTORY_QUESTIONS, orjson.dumps(question), timeout_s=timeout_s)
        return found.data


def _lag(found: tuple[int, float] | None) -> answers.HistoryLag | None:
    return None if found is None else answers.HistoryLag(messages=found[0], seconds=found[1])
