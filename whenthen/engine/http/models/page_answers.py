"""Answers that the pages ask for and no route of `/api` has: where a rule is written, how full the streams are."""

from __future__ import annotations

from typing import Any

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = ["RuleSource", "ShardPosition", "StreamSize", "SystemSizes", "TriedRules", "WebhookItem"]


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
    """Events that it has still to read."""
    exact: bool
    """Whether `behind` is what its process says; otherwise it is all positions that were stored since, of which not each has an event for it."""


class SystemSizes(AnswerModel):
    """How full and how far things are, as NATS has it."""

    streams: list[StreamSize]
    shards: list[ShardPosition]
    disk_free: int | None
    """In bytes; null where the NATS server is on a disk of others."""
    disk_reserve: int


class WebhookItem(AnswerModel):
    """A webhook of the rules in force."""

    name: str
    path: str
    preset: str
    """The provider; empty where the rules have a mapping."""
    proof: str
    """How requests prove who they are: hmac, bearer, basic, that of the provider, or none."""
    rate_limit: str
    """Such as 100/1m; empty without one."""
    methods: list[str]


class TriedRules(AnswerModel):
    """What came of rules that were tried. With problems there is nothing else."""

    problems: list[str] = []
    warnings: list[str] = []
    fired: int = 0
    """How many firings there are, also those that are not shown."""
    firings: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    clauses: list[dict[str, Any]] = []
    """The tree of clauses of each step's event and each automation."""
    more: int = 0
    """Firings and decisions that are not shown."""
