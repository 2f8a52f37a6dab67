"""The questions about the history. `engine.process.queries.history` asks them, `engine.projection.history_service` answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, RootModel

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["CountsQuestion", "HistoryQuestion", "LagQuestion", "PageFilters", "PageQuestion", "StatsQuestion"]


class PageFilters(MessageModel):
    """What a page shows, newest first."""

    kind: str
    """`events`, `decisions`, `firings`, `actions`, `runs` or `audit`."""
    equal: dict[str, str] = Field(default_factory=dict)
    """By field of the kind; `name` of events may be a glob."""
    id_prefix: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    """Of the resource of events."""
    related: str = ""
    """The id of a related resource of events."""
    about: dict[str, str] = Field(default_factory=dict)
    """Of documents, texts or globs."""
    key_parts: dict[str, str] = Field(default_factory=dict)
    """Of the keys of firings."""
    since_us: int | None = None
    """Microseconds since 1970."""
    until_us: int | None = None
    """Exclusive."""
    text: str = ""
    before: str = ""
    """The `next` of the page before, or a sequence of `stream`."""
    limit: int = 50
    stream: str = ""
    """The answer says how far this one is in the history."""


class PageQuestion(MessageModel):
    """A page of what happened."""

    ask: Literal["page"]
    query: PageFilters


class CountsQuestion(MessageModel):
    """How many there were in each step."""

    ask: Literal["counts"]
    kind: str
    equal: dict[str, str] | None = None
    by: str | None = None
    """A field of the kind."""
    since_us: int
    until_us: int
    step_hours: int = 1


class ReasonsQuestion(MessageModel):
    """How many decisions of each reason there are about events."""

    ask: Literal["reasons"]
    events: list[str]


class PartsQuestion(MessageModel):
    """What belongs to one thing: the tries of an action, or the states of a flow run."""

    ask: Literal["parts"]
    of: Literal["tries", "states"]
    id: str


class StatsQuestion(MessageModel):
    """How much the history holds, and how far it is."""

    ask: Literal["stats"]


class LagQuestion(MessageModel):
    """How far the history is behind, as it was measured last."""

    ask: Literal["lag"]


class HistoryQuestion(
    RootModel[PageQuestion | CountsQuestion | ReasonsQuestion | PartsQuestion | StatsQuestion | LagQuestion]
):
    """A question about the history."""
