"""Sources, and refused requests that are kept: what is answered."""

from __future__ import annotations

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = ["RefusedItem", "ResendReport", "SourceItem", "StillRefused"]


class SourceItem(AnswerModel):
    """Something that brings events in."""

    name: str
    kind: str
    """`webhook`, or the type of a source of the rules, such as `kafka`, of which the metrics of its process say more."""
    reads: str
    """The preset, or `map`."""
    proof: str
    """How requests prove who they are; empty where they do not."""
    last_heard: str | None
    """When it took a request last, by any process; null when it did not in seven days."""
    taken: int
    """Requests that the process that answers has taken since its start."""
    refused: dict[str, int]
    """And those that it refused, by reason."""
    problems: list[str]
    """Why secrets of it can not be read."""


class RefusedItem(AnswerModel):
    """A refused request whose proof held, without what it holds."""

    id: str
    webhook: str
    at: str
    reason: str
    field: str
    """The field at fault."""
    detail: str
    bytes: int
    whole: bool
    """Whether it can be sent again; one that is larger than a message may be can not."""
    seq: int


class StillRefused(AnswerModel):
    """A kept request that is refused again, and stays."""

    id: str
    webhook: str
    detail: str


class ResendReport(AnswerModel):
    """What became of kept requests that were sent again."""

    sent: int
    """Those that were taken, and are not kept any longer."""
    events: list[str]
    """Ids of the events that came of them."""
    refused: list[StillRefused]
