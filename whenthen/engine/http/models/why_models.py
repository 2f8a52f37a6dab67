"""Answers of the API to why something was decided, what followed from what, and who did what."""

from __future__ import annotations

from typing import Any, Literal

from whenthen.engine.http.models.answer_base import AnswerModel
from whenthen.engine.http.models.answer_models import DecisionItem

__all__ = [
    "AuditItem",
    "AutomationWindow",
    "EventReference",
    "RecordedTestItem",
    "TraceItem",
    "TraceLink",
    "TraceReport",
    "WhyReport",
    "WindowItem",
]


class EventReference(AnswerModel):
    """An event that counts."""

    id: str
    seq: int
    at: str


class WindowItem(AnswerModel):
    """What a trigger remembers for one key."""

    path: str
    """Which trigger of a composite; empty for the root."""
    key: dict[str, Any]
    """The values of `for_each` or `correlate`; empty for the one window of a trigger without."""
    kind: str
    """sliding, absence, tumbling, collect, metric, compound, sequence, event, schedule"""
    count: int
    """How many events, or parts that fired."""
    needed: int
    """How many would do; 0 where it is no number."""
    events: list[EventReference]
    """The newest of them, at most 20."""
    opened: list[str]
    """When `after` events opened the windows that are open."""
    ends: str | None
    """When the window ends, or is looked at again."""
    quiet_until: str | None
    """The end of the cooldown."""
    parts: list[str]
    """Of a composite, the parts that fired."""


class AutomationWindow(WindowItem):
    """A window of an automation as it is stored."""

    changed: str
    """By the time of the events."""
    bytes: int
    whole: bool = True
    """Absent unless false: it is larger than a message, and what it holds is not read for a list."""
    seq: int
    """Its position in the stream."""


class WhyReport(AnswerModel):
    """Why an automation fired for an event, or did not."""

    automation: str
    event: str | None
    """The id; null for a moment."""
    seq: int
    """The event's position in the stream; 0 for a moment."""
    at: str | None
    """When it was decided, by the stream's clock."""
    key: dict[str, Any]
    reason: str
    """`fired`, why it did not, `not_expected` when no trigger looks at such an event, `not_in_rules`, or `not_evaluated`."""
    fired: bool
    firing: str | None
    rules: int
    """The revision of the rules with which it was decided; 0 when it is not known."""
    source: Literal["record", "computed"]
    """Whether the reason is on record, or was computed now from the events that are kept."""
    answer: str
    """In a sentence."""
    missing: list[str]
    """The smallest thing that would have made it fire."""
    decisions: list[DecisionItem]
    """Of all parts of the trigger; for a moment the last ones of the key."""
    clauses: dict[str, Any] | None
    """The tree of clauses with their verdicts and values."""
    before: list[WindowItem]
    after: list[WindowItem]
    notes: list[str]
    """What this answer can not know, and why."""


class RecordedTestItem(AnswerModel):
    """What happened, as a test of rules."""

    test: dict[str, Any]
    """As it stands in the list `tests` of a `*.test.yaml`."""
    passes: bool
    """Whether it passes with the rules of then."""
    rules: int
    """Their revision."""
    notes: list[str]
    """What could not be recorded, and why it does not pass."""


class AuditItem(AnswerModel):
    """Something that somebody did, or was refused."""

    at: str
    kind: str
    """`request-refused`, `rules-taken`, `rules-refused`, `automation-paused`, ..."""
    who: str
    """The address, the process or the name that it came from."""
    what: str
    """What it was about: a webhook, an automation, a revision, an action."""
    detail: str
    cause: str
    """Why it was refused: a stable word, as in errors and metrics."""
    count: int
    """How many of the same kind this stands for; more than one where there were too many to keep each."""
    seq: int


class TraceItem(AnswerModel):
    """One thing on the way from a request to its last run."""

    kind: Literal["event", "decision", "firing", "action", "run"]
    id: str
    name: str
    """Of the event, the automation, the action's type, or the deployment."""
    state: str
    at: str | None
    detail: str


class TraceLink(AnswerModel):
    """What came of what."""

    source: str
    """`kind:id`"""
    target: str


class TraceReport(AnswerModel):
    """Everything that is known around one id."""

    id: str
    """As it was found, `kind:id`."""
    trace: str | None
    """The W3C trace id that the event bears."""
    items: list[TraceItem]
    """From the first cause on."""
    links: list[TraceLink]
    cut: bool
    """Whether there is more than is shown."""
    notes: list[str]
