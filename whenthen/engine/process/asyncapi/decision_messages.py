"""The messages of `DECISIONS`. `schemas.decision_records` encodes and decodes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["DecisionsMessage"]

Count = Annotated[tuple[int, str, int], Field(description="number of the automation, reason, how many")]
Row = Annotated[
    tuple[int, str, str, int, str | None, int, str, str, str | None],
    Field(
        description="number of the automation, path of the trigger in a composite, reason, position of the event (0 for a moment), "
        "its id, time in microseconds, key, detail, id of the firing"
    ),
]


class DecisionsMessage(MessageModel):
    """What a shard decided between two commits, or a part of that."""

    batch: str
    """Names the batch; its parts have the same name, and a part that was sent twice."""
    prev: int
    """The batch of the shard that was committed before, by the sequence of its last part in `DECISIONS`; 0 without one."""
    part: int
    parts: int
    shard: int
    writer: str
    """The process that wrote it."""
    rules: int
    """The revision of the rules with which it was decided; 0 when it is not known."""
    after: int
    """The batch is about positions of `EVENTS` above this one"""
    seq: int
    """up to this one."""
    automations: list[str]
    counts: list[Count]
    """Exact, for this part; parts add up."""
    rows: list[Row]
    """Every `fired`, and of each automation and other reason the last ones of the batch."""
