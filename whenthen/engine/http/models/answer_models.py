"""What the routes answer, as models: the JSON on the wire and its schema in the OpenAPI document.

Built by the queries and commands of `engine.process`, named by `routes` and `openapi`. A field that was not set is absent from the
JSON, as its description says; every other key is always present. Those of sets of rules are in `rule_answers`, those of deployments, runs and actions in `run_answers`, those of the history in `history_models`, some of
the pages in `page_answers`, those of what runs share in `shared_models`, and are given here, too.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from whenthen.engine.http.models.answer_base import AnswerModel, Labels, Trace
from whenthen.engine.http.models.history_models import (
    HistoryCount,
    HistoryCursor,
    HistoryKind,
    HistoryLag,
    HistoryPage,
    HistoryStats,
    HistoryTable,
)
from whenthen.engine.http.models.page_answers import (
    RuleSource,
    ShardPosition,
    StreamSize,
    SystemSizes,
    TriedRules,
    WebhookItem,
)
from whenthen.engine.http.models.rule_answers import (
    PlannedChange,
    Registration,
    ReloadReport,
    RulePlan,
    RuleProblem,
    RuleRevision,
    RulesInForce,
    RuleText,
    RuleTexts,
)
from whenthen.engine.http.models.run_answers import (
    ActionState,
    ActionTry,
    BackfillState,
    DeadLetterCount,
    DeploymentDetail,
    DeploymentSummary,
    FlowRunDetail,
    LogItem,
    LogPage,
    Redriven,
    ScheduleState,
    TaskRunItem,
    TaskRunList,
    WorkerState,
    WorkPoolState,
)
from whenthen.engine.http.models.shared_models import (
    ArtifactItem,
    LeaseAnswer,
    LeaseRequest,
    NamedLimitItem,
    Unset,
    VariableItem,
    VariableRequest,
)
from whenthen.engine.http.models.source_models import (
    RefusedItem,
    ResendReport,
    SourceItem,
    SourceReader,
    StillRefused,
    TriedRequest,
)
from whenthen.schemas.firings import FiringState

__all__ = [
    "Accepted",
    "ActionState",
    "ActionTry",
    "ArtifactItem",
    "AutomationDetail",
    "AutomationState",
    "AutomationSummary",
    "BackfillState",
    "DeadLetterCount",
    "DecisionItem",
    "DeploymentDetail",
    "DeploymentSummary",
    "ErrorAnswer",
    "ErrorDetail",
    "FiringDetail",
    "FiringSummary",
    "FlowRunDetail",
    "FoundAutomations",
    "Health",
    "HistoryCount",
    "HistoryCursor",
    "HistoryKind",
    "HistoryLag",
    "HistoryPage",
    "HistoryStats",
    "HistoryTable",
    "LeaseAnswer",
    "LeaseRequest",
    "LogItem",
    "LogPage",
    "NamedLimitItem",
    "Pause",
    "PlannedChange",
    "PublishFailure",
    "Readiness",
    "Redriven",
    "RefusedItem",
    "Registration",
    "ReloadReport",
    "ResendReport",
    "RulePlan",
    "RuleProblem",
    "RuleRevision",
    "RuleSource",
    "RuleText",
    "RuleTexts",
    "RulesInForce",
    "ScheduleState",
    "ShardPosition",
    "SourceItem",
    "SourceReader",
    "Status",
    "StillRefused",
    "StoredEvent",
    "StreamSize",
    "SystemSizes",
    "TaskRunItem",
    "TaskRunList",
    "Trace",
    "TriedRequest",
    "TriedRules",
    "Unset",
    "VariableItem",
    "VariableRequest",
    "WebhookItem",
    "WorkPoolState",
    "WorkerState",
]

State = Literal["active", "paused", "disabled", "set-aside"]


# Errors


class ErrorDetail(AnswerModel):
    """What was wrong."""

    reason: str
    """A stable word, the same in logs and metrics."""
    field: str | None
    """The path of the field at fault."""
    message: str
    """What was found and the remedy."""


class ErrorAnswer(AnswerModel):
    """The form of every error, from every route."""

    error: ErrorDetail


class PublishFailure(ErrorAnswer):
    """An error while events were being stored."""

    ids: list[str] = []
    """The ids of all events of the request; send the same events with these ids again. Absent when none was given to JetStream."""
    accepted: list[str] = []
    """Those that JetStream has acknowledged. Absent as `ids` is."""


# Events in


class Accepted(AnswerModel):
    """JetStream has acknowledged every event."""

    ids: list[str]
    """Stored by JetStream."""
    duplicates: list[str]
    """Of these, stored before."""
    dropped: list[str] = []
    """What gave no event, and why; absent when nothing was dropped."""


# The process


class Health(AnswerModel):
    ok: bool


class Readiness(AnswerModel):
    ready: bool
    missing: list[str]
    """What is waited for."""
    notes: list[str] = []
    """What people should know, and what does not keep the process from its work."""


class EventSetAside(AnswerModel):
    event: str | None
    """Its id; null when it is no longer kept."""
    position: int
    """In EVENTS."""
    shard: int
    automation: str | None
    """The one that it hung at; null when that is not known."""
    reason: Literal["hung", "crashed"]
    tries: int
    """The processes that hung on it."""
    process: str
    """The last of them."""
    at: str


class Status(AnswerModel):
    version: str
    pid: int
    roles: list[str]
    address: str
    nats: str | None
    embedded: bool
    """Whether this process started its NATS server."""
    data_dir: str = ""
    """Where that server keeps its streams, and the credentials for workers of the same user; empty without one."""
    up_seconds: float
    missing: list[str]
    """What is not ready."""
    notes: list[str] = []
    """What people should know of the rules in force, such as files that are not."""
    rules: RulesInForce
    problems: list[RuleProblem]
    """Why the rules on disk were refused."""
    shards: dict[str, int]
    """The shards that this process evaluates, with the last position of EVENTS that each has dealt with."""
    shard_rules: dict[str, int] = {}
    """The revision of the rules with which each of these shards is evaluated."""
    set_aside: dict[str, str]
    """The automations that are set aside, in whichever shard, as they left what can not be stored, and why. `resume` or an edit
    of its rule has one evaluated again."""
    paused: dict[str, Pause] = {}
    """The automations that somebody has paused."""
    events_set_aside: list[EventSetAside]
    """The last events that these shards passed over, as they hung processes, newest first."""
    restarts: int
    """How often this process was started again, as it hung or ended by a defect."""
    pools: list[str]
    """The work pools whose runs this process executes."""
    secrets_missing: dict[str, list[str]] = {}
    """Why secrets of webhooks can not be read by this process, by webhook. One none of whose secrets can be read refuses every request."""
    never_heard: list[str] = []
    """Webhooks that took no request in the last seven days, at an API process."""
    history: HistoryLag | None = None
    """How far the history is behind the streams; null where no process with the role history answers."""


# Events


class StoredEvent(AnswerModel):
    """An event as the stream has it."""

    model_config = ConfigDict(extra="allow")

    id: str
    event: str
    occurred: str
    """RFC 3339."""
    received: str = ""
    source: str = ""
    resource: Labels
    related: list[Labels] = []
    payload: Any = None
    follows: str | None = None
    lineage: dict[str, Any] = {}
    """The firings that led to it; absent for an event from outside."""
    trace: Trace | None = None
    """The trace that it is part of; absent when there is none."""
    seq: int
    """Its position in the stream; `before` of the next page."""


# Automations


class DecisionItem(AnswerModel):
    at: str
    reason: str
    """`fired`, or why it did not."""
    event: str | None
    """The id; null for a decision of time alone."""
    path: str
    """Which trigger of a composite; empty for the root."""
    key: str
    """The window's key as text."""
    detail: str
    """The clause and the value that decided."""
    firing: str | None
    seq: int
    """The event's position in the stream; 0 for a decision of time alone."""
    rules: int
    """The revision of the rules with which it was decided; 0 when it is not known."""


