"""The messages of `ENGINE`. `engine.bus.records` encodes and decodes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, RootModel

from whenthen.engine.process.asyncapi.event_messages import EventMessage, MessageModel, TraceContext
from whenthen.schemas.firings import FiringState

__all__ = [
    "ActionSpecMessage",
    "ActionTaskMessage",
    "DeadLetterMessage",
    "FiringMessage",
    "OffsetLine",
    "PreparedPack",
    "ProbeMessage",
    "ShardPosition",
    "WindowLine",
    "WindowPart",
]

EventReference = Annotated[
    tuple[str, int, int], Field(description="id, position in EVENTS (0 without one), time in microseconds")
]


class ShardPosition(MessageModel):
    """How far a shard has evaluated `EVENTS`."""

    seq: int
    """The last position that is dealt with."""
    clock_us: int
    """The evaluator's clock there."""
    commit: str
    writer: str
    prepared: int
    """Packs of a commit that is larger than an atomic batch."""
    applied: int
    """How many of them are applied."""
    rules: int = 0
    """The revision of the rules that is in force there; offsets of earlier versions do not say it."""
    uncounted: bool = False
    """Whether firings were stored after the record of their numbers, the window of `@fired`."""
    decisions: int = 0
    """The last batch of decisions that is committed, by its sequence in `DECISIONS`."""
    decisions_from: int = 0
    """Batches after this sequence may not be in the shard's records of its decisions yet."""


class OffsetLine(RootModel[tuple[int, ShardPosition]]):
    """The format that a reader has to know, and the position. Behind this line, after a line feed, the changes of a small commit,
    packed. In format 1 the line was the position alone."""


class WindowLine(RootModel[tuple[str, str]]):
    """The trigger and the key of a window. Behind this line, after a line feed, its state."""


class WindowPart(RootModel[bytes]):
    """A line with the generation of a window that is larger than a message, and behind it a slice of the window. The window's own
    message then starts with `{"parts": 3, "of": "<generation>", "bytes": 2000000}`, and the first slice follows."""


class PreparedPack(RootModel[bytes]):
    """Several messages of a commit in one: for each three 32-bit numbers (seconds to live, length of the subject, length of the
    data), the subject and the data."""


class ProbeMessage(RootModel[bytes]):
    """A copy of another message's data, or a single byte."""


class FiringMessage(MessageModel):
    """A decision to act."""

    id: str
    automation: str
    state: FiringState
    at: str
    key: dict[str, Any]
    """The values of `for_each` or `correlate`."""
    event: EventMessage | None
    """The triggering event; null when time fired it, or when it is too large to be copied."""
    by_seq: bool
    """Whether the event has to be read from EVENTS, at `seq`."""
    seq: int
    refs: list[EventReference]
    """The contributing events, oldest first; the newest 1,000 if there were more."""
    total: int = 0
    """How many contributing events there were; a firing of an earlier version names all and does not say so."""
    depth: int
    automations: list[str]
    edge: bool
    """Whether the state changed with it."""
    trace: TraceContext | None = None
    """Of the triggering event; absent when it has none."""
    computed: dict[str, str] | None = None
    """The labels that the trigger's `let` gave the triggering event, which is here as it came; absent when it has none."""


class ActionTaskMessage(MessageModel):
    """An action that waits. It is deleted when its last try has ended."""

    key: str
    """The idempotency key, `<firing id>.<index>`."""
    index: int
    firing: FiringMessage
    type: str = ""
    """Of the action, for people."""
    digest: str = ""
    """Names the specification of the action, in `KV_WT_specs`; tasks of the first versions have none."""
    action: dict[str, Any] | None = None
    """The specification, in tasks of earlier versions. Performed only when it is a published one."""
    extra: dict[str, Any]


class ActionSpecMessage(MessageModel):
    """The specification of an action in the long form of the rules, with the fields of its type."""

    model_config = ConfigDict(extra="allow")

    type: str


class DeadLetterMessage(MessageModel):
    """An action that used up its attempts."""

    task: ActionTaskMessage
    error: str
    reason: str
    attempts: int
    at: str
