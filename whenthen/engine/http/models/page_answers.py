"""Answers that the pages ask for and no route of `/api` has: where a rule is written, how full the streams are."""

from __future__ import annotations

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = ["RuleSource", "ShardPosition", "StreamSize", "SystemSizes"]


class RuleSource(AnswerModel):
    """How an automation is written."""

    file: str
    line: int
    """Counts from 1."""
    text: str


class StreamSize(AnswerModel):
    """How full a stream is."""

    name: str
    messages: int
    bytes: int
    limit: int | None
    """In bytes; null without one."""
    oldest: str | None
    newest: str | None


class ShardPosition(AnswerModel):
    """How far a shard is."""

    shard: int
    read: int
    """The last position of EVENTS that it has dealt with."""
    behind: int
    """Positions that were stored since; not each has an event for this shard."""


class SystemSizes(AnswerModel):
    """How full and how far things are, as NATS has it."""

    streams: list[StreamSize]
    shards: list[ShardPosition]
    disk_free: int | None
    """In bytes; null where the NATS server is on a disk of others."""
    disk_reserve: int
