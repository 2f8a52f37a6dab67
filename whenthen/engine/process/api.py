"""What the HTTP API asks of a running process: which query or command answers what. Satisfies `engine.http.Api`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from whenthen.engine.audit import AuditLog
from whenthen.engine.backup import Backups
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.disk import DiskRoom
from whenthen.engine.execution import DeadLetters
from whenthen.engine.http import answer_models as answers
from whenthen.engine.live import LiveFeed
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.commands.action_commands import ActionCommands
from whenthen.engine.process.commands.audited import audited
from whenthen.engine.process.commands.automation_commands import AutomationCommands
from whenthen.engine.process.commands.intake import Intake
from whenthen.engine.process.commands.orphan_commands import OrphanCommands
from whenthen.engine.process.commands.registration_commands import RegistrationCommands
from whenthen.engine.process.commands.rule_commands import RuleCommands
from whenthen.engine.process.commands.rule_set_commands import RuleSetCommands
from whenthen.engine.process.commands.run_commands import RunCommands
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.observation import Observation
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.queries.action_queries import ActionQueries
from whenthen.engine.process.queries.asyncapi_query import AsyncApiQuery
from whenthen.engine.process.queries.audit_queries import AuditQueries
from whenthen.engine.process.queries.automation_queries import AutomationQueries
from whenthen.engine.process.queries.deployment_queries import DeploymentQueries
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.queries.firing_queries import FiringQueries
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.history.stream_query import StreamQuery
from whenthen.engine.process.queries.lists.automation_windows import AutomationWindows
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MergedLists
from whenthen.engine.process.queries.lists.shared_queries import SharedQueries
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.queries.lists.work_pool_queries import WorkPoolQueries
from whenthen.engine.process.queries.pages.rule_places import RulePlaces
from whenthen.engine.process.queries.pages.rule_trials import RuleTrials
from whenthen.engine.process.queries.pages.system_queries import SystemQueries
from whenthen.engine.process.queries.pages.webhook_queries import WebhookQueries
from whenthen.engine.process.queries.run_queries import RunQueries
from whenthen.engine.process.queries.stored_log import StoredLog
from whenthen.engine.process.revisions.compiled_revisions import CompiledRevisions
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.rule_reloading import RuleReloading
from whenthen.engine.process.senders.kept_refusals import KeptRefusals
from whenthen.engine.process.senders.sender_watch import SenderWatch
from whenthen.engine.process.senders.webhook_trials import WebhookTrials
from whenthen.engine.process.why.log_replay import LogReplay
from whenthen.engine.process.why.record_query import RecordQuery
from whenthen.engine.process.why.trace_query import TraceQuery
from whenthen.engine.process.why.why_query import WhyQuery
from whenthen.runs import BuiltInOrchestrator, Stores

__all__ = ["ServerApi"]


class ServerApi:
    """One process's answers. `describe` gives its status, `missing` what is not ready."""

    def __init__(
        self,
        *,
        bus: Bus,
        rule_registry: RuleRegistry,
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        pauses: AutomationPauses,
        metrics: Metrics,
        observation: Observation,
        dead_letters: DeadLetters,
        reloading: RuleReloading,
        rule_sets: RuleSetCommands,
        registrations: RegistrationCommands,
        notes: Callable[[], list[str]],
        missing: Callable[[], list[str]],
        describe: Callable[[], answers.Status],
        backups: Backups,
        revisions: CompiledRevisions,
        max_depth: int,
        shards: int,
        live: LiveFeed,
        worker_lost_after: timedelta,
        audit: AuditLog,
        disk: DiskRoom | None = None,
        redact: Callable[[str], str] = lambda text: text,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        positions, ids = EventPositions(), IdPrefixes(bus.client)
        intake = Intake(
            bus, rule_registry, positions, clock=clock, check_room=None if disk is None else disk.admit, audit=audit
        )
        self.publish = intake.publish
        self.senders = senders = SenderWatch(bus, rule_registry, metrics, clock=clock, redact=redact)
        kept = KeptRefusals(bus, rule_registry, publish=intake.publish, clock=clock, redact=redact)
        self.heard = senders.heard
        self.count_refused = senders.refused
        self.keep_refused = senders.keep
        self.list_sources = senders.list_sources
        self.list_refused = kept.list_refused
        self.try_request = WebhookTrials(rule_registry, clock=clock).try_request
        self.resend = audited(audit, "requests-resent", kept.resend, told=lambda report: f"{report.sent} sent")
        self.fetch_keys = intake.fetch_keys
        self.confirm = intake.confirm
        self.hook = intake.hook
        self.hook_names = intake.hook_names

        self.note_refusal = intake.note_refusal
        history = HistoryQuestions(bus, clock)
        lists, names = MergedLists(bus, history, clock), KnownNames(rule_registry)
        whole = WholeIds(ids, history)
        self.list_audit = AuditQueries(lists, names).list_audit
        self.history_page = history.history_page
        self.history_counts = history.history_counts
        self.history_stats = history.history_stats
        self.event_reasons = history.event_reasons
        self.action_tries = history.action_tries
        self.run_states = history.run_states
        self.list_webhooks = WebhookQueries(rule_registry).list_webhooks
        self.try_rules = RuleTrials(rule_registry).try_rules
        self._history_lag = history.lag
        self.stream = StreamQuery(live).stream
        done = partial(audited, audit)
        self.ready = missing
        self.metrics = metrics.text
        self.asyncapi = AsyncApiQuery().asyncapi
        self.reload_rules = RuleCommands(reloading).reload_rules
        self.list_revisions = rule_sets.list_revisions
        self.rule_texts = rule_sets.rule_texts
        self.plan_rules = rule_sets.plan_rules
        self.apply_rules = done("rules-applied", rule_sets.apply_rules, told=_revision, refused="rules-refused")
        self.register_deployments = done(
            "deployments-registered",
            registrations.register_deployments,
            told=lambda made: ", ".join(f"{each.name} {each.change}" for each in made.changes)[:1000],
            refused="rules-refused",
        )
        self.roll_back_rules = done(
            "rules-rolled-back", rule_sets.roll_back_rules, told=_revision, refused="rules-refused"
        )
        self.notes = notes
        self._describe = describe
        self._backups = backups

        events = EventQueries(bus, positions, ids, lists, names, whole)
        self.list_events = events.list_events
        self.get_event = events.get_event

        replay = LogReplay(bus, rule_registry, revisions, max_depth=max_depth, paused_now=pauses.changes)
        self.stored_log = StoredLog(bus, replay.position_at, paused_now=pauses.changes, clock=clock).stored_log
        self.why = WhyQuery(bus, rule_registry, replay, events).why
        self.record = RecordQuery(bus, rule_registry, replay, events, ids).record
        automations = self._automations = AutomationQueries(bus, rule_registry, pauses, observation, lists, whole)
        self.list_automations = automations.list_automations
        self.find_automations = automations.find_automations
        self.automation_names = automations.automation_names
        self.get_automation = automations.get_automation
        self.rule_source = RulePlaces(rule_registry).rule_source
        self.system_sizes = SystemQueries(bus, observation, shards=shards, disk=disk).system_sizes
        self.list_decisions = automations.list_decisions
        self.list_windows = AutomationWindows(rule_registry, lists).list_windows
        actions = ActionQueries(dead_letters, lists, names, whole, history)
        firings = FiringQueries(bus.client, lists, names, whole, actions)
        self.list_firings = firings.list_firings
        self.get_firing = firings.get_firing
        automation_commands = AutomationCommands(pauses, automations)
        self.pause_automation = done("automation-paused", automation_commands.pause_automation, told=_pause)
        self.resume_automation = done("automation-resumed", automation_commands.resume_automation)
        orphans = OrphanCommands(bus, stores.flags)
        self.list_orphans = orphans.list_orphans
        self.forget_orphans = done("windows-forgotten", orphans.forget_orphans)

        deployments = DeploymentQueries(rule_registry, stores, clock)
        runs = RunQueries(orchestrator, ids, lists, names, whole)
        self.list_deployments = deployments.list_deployments
        self.get_deployment = deployments.get_deployment
        self.list_runs = runs.list_runs
        self.get_run = runs.get_run
        self.run_logs = runs.run_logs
        self.run_log_end = runs.run_log_end
        self.list_task_runs = runs.list_task_runs
        pools = WorkPoolQueries(rule_registry, stores, orchestrator, clock, lost_after=worker_lost_after)
        self.list_work_pools = pools.list_work_pools
        self.list_workers = pools.list_workers
        self.pause_work_pool = done("work-pool-paused", pools.pause_work_pool)
        self.resume_work_pool = done("work-pool-resumed", pools.resume_work_pool)
        run_commands = RunCommands(orchestrator, deployments, runs, ids, clock)
        self.pause_deployment = done("deployment-paused", run_commands.pause_deployment)
        self.resume_deployment = done("deployment-resumed", run_commands.resume_deployment)
        self.run_deployment = done("run-started", run_commands.run_deployment, told=lambda run: run.id)
        self.plan_backfill = run_commands.plan_backfill
        self.start_backfill = done(
            "backfill-started", run_commands.start_backfill, told=lambda made: f"{made.started} runs of {made.schedule}"
        )
        self.retry_run = done("run-retried", run_commands.retry_run, told=lambda run: run.id)
        self.cancel_run = done("run-cancelled", run_commands.cancel_run)
        self.resume_run = done("run-resumed", run_commands.resume_run)
        self.pause_run = done("run-paused", run_commands.pause_run)
        self.suspend_run = done("run-suspended", run_commands.suspend_run)
        self.change_run_state = done("run-state-set", run_commands.change_run_state, told=lambda run: run.state.value)
        self.delete_run = done("run-deleted", run_commands.delete_run, told=lambda run: run.deployment)

        shared = SharedQueries(stores, rule_registry, ids, clock)
        self.list_variables = shared.list_variables
        self.get_variable = shared.get_variable
        self.set_variable = done("variable-set", shared.set_variable)
        self.unset_variable = done("variable-unset", shared.unset_variable)
        self.list_artifacts = shared.list_artifacts
        self.get_artifact = shared.get_artifact
        self.list_limits = shared.list_limits
        self.lease_slots = shared.lease_slots
        self.renew_lease = shared.renew_lease
        self.release_lease = shared.release_lease

        self.trace = TraceQuery(bus, orchestrator, ids, events, shards=shards).trace

        self.list_actions = actions.list_actions
        self.get_action = actions.get_action
        self.count_dead = actions.count_dead
        action_commands = ActionCommands(dead_letters, ids, rule_registry)
        self.redrive_action = done("action-redriven", action_commands.redrive_action)
        self.drop_action = done("action-dropped", action_commands.drop_action)

    async def backup(self) -> AsyncGenerator[bytes, None]:
        return self._backups.start()

    async def status(self) -> answers.Status:
        found = {
            "set_aside": await self._automations.set_aside(),
            "history": await self._history_lag(),
            "never_heard": self.senders.never_heard(),
        }
        return self._describe().model_copy(update=found)


def _pause(state: answers.AutomationState) -> str:
    if state.pause is None:
        return ""
    parts = (("until", state.pause.until), ("by", state.pause.by), ("reason", state.pause.reason))
    return "; ".join(f"{name}={value}" for name, value in parts if value)


def _revision(made: answers.RuleRevision) -> str:
    return f"revision {made.number}" + (f" by {made.who}" if made.who else "")
