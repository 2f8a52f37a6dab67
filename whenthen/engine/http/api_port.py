"""What the HTTP API needs from the rest of the process. The wiring implements it; tests have a fake.

Every method that names a thing raises `NotFound` when there is none, and any may raise `BusUnavailable`, which is answered
503.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from whenthen.engine.bus.connection import Ack
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models import why_models
from whenthen.engine.http.models.request_models import (
    Listing,
    Page,
    PauseRequest,
    RegistrationRequest,
    RollbackRequest,
    RuleSetRequest,
    RunRequest,
)
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import Event
from whenthen.schemas.webhooks import RateLimit
from whenthen.sources import Request, Translation

__all__ = ["Api", "Hook", "LiveStream"]


class LiveStream(Protocol):
    """What a client is shown of what happens."""

    def frames(self) -> AsyncIterable[bytes]:
        """Server-sent events, until the process ends."""

    def close(self) -> None:
        """The client is gone; called in any case, and waits for nothing."""


class Hook(Protocol):
    """A webhook in force."""

    @property
    def methods(self) -> Collection[str]:
        """The methods that its sender uses, POST or others."""

    @property
    def rate_limit(self) -> RateLimit | None:
        """How often one source may call it."""

    @property
    def body_limit(self) -> int | None:
        """The most bytes of a body; None where the server's own limit counts."""

    @property
    def needs_keys(self) -> bool:
        """Whether requests to it are verified by public keys."""

    def check_head(self, request: Request, now: datetime) -> None:
        """Refuse a request that its headers alone show to be nobody's, before its body is read. Raises as `translate`."""

    def translate(self, request: Request, now: datetime) -> Translation:
        """Verify a request and translate it. Raises Refused (its `status`), UnsupportedMediaType, InvalidInput."""


