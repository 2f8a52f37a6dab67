"""The parts that all roles of a process share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from whenthen.actions.secrets import Redactor, Secrets
from whenthen.engine.audit import AuditLog
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.disk import DiskRoom
from whenthen.engine.bus.embedded import EmbeddedServer
from whenthen.engine.execution import DeadLetters, SpecStore
from whenthen.engine.hangs import HangCounts
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.observation import Observation
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.pausing.pause_log import NatsPauseLog
from whenthen.engine.process.queries.shard_records import orphan_records
from whenthen.engine.process.revisions.compiled_revisions import CompiledRevisions
from whenthen.engine.process.roles import Role
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.settings import Settings
from whenthen.engine.process.supervisor import Supervisor
from whenthen.engine.process.wiring.nats_start import NatsStart
from whenthen.engine.rule_sets import RevisionStore
from whenthen.engine.spans import Spans
from whenthen.rules import Rules
from whenthen.runs import BuiltInOrchestrator, Stores
from whenthen.supervision import AtHand

__all__ = ["ProcessParts", "build_parts"]

#: whose processes may tell the log of events that an automation is paused (deploy/nats/users.conf)
_PAUSING = frozenset({Role.API, Role.EVALUATOR, Role.EXECUTOR})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessParts:
    """Built once, when the connection stands."""

    settings: Settings
    supervisor: Supervisor
    metrics: Metrics
    redactor: Redactor
    secrets: Secrets
    bus: Bus
    stores: Stores
    embedded: EmbeddedServer | None
    disk: DiskRoom | None
    specs: SpecStore
    revision_store: RevisionStore
    revisions: CompiledRevisions
    rule_registry: RuleRegistry
    orchestrator: BuiltInOrchestrator
    pauses: AutomationPauses
    observation: Observation
    dead_letters: DeadLetters
    hangs: HangCounts
    audit: AuditLog
    spans: Spans
    at_hand: AtHand  #: notes what the event loop works on, for whoever finds it hanging


def build_parts(
    settings: Settings,
    supervisor: Supervisor,
    metrics: Metrics,
    redactor: Redactor,
    rules: Rules,
    nats: NatsStart,
    *,
    roles: Collection[Role],
    at_hand: AtHand,
    number: int,
    base: Path | None,
    specs: SpecStore,
    audit: AuditLog,
    spans: Spans,
) -> ProcessParts:
    """The shared parts over one connection, with `rules` in force, which are revision `number`. `base` is what entry points in the rules
    of revisions are relative to."""
    secrets = Secrets(redactor)
    rule_registry = RuleRegistry(rules, number=number, shards=settings.shards, resolve_secret=secrets.resolve)
    store = RevisionStore(nats.bus)

    async def orphans() -> dict[str, int]:
        return {orphan.trigger: since_us for orphan, since_us in await orphan_records(nats.bus.client)}

    def show_pauses(paused: set[str]) -> None:
        for automation in rule_registry.now.rules.automations:
            off = automation.name in paused or not automation.enabled
            metrics.paused.labels(automation.name).set(int(off))

    return ProcessParts(
        settings=settings,
        supervisor=supervisor,
        metrics=metrics,
        redactor=redactor,
        secrets=secrets,
        bus=nats.bus,
        stores=nats.stores,
        embedded=nats.embedded,
        disk=nats.disk,
        specs=specs,
        revision_store=store,
        revisions=CompiledRevisions(store, rule_registry, base=base),
        rule_registry=rule_registry,
        orchestrator=BuiltInOrchestrator(nats.stores, rule_registry),
        pauses=AutomationPauses(
            nats.stores.flags,
            rule_registry,
            changed=show_pauses,
            orphans=orphans,
            pause_log=None if _PAUSING.isdisjoint(roles) else NatsPauseLog(nats.bus),
        ),
        observation=Observation(metrics, shards=settings.shards if Role.EVALUATOR in roles else 0, spans=spans),
        dead_letters=DeadLetters(nats.bus.client, outcome_ttl_s=int(settings.retain_outcomes.total_seconds())),
        hangs=HangCounts(nats.bus),
        audit=audit,
        spans=spans,
        at_hand=at_hand,
    )
