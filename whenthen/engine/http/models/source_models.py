"""Sources, and refused requests that are kept: what is answered."""

from __future__ import annotations

from typing import Any

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = ["RefusedItem", "ResendReport", "SourceItem", "SourceReader", "StillRefused", "TriedRequest"]


class SourceReader(AnswerModel):
    """A process that reads a source, or tries to."""

    host: str
    process: int
    state: str
    """`reading`, `starting` or `trouble`."""
    since: str
    taken: int
    detail: str
    """What the trouble is."""


class SourceItem(AnswerModel):
    """Something that brings events in."""

    name: str
    kind: str
    """`webhook`, or the type of a source of the rules, such as `kafka`."""
    reads: str
    """The preset, `map`, or `events` where messages are events as they are."""
    proof: str
    """How requests prove who they are; empty where they do not."""
    last_heard: str | None
    """When it took a request or a message last, by any process; null when it did not in seven days."""
    taken: int
    """The requests that all processes have taken that answer requests now, each since its start; of a source the messages of all that read
    it now, each since it began."""
    refused: dict[str, int]
    """And those that were refused, of a source kept aside, by reason."""
    duplicates: int = 0
    """Of the events of a source those that were there already."""
    problems: list[str]
    """Why secrets of it can not be read, or a source is not."""
    state: str = ""
    """Of a source: `reading`, `trouble`, `starting`, or `unread` where no process reads it."""
    since: str | None = None
    """Since when."""
    readers: list[SourceReader] = []
    """The processes that read a source or try to."""


class RefusedItem(AnswerModel):
    """A refused request whose proof held, or a message that a source could make no event of, without what it holds."""

    id: str
    source: str
    """`webhook:<name>` or `source:<name>`, as events of it would say."""
    at: str
    reason: str
    field: str
    """The field at fault."""
    detail: str
    shape: str = ""
    """Names of fields and kinds of values."""
    bytes: int
    whole: bool
    """Whether it can be sent again; one that is larger than a message may be can not."""
    seq: int


class StillRefused(AnswerModel):
    """What is kept, is refused again, and stays."""

    id: str
    source: str
    detail: str


class ResendReport(AnswerModel):
    """What became of kept requests and messages that were sent again."""

    sent: int
    """Those that were taken, and are not kept any longer."""
    events: list[str]
    """Ids of the events that came of them."""
    refused: list[StillRefused]
    next: int | None = None
    """The `before` of those that are older, where there are more than 1,000."""


class TriedRequest(AnswerModel):
    """What a webhook in force would make of a request. Nothing of it is stored."""

    events: list[dict[str, Any]]
    dropped: list[str]
    """Why there was no event of it, or of a part."""
    answer: str | None
    """What a handshake is answered with."""
    proof: str
    """Why the request does not prove who it is from; empty where it does."""
