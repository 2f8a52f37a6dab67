"""Answers of the API about the history."""

from __future__ import annotations

from typing import Any, Literal

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = [
    "HistoryCount",
    "HistoryCursor",
    "HistoryKind",
    "HistoryLag",
    "HistoryPage",
    "HistoryStats",
    "HistoryTable",
]

HistoryKind = Literal["events", "decisions", "firings", "actions", "runs", "audit"]


class HistoryPage(AnswerModel):
    """What happened, newest first."""

    items: list[dict[str, Any]]
    """As they are listed elsewhere, with `stored`, when the server stored what they came from."""
    next: str | None
    """`before` of the page that follows; null at the end."""
    scanned: int
    """How many rows were looked at."""
    whole: bool
    """False: the search stopped after so many rows or bytes, and goes on at `next`."""


class HistoryCount(AnswerModel):
    """How many there were in an hour or a day."""

    at: str
    """Its beginning."""
    value: str
    """Of the field that was counted by; empty without one."""
    count: int


class HistoryTable(AnswerModel):
    """How much a table holds."""

    name: str
    rows: int
    """Of a large table as they were counted last, some minutes ago."""
    more: bool = False
    """There are more than `rows`; how many is being counted."""
    oldest: str | None
    newest: str | None


class HistoryLag(AnswerModel):
    """How far the history is behind."""

    messages: int
    """That are in the streams and not in the history."""
    seconds: float
    """The age of the oldest of them."""


class HistoryCursor(AnswerModel):
    """How far a stream is in the history."""

    stream: str
    shard: int
    taken: int
    """The last sequence that is in the history."""
    incarnation: int
    """Counts the streams that had the name."""
    at: str | None
    """When the last message was stored."""
    behind: HistoryLag | None = None
    """As it was measured last, some seconds ago at most; null before that."""


class HistoryStats(AnswerModel):
    """How much the history holds, and how far it is."""

    where: str
    bytes: int
    tables: list[HistoryTable]
    streams: list[HistoryCursor]
