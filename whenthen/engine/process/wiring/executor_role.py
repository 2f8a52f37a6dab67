"""The role `executor`: the loop of actions with the ports that actions use."""

from __future__ import annotations

import contextlib

from whenthen.actions import AddressPolicy, ConnectionDefaults, open_http_client
from whenthen.actions.ports import Ports
from whenthen.engine.execution import (
    ActionMetrics,
    ActionRunner,
    CircuitBreakerSettings,
    ExecutionSettings,
    Executor,
    SpecStore,
)
from whenthen.engine.process.wiring.process_parts import ProcessParts

__all__ = ["start_executor"]

TASK = "executor"


async def start_executor(parts: ProcessParts, cleanup: contextlib.AsyncExitStack) -> Executor:
    """A running executor; its `stop` lets the actions at hand finish. `cleanup` closes the connections of actions."""
    settings = parts.settings
    http_client = await cleanup.enter_async_context(
        open_http_client(
            AddressPolicy(refuse_private=settings.refuse_private),
            defaults=ConnectionDefaults(proxy=settings.action_proxy, tls=settings.action_tls),
        )
    )
    runner = ActionRunner(
        parts.bus,
        Ports(
            orchestrator=parts.orchestrator,
            events=parts.bus,
            automations=parts.pauses,
            notifiers=parts.rule_registry,
            resolve_secret=parts.secrets.resolve,
            redactor=parts.redactor,
            http=http_client,
            public_url=next(iter(settings.public_urls), None),
        ),
        parts.rule_registry.action,
        SpecStore(parts.bus.client).find,
    )
    executor = Executor(
        parts.bus,
        runner.perform,
        resolve=runner.resolve,
        describe=runner.describe,
        target=runner.target,
        settings=ExecutionSettings(
            concurrency=settings.action_concurrency,
            circuit_breaker=CircuitBreakerSettings(at_once=settings.target_concurrency),
            ack_wait_s=settings.executor_lost_after.total_seconds(),
            stop_s=settings.drain_grace.total_seconds(),
            outcome_ttl_s=int(settings.retain_outcomes.total_seconds()),
        ),
        observer=ActionMetrics(parts.metrics, parts.spans),
        hangs=parts.hangs.of_action,
        at_hand=parts.at_hand,
    )
    parts.supervisor.start(TASK, executor.run())
    return executor
