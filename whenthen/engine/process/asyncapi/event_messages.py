"""The messages of `EVENTS`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from whenthen.schemas.base import DocumentedModel

__all__ = [
    "ChangedPause",
    "EventMessage",
    "Lineage",
    "MessageModel",
    "PauseMessage",
    "SkipMessage",
    "SkippedEvent",
    "TraceContext",
]


class MessageModel(DocumentedModel):
    """The base of messages that no class of their own describes."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Lineage(MessageModel):
    """Which firings led to an event."""

    depth: int
    """How many there are."""
    firing: str | None
    """The id of the last one."""
    automations: list[str]
    """The automations, the last one at the end."""


class TraceContext(MessageModel):
    """A trace (W3C Trace Context)."""

    id: str
    """32 hexadecimal digits."""
    parent: str
    """16 hexadecimal digits."""
    flags: str
    """2 hexadecimal digits."""
    state: str | None = None
    """The `tracestate`; absent when there is none."""


class EventMessage(MessageModel):
    """Something that happened to a resource. Times are RFC 3339."""

    id: str
    event: str
    """The dotted name."""
    occurred: str
    received: str
    source: str
    """What brought it: `api`, `webhook:<name>`, `automation:<name>`, `flow-runs`, ..."""
    resource: dict[str, str]
    """Flat labels, with `id`."""
    related: list[dict[str, str]]
    payload: Any
    follows: str | None
    """The id of the event that came before this one."""
    lineage: Lineage | None = None
    """Absent for an event from outside."""
    trace: TraceContext | None = None
    """The trace that it is part of; absent when there is none."""


class SkippedEvent(MessageModel):
    """An event that processes hung on, and the shard that passes over it."""

    shard: int
    shards: int
    """Of the process that said so."""
    position: int
    """In EVENTS."""
    event: str | None
    """Its id; null of a tick, or of an event that is no longer kept."""
    automation: str | None
    """The one that they hung at; null when that is not known."""
    reason: Literal["hung", "crashed"]
    tries: int
    """Processes that hung on it."""
    process: str
    """The last of them: machine and process id."""
    at: str


class SkipMessage(MessageModel):
    """Says which event a shard has not evaluated and never will."""

    skip: SkippedEvent


class ChangedPause(MessageModel):
    """That somebody paused or resumed an automation."""

    automation: str
    paused: bool
    until: str
    """When a pause ends by itself; else empty."""
    version: int
    """Grows with each change of the automation; an older one says nothing."""
    was_paused: bool
    """Before."""
    was_until: str
    reason: str
    by: str


class PauseMessage(MessageModel):
    """From here on an automation is paused, or is not."""

    pause: ChangedPause