class Pause(AnswerModel):
    """Why an automation is paused, and until when."""

    since: str
    until: str | None
    """When it is resumed by itself; null: when somebody resumes it."""
    reason: str
    by: str
    """Who paused it: as they said, or `automation NAME`."""


class AutomationState(AnswerModel):
    name: str
    state: State
    pause: Pause | None = None
    """Where somebody has paused it, also when it is disabled or set aside besides."""


class Orphan(AnswerModel):
    """Windows of a trigger that is not in the rules."""

    trigger: str
    """Its id."""
    automation: str | None
    """The automation's name; null when no process that has seen the windows knew it."""
    keys: int
    bytes: int
    since: str
    """By the time of the events."""


class AutomationSummary(AutomationState):
    trigger: str
    """The type of the trigger."""
    actions: list[str]
    """The types of the actions, those of its edges among them."""
    fired: int
    """Firings so far, whichever process made them; seconds old of a shard that another process evaluates."""
    last_fired: str | None
    """When it was decided, not when its event occurred."""
    tags: list[str]
    description: str


class FoundAutomations(AnswerModel):
    """Automations that fit filters."""

    items: list[AutomationSummary]
    found: int
    """How many fit the filters; `items` has some of them."""
    total: int
    """In the rules."""
    states: dict[str, int]
    """How many of all there are in each state."""


class AutomationDetail(AutomationState):
    """An automation as the rules have it, in the long form of docs/rules.md, and how it stands."""

    description: str
    enabled: bool
    tags: list[str]
    trigger: dict[str, Any]
    actions: list[dict[str, Any]]
    actions_on_trigger: list[dict[str, Any]]
    actions_on_resolve: list[dict[str, Any]]
    expected_every: str = ""
    """Such as 90s; absent without one."""
    fired: int
    """Firings so far, whichever process made them; seconds old of a shard that another process evaluates."""
    last_fired: str | None
    decided: dict[str, int]
    """How many decisions there were, by reason."""
    decisions: list[DecisionItem]
    """The last ones."""


class FiringSummary(AnswerModel):
    id: str
    automation: str
    state: FiringState
    fired: str
    """When it was decided: when NATS stored it."""
    at: str
    """The time that it is about: that of its newest event, or of the deadline that passed."""
    key: dict[str, Any]
    """The values of `for_each` or `correlate`."""
    event: str | None
    """The id of the triggering event; null when time fired it."""
    events: list[str]
    """The ids of the events that contributed; the newest 1,000 if there were more."""
    total: int
    """How many events contributed."""
    trace: Trace
    """That of the triggering event, or one of its own."""
    seq: int
    """Its position in the stream; `before` of the next page."""


class FiringDetail(FiringSummary):
    """A firing and what was done for it."""

    actions: list[ActionState]
    """How each of its actions stands, at most 1,000."""