class Api(Protocol):
    """Everything that a request can ask for."""

    # in

    async def publish(self, event: Event) -> Ack:
        """Store one event; returns once JetStream acknowledged it. Raises BusUnavailable, InvalidEvent (too large)."""

    def hook(self, name: str) -> Hook | None:
        """A webhook in force; None when none is named so."""

    async def fetch_keys(self, webhook: str, request: Request) -> None:
        """Fetch the public keys that a request needs and that are not at hand; one that can not be fetched is left out."""

    def confirm(self, webhook: str, asked: Translation) -> None:
        """A verified request asks for a subscription to be confirmed; done beside it, where the webhook wants that."""

    def heard(self, webhook: str) -> None:
        """A webhook took a request."""

    def keep_refused(self, webhook: str, request: Request, error: InvalidInput) -> None:
        """A request whose proof held did not fit its webhook."""

    def count_refused(self, webhook: str, reason: str) -> None:
        """A webhook refused a request."""

    async def list_sources(self) -> list[answers.SourceItem]:
        """What brings events in."""

    async def list_refused(self, source: str | None, limit: int, before: int | None) -> list[answers.RefusedItem]:
        """Refused requests and messages that are kept, newest first."""

    async def resend(
        self, source: str | None = None, only: str | None = None, before: int | None = None
    ) -> answers.ResendReport:
        """Read what is kept again."""

    async def try_request(self, webhook: str, request: Request) -> answers.TriedRequest:
        """What a webhook would make of a request. Raises NotFound, InvalidInput."""

    def note_refusal(self, source: str, reason: str, detail: str, who: str) -> None:
        """A request was refused; `who` is the address that it came from."""

    def hook_names(self) -> Collection[str]:
        """Names of the webhooks in force."""

    # state of the process

    def ready(self) -> list[str]:
        """What is missing before requests can be served; empty when the process is ready."""

    def metrics(self) -> bytes:
        """Prometheus' text form."""

    async def asyncapi(self) -> bytes:
        """The AsyncAPI document of all subjects and messages, as JSON."""

    async def status(self) -> answers.Status:
        """What runs, on which rules, and the problems of a set that was refused."""

    async def system_sizes(self) -> answers.SystemSizes:
        """How full the streams are, and how far the shards."""

    async def backup(self) -> AsyncGenerator[bytes, None]:
        """Everything that is stored, as one file. Raises Conflict."""

    async def stored_log(self, since: str | None, until: str | None) -> AsyncGenerator[bytes, None]:
        """The stream of events as lines of a replay. Raises InvalidInput, Conflict."""

    async def reload_rules(self) -> answers.ReloadReport:
        """Read the rules now."""

    async def list_revisions(self) -> list[answers.RuleRevision]:
        """The revisions of the rules that are kept, newest first."""

    async def rule_texts(self, number: int) -> answers.RuleTexts:
        """The files of a revision. Raises NotFound."""

    async def plan_rules(self, request: RuleSetRequest) -> answers.RulePlan:
        """What a set of rules would change. Raises InvalidRules, Conflict (the server has no files)."""

    async def apply_rules(self, request: RuleSetRequest) -> answers.RuleRevision:
        """Publish a set of rules. Raises InvalidRules, Conflict (another revision is the current one)."""

    async def register_deployments(self, request: RegistrationRequest) -> answers.Registration:
        """Make deployments of a script part of the rules, or take some out. Raises InvalidInput, Conflict (somebody else has a name),
        NotFound."""

    async def roll_back_rules(self, number: int, request: RollbackRequest) -> answers.RuleRevision:
        """Publish the rules of an earlier revision. Raises NotFound, Conflict."""

    def notes(self) -> list[str]:
        """What people should know, and what does not keep the process from its work."""

    # lists

    async def list_events(self, page: Page) -> list[answers.StoredEvent]:
        """Stored events, newest first. Filters: event, source, resource (globs)."""

    async def get_event(self, event_id: str) -> answers.StoredEvent: ...

    async def list_automations(self, after: str | None) -> Listing[answers.AutomationSummary]:
        """Those behind the named one, as many as an answer holds."""

    async def find_automations(
        self, *, text: str, state: str, tag: str, skip: int, limit: int
    ) -> answers.FoundAutomations:
        """Those whose name or description has `text`, in a state and with a tag where these are given; in trouble first."""

    async def automation_names(self, most: int) -> list[str]:
        """The first names of automations, without anything about these."""

    async def get_automation(self, name: str) -> answers.AutomationDetail: ...

    async def rule_source(self, name: str) -> answers.RuleSource | None:
        """Where an automation is written. Raises NotFound."""

    async def list_decisions(self, automation: str, page: Page) -> list[answers.DecisionItem]:
        """Filters: reason."""

    async def list_windows(self, automation: str, page: Page) -> list[why_models.AutomationWindow]:
        """Its windows, the last changed first. Raises NotFound."""

    async def why(
        self, automation: str, *, event: str | None = None, key: Mapping[str, str] | None = None, at: str | None = None
    ) -> why_models.WhyReport:
        """Why it fired for an event, or for a key at a moment, or did not. Raises NotFound, InvalidInput."""

    async def trace(self, wanted: str) -> why_models.TraceReport:
        """What led to what, back and forward from any id. Raises NotFound."""

    async def record(
        self, *, firing: str | None = None, automation: str | None = None, event: str | None = None
    ) -> why_models.RecordedTestItem:
        """What happened, as a test of rules. Raises NotFound, InvalidInput."""

    async def list_firings(self, page: Page) -> list[answers.FiringSummary]:
        """Filters: automation."""

    async def get_firing(self, firing_id: str) -> answers.FiringDetail: ...

    async def list_deployments(self, after: str | None) -> Listing[answers.DeploymentSummary]:
        """As `list_automations`."""

    async def get_deployment(self, name: str) -> answers.DeploymentDetail: ...

    async def list_work_pools(self, after: str | None) -> Listing[answers.WorkPoolState]:
        """As `list_automations`."""

    async def list_workers(self, after: str | None) -> Listing[answers.WorkerState]:
        """As `list_automations`."""

    async def list_runs(self, page: Page) -> Listing[answers.FlowRunDetail]:
        """Filters: deployment, state, work_pool."""

    async def get_run(self, run_id: str) -> answers.FlowRunDetail: ...

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> answers.LogPage: ...

    async def run_log_end(self, run_id: str, *, limit: int) -> answers.LogPage:
        """The last lines of its log."""

    async def list_task_runs(self, run_id: str, *, after: int, limit: int) -> answers.TaskRunList: ...

    async def list_variables(self, after: str | None) -> Listing[answers.VariableItem]:
        """As `list_automations`."""

    async def get_variable(self, name: str) -> answers.VariableItem: ...

    async def list_artifacts(self, page: Page) -> Listing[answers.ArtifactItem]:
        """The last changed first. Filters: run, key."""

    async def get_artifact(self, artifact_id: str) -> answers.ArtifactItem:
        """By its id, or the newest of a key."""

    async def list_limits(self) -> list[answers.NamedLimitItem]:
        """The named limits of the rules, by name."""

    async def list_actions(self, page: Page) -> list[answers.ActionState]:
        """Filters: automation, type, outcome (`dead` for dead letters)."""

    async def get_action(self, key: str) -> answers.ActionState: ...

    async def count_dead(self, automation: str | None) -> answers.DeadLetterCount:
        """How many dead letters there are, of one automation or of all."""

    async def list_audit(self, page: Page) -> list[why_models.AuditItem]:
        """Who did what, newest first. Filters: kind, who, what (globs)."""

    async def history_page(
        self,
        kind: str,
        *,
        equal: Mapping[str, str],
        labels: Mapping[str, str],
        since: str | None,
        until: str | None,
        more: Mapping[str, Any],
    ) -> answers.HistoryPage:
        """What happened, newest first; `more` is what else the routes take (`id_prefix`, `related`, `text`, `before`, `limit`).
        Raises InvalidInput."""

    async def history_counts(
        self, kind: str, *, equal: Mapping[str, str], by: str | None, since: str | None, until: str | None, step: str
    ) -> list[answers.HistoryCount]:
        """How many of a kind there were in each step. Raises InvalidInput."""

    async def history_stats(self) -> answers.HistoryStats: ...

    async def event_reasons(self, events: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many decisions of each reason the history has of each of these events."""

    async def action_tries(self, key: str) -> list[dict[str, Any]]:
        """The tries of an action that the history has, the first one first."""

    async def run_states(self, run_id: str) -> list[dict[str, Any]]:
        """The states that a run entered, as the history has them, the first one first."""

    async def list_webhooks(self) -> list[answers.WebhookItem]:
        """Those of the rules in force, by name."""

    async def try_rules(self, rules: str, events: str, *, follow: bool) -> answers.TriedRules:
        """What rules would do for events, in a process of its own that touches nothing. Raises Conflict (others are being tried)."""

    async def stream(
        self,
        kinds: Sequence[str],
        *,
        equal: Mapping[str, str],
        labels: Mapping[str, str],
        related: str,
        id_prefix: str,
        text: str,
        last_id: str | None,
    ) -> LiveStream:
        """What happens from now on, or behind `last_id`. Raises InvalidInput."""

    # changes

    async def pause_automation(self, name: str, request: PauseRequest) -> answers.AutomationState: ...

    async def resume_automation(self, name: str) -> answers.AutomationState: ...

    async def list_orphans(self) -> list[answers.Orphan]: ...

    async def forget_orphans(self, name: str) -> list[answers.Orphan]:
        """Forget the windows of an automation that is not in the rules, by its name or its trigger's id; which they are."""

    async def pause_deployment(self, name: str, schedule: str | None) -> answers.DeploymentDetail: ...

    async def resume_deployment(self, name: str, schedule: str | None) -> answers.DeploymentDetail: ...

    async def run_deployment(
        self, name: str, request: RunRequest, trace: dict[str, str] | None
    ) -> answers.FlowRunDetail:
        """Start a run, which becomes part of `trace`; two calls with one key give one run."""

    async def pause_work_pool(self, name: str) -> answers.WorkPoolState: ...

    async def resume_work_pool(self, name: str) -> answers.WorkPoolState: ...

    async def plan_backfill(self, name: str, schedule: str | None, since: str, until: str) -> answers.BackfillState:
        """Changes nothing. Raises InvalidInput, NotFound."""

    async def start_backfill(
        self, name: str, schedule: str | None, since: str, until: str, expected: int | None
    ) -> answers.BackfillState:
        """Raises InvalidInput, NotFound, Conflict."""

    async def retry_run(self, run_id: str) -> answers.FlowRunDetail:
        """The new run. Raises NotFound, Conflict."""

    async def cancel_run(self, run_id: str) -> answers.FlowRunDetail: ...

    async def resume_run(self, run_id: str, given: Any, since: str | None) -> answers.FlowRunDetail:
        """`since` is that of the pause which is meant. Raises NotFound, InvalidInput (the input does not fit), Conflict (it waits for nobody,
        at another pause, or it is too late)."""

    async def pause_run(self, run_id: str) -> answers.FlowRunDetail:
        """Raises NotFound, Conflict (it does not run, or knows of no pauses)."""

    async def suspend_run(self, run_id: str, lasts: timedelta | None) -> answers.FlowRunDetail:
        """Raises NotFound, Conflict."""

    async def change_run_state(self, run_id: str, state: str, message: str) -> answers.FlowRunDetail:
        """Raises NotFound, InvalidInput, Conflict."""

    async def delete_run(self, run_id: str) -> answers.FlowRunDetail:
        """The run as it was. Raises NotFound, Conflict (it has not ended)."""

    async def set_variable(self, name: str, wanted: answers.VariableRequest) -> answers.VariableItem:
        """Raises InvalidInput, Conflict."""

    async def unset_variable(self, name: str) -> answers.Unset: ...

    async def lease_slots(self, wanted: answers.LeaseRequest) -> answers.LeaseAnswer:
        """Slots for a time, or when to ask again. Raises InvalidInput."""

    async def renew_lease(self, lease: str) -> answers.LeaseAnswer: ...

    async def release_lease(self, lease: str) -> answers.LeaseAnswer: ...

    async def redrive_action(self, key: str, *, new_key: bool) -> answers.Redriven:
        """Give a dead action new attempts, by the rule of today; under a new idempotency key when `new_key`."""

    async def drop_action(self, key: str) -> answers.Redriven:
        """Give a dead action up."""
