"""What one call of an evaluator concluded, and how each decision gets into it: counted in any case, listed if asked for.

Called by whatever decides: `triggers.evaluator`, `triggers.windowing`, `triggers.buckets`, `triggers.deadlines` and
`triggers.firing_outcomes`. The reasons are in `schemas.firings`. Meaning: docs/rules.md, "Decisions".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from whenthen.schemas import Decision, Event, Firing, Reason
from whenthen.triggers.rule_set import Composite, Leaf
from whenthen.triggers.shard_state import ShardState

__all__ = ["Evaluation", "Stopped", "note"]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A firing that was not made because too many firings led to it."""

    automation: str
    event: Event
    depth: int


@dataclass(slots=True)
class Evaluation:
    """What one call concluded."""

    firings: list[Firing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)


def note(
    shard: ShardState,
    outcome: Evaluation,
    node: Leaf | Composite,
    reason: Reason,
    event: Event | None,
    *,
    key: str = "",
    detail: str = "",
    firing: str | None = None,
) -> None:
    """Count a decision of a node, and list it when decisions are listed. `event` is None when a moment led to it."""
    name = node.automation.name
    counted = (name, reason)
    shard.counts[counted] = shard.counts.get(counted, 0) + 1
    if shard.record:
        outcome.decisions.append(
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
