"""Tests of rules as they are written in `*.test.yaml`: events at times, expected firings and non-firings.

    tests:
      - name: three failures page once
        steps:
          - {at: 0s, event: job.failed, resource: {id: job-7}}
          - {at: 20s, event: job.failed, resource: {id: job-7}}
          - {at: 40s, event: job.failed, resource: {id: job-7}}
          - {at: 2h}                       # no event: the clock moves
        fires:
          - {automation: pager, at: 40s, key: {id: job-7}, actions: [{type: send-notification, notifier: ops}]}
        not_fired:
          - {automation: pager, step: 1, reason: below_threshold}

Running them: `whenthen.rules.test_runner`. Meaning: docs/testing.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from whenthen.schemas.base import Document, Model, Name
from whenthen.schemas.deployments import RunState
from whenthen.schemas.firings import Reason
from whenthen.schemas.times import Duration

__all__ = ["ActionOutcome", "ExpectedFiring", "NonFiring", "RuleTest", "RuleTestFile", "TestStep"]


class TestStep(Model):
    """An event, or a request to a webhook, at a time from the start; without either the clock just moves there."""

    __test__ = False

    at: Duration
    event: str | None = None
    id: str | None = None
    resource: dict[str, str] = Field(default_factory=dict)
    """Labels; without `id` the resource is called `test`."""
    related: list[dict[str, str]] = Field(default_factory=list)
    payload: Any = None
    occurred: Duration | None = None
    """When it happened, from the start, if that is not `at` (a late event)."""
    follows: str | None = None
    webhook: Name | None = None
    """In place of `event`: a webhook of the rules, whose events come of a request with `body`, `headers`, `query` and `method`. Its proof is
    not looked at."""
    body: Any = None
    """JSON, or a text as it is."""
    headers: dict[str, str] = Field(default_factory=dict, max_length=200)
    query: dict[str, str] = Field(default_factory=dict, max_length=200)
    method: Literal["POST", "GET"] = "POST"

    @model_validator(mode="after")
    def _event_or_request(self) -> TestStep:
        if self.webhook is not None and self.event is not None:
            raise ValueError("give either `event` or `webhook`, not both")
        given = [name for name in ("body", "headers", "query") if getattr(self, name)]
        if self.webhook is None and given:
            raise ValueError(f"{', '.join(given)}: of a request; say which `webhook` it is sent to")
        given = [
            name for name in ("id", "resource", "related", "payload", "occurred", "follows") if getattr(self, name)
        ]
        if self.webhook is not None and given:
            raise ValueError(f"{', '.join(given)}: what the request becomes says it; leave it out beside `webhook`")
        return self

    @model_validator(mode="after")
    def _event_or_tick(self) -> TestStep:
        given = [
            name for name in ("id", "resource", "related", "payload", "occurred", "follows") if getattr(self, name)
        ]
        if self.event is None and self.webhook is None and given:
            raise ValueError(f"a step without `event` moves the clock only; it has {', '.join(given)}")
        return self


class ExpectedFiring(Model):
    """A firing that must be; fields that are left out are not looked at."""

    automation: Name
    at: Duration | None = None
    """From the start."""
    state: Literal["Triggered", "Resolved"] = "Triggered"
    step: int | None = Field(default=None, ge=0)
    """The step whose event it fires for, from 0."""
    key: dict[str, Any] | None = None
    events: list[int | None] | None = None
    """The steps of all contributing events; null for one that came back of an action."""
    actions: list[dict[str, Any]] | None = None
    """The actions, rendered, in order; each with the fields that are given here."""
    partial: bool = False
    """There may be further actions, and further items inside the mappings that are given."""


class NonFiring(Model):
    """Something that must not fire: the automation at all, or for the event of one step, for this reason."""

    automation: Name
    step: int | None = Field(default=None, ge=0)
    reason: Reason | None = None


class ActionOutcome(Model):
    """What becomes of an automation's actions, and so which events come back of them."""

    automation: Name
    action: str | None = Field(default=None, max_length=64)
    """Of this type alone, such as `run-deployment`."""
    outcome: Literal["executed", "failed"] = "executed"
    """The event is `automation.action.executed`, or `automation.action.failed` after the last attempt."""
    after: Duration = timedelta(0)
    """How long after the firing."""
    reason: str = Field(default="action_failed", min_length=1, max_length=64)
    """Of a failure."""
    run: RunState | None = None
    """Of `run-deployment`: the state that the run reaches, whose event (`flow-run.<state>`) comes, too."""

    @model_validator(mode="after")
    def _of_runs(self) -> ActionOutcome:
        if self.run is not None and (self.outcome == "failed" or self.action not in (None, "run-deployment")):
            raise ValueError("`run` is the state of a run that `run-deployment` created; the action is executed then")
        return self


class RuleTest(Model):
    """One story. Every firing of the automations that it names must be expected, and every expected one must be."""

    name: Name
    start: datetime = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    only: list[Name] = Field(default_factory=list)
    """Further automations of which every firing must be expected, beside those that `fires` and `not_fired` name."""
    steps: list[TestStep] = Field(min_length=1, max_length=10_000)
    follow: bool = False
    """Play what the actions of firings emit (`emit-event`), and the events of their `outcomes`."""
    outcomes: list[ActionOutcome] = Field(default_factory=list, max_length=1000)
    """What becomes of actions; the first one that fits an action counts. Without one an action has no outcome event."""
    fires: list[ExpectedFiring] = Field(default_factory=list)
    not_fired: list[NonFiring] = Field(default_factory=list)

    @model_validator(mode="after")
    def _in_order(self) -> RuleTest:
        if self.start.tzinfo is None:
            raise ValueError("start has no time zone; add Z or an offset")
        last = timedelta(0)
        for number, step in enumerate(self.steps):
            if step.at < last:
                raise ValueError(f"steps[{number}] is earlier than the step before it; steps go forward in time")
            last = step.at
        if self.outcomes and not self.follow:
            raise ValueError("`outcomes` are played by a test with `follow: true`")
        if not self.fires and not self.not_fired:
            raise ValueError("a test expects something: give `fires` or `not_fired`")
        for kind, items in (("fires", self.fires), ("not_fired", self.not_fired)):
            for item in items:
                if item.step is not None and item.step >= len(self.steps):
                    raise ValueError(f"{kind}: there is no step {item.step}; the last one is {len(self.steps) - 1}")
        return self


class RuleTestFile(Document):
    """One `*.test.yaml`."""

    tests: list[RuleTest] = Field(min_length=1)
