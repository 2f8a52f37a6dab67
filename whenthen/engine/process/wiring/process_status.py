"""What runs in this process, and how does it go? The answer of `GET /api/status`."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from whenthen import __version__
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.queries.automation_queries import current_pauses
from whenthen.engine.process.roles import Role
from whenthen.engine.process.rule_reloading import RuleReloading
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.engine.process.wiring.running_roles import RunningRoles

__all__ = ["process_status"]


def process_status(
    parts: ProcessParts,
    running: RunningRoles,
    reloading: RuleReloading | None,
    *,
    roles: Collection[Role],
    rules_path: Path | None,
    started: float,
    missing: Sequence[str],
    notes: Sequence[str],
    kept_since: str | None,
    restarts: int,
    secrets_missing: Mapping[str, list[str]],
) -> answers.Status:
    """The status of a process that began at `started` (Unix time)."""
    rules = parts.rule_registry.now.rules
    problems = reloading.problems() if reloading is not None else []
    evaluator = running.evaluator
    return answers.Status(
        version=__version__,
        pid=os.getpid(),
        roles=sorted(roles),
        address=running.api.address if running.api is not None else "",
        nats=",".join(parts.bus.addresses),
        embedded=parts.embedded is not None,
        data_dir="" if parts.embedded is None else str(parts.settings.data_dir.absolute()),
        up_seconds=round(time.time() - started, 1),
        missing=list(missing),
        notes=list(notes),
        rules=answers.RulesInForce(
            path="" if rules_path is None else str(rules_path),
            number=parts.rule_registry.now.number,
            revision=rules.revision,
            kept_since=kept_since if problems else None,
            files=list(rules.files),
            **rules.counts(),
        ),
        problems=[answers.RuleProblem(**problem) for problem in problems],
        shards=_by_shard(evaluator.positions() if evaluator is not None else {}),
        shard_rules=_by_shard(evaluator.revisions() if evaluator is not None else {}),
        set_aside=parts.observation.aside,
        paused=current_pauses(parts.pauses),
        events_set_aside=[
            answers.EventSetAside(
                event=skip.event,
                automation=skip.automation,
                position=skip.position,
                shard=skip.shard,
                reason="crashed" if skip.reason == "crashed" else "hung",
                tries=skip.tries,
                process=skip.process,
                at=skip.at,
            )
            for skip in parts.observation.events_aside
        ],
        restarts=restarts,
        pools=running.pools,
        secrets_missing=dict(secrets_missing),
    )


def _by_shard(numbers: Mapping[int, int]) -> dict[str, int]:
    return {str(shard): number for shard, number in numbers.items()}
