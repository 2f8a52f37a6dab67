"""The result of one call of an evaluator, and how decisions are recorded in it: always counted, listed on request.

Called by the modules that decide: `triggers.evaluator`, `triggers.windowing`, `triggers.buckets`, `triggers.deadlines` and
`triggers.firing_outcomes`. The reasons are in `schemas.firings`. Meaning: docs/rules.md, "Decisions".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing, Reason
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.trees.trigger_nodes import Composite, Leaf

__all__ = ["Evaluation", "Stopped", "record_decision"]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A firing that was not made because the chain of firings that led to its event is too long."""

    automation: str
    event: Event
    depth: int


@dataclass(slots=True)
class Evaluation:
    """The firings, decisions and stopped chains of one call, and what became of absent triggers, in sentences."""

    firings: list[Firing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    orphan_notes: list[str] = field(default_factory=list)


def record_decision(
    shard: ShardState,
    evaluation: Evaluation,
    node: Leaf | Composite,
    reason: Reason,
    event: Event | None,
    *,
    key: str = "",
    detail: str = "",
    firing: str | None = None,
) -> None:
    """Count a decision of a node, and list it if the shard records decisions. `event` is None for a deadline."""
    name = node.automation.name
    counted = (name, reason)
    shard.counts[counted] = shard.counts.get(counted, 0) + 1
    if shard.record:
        evaluation.decisions.append(
            Decision(
                automation=name,
                reason=reason,
                at_us=shard.clock_us,
                event=None if event is None else event.data["id"],
                seq=0 if event is None else event.seq,
                path=node.path,
                key=key,
                detail=detail,
                firing=firing,
            )
        )
