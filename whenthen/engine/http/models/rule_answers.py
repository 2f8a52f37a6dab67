"""What the routes answer about sets of rules: those in force, those of before, what another set would change. Given by `answer_models`, too."""

from __future__ import annotations

from typing import Literal

from whenthen.engine.http.models.answer_base import AnswerModel

__all__ = [
    "PlannedChange",
    "Registration",
    "ReloadReport",
    "RulePlan",
    "RuleProblem",
    "RuleRevision",
    "RuleText",
    "RuleTexts",
    "RulesInForce",
]


class RuleProblem(AnswerModel):
    """One thing wrong in the rules on disk. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int
    column: int
    field: str
    message: str


class ReloadReport(AnswerModel):
    taken: bool
    """Whether another set of rules is in force now."""
    revision: str
    """The set in force."""
    problems: list[RuleProblem]
    """Why the rules on disk were refused."""


class RuleRevision(AnswerModel):
    """A set of rules that was published."""

    number: int
    current: bool
    """Whether it is the newest one, which all processes follow."""
    digest: str
    """Of the files."""
    at: str
    who: str
    host: str
    """Of the process that published it."""
    pid: int
    how: str
    """start, watch, apply, rollback or register."""
    path: str
    """Where the files were, on that host."""
    rolled_back_to: int | None = None
    """Of a rollback: the earlier revision."""
    automations: int = 0
    webhooks: int = 0
    deployments: int = 0
    notifiers: int = 0
    trouble: str | None = None
    """Why its record can not be read."""


class RuleText(AnswerModel):
    """A file of rules."""

    name: str
    text: str


class RuleTexts(AnswerModel):
    """What a revision of the rules consists of."""

    number: int
    digest: str
    files: list[RuleText]


class PlannedChange(AnswerModel):
    kind: str
    """automation, webhook, deployment, notifier, provider, work pool, source, limit or secret."""
    name: str
    change: Literal["new", "changed", "restarted", "removed"]
    """`restarted` is an automation whose trigger changed, so that it starts with no windows."""
    detail: str
    fields: list[str] = []
    """Of a changed automation: which fields changed; those of its trigger with both values."""
    windows: int | None = None
    """Of an automation that is changed, restarted or removed: how many windows are open now, 10,000 for those and more. Counted for the first 200."""


class RulePlan(AnswerModel):
    """What a set of rules would change."""

    number: int
    """The revision in force."""
    in_force: str
    """The digest of its files."""
    digest: str
    """That of the files of the plan."""
    published_before: int | None = None
    """The last revision that had these very files."""
    changes: list[PlannedChange]
    notes: list[str] = []


class Registration(AnswerModel):
    """What became of deployments that a script gave."""

    number: int
    """The revision in force."""
    changes: list[PlannedChange]
    """Of deployments and of the automations that belong to them."""
    unchanged: list[str] = []
    """Deployments that were there already, as they are."""
    notes: list[str] = []
    """What may not be meant: parameters that the function does not take, triggers that mean something else here."""


class RulesInForce(AnswerModel):
    path: str
    """Of the files of this process; empty when it has none."""
    number: int = 0
    """Of the revision; 0 while none is published."""
    revision: str
    """The digest of the files."""
    kept_since: str | None = None
    """When these rules were published, if they are older than the files, which were refused at the start."""
    files: list[str]
    automations: int
    webhooks: int
    deployments: int
    notifiers: int
