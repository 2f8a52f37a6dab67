"""From a window's transition to a firing: composites evaluated, firings made or stopped, Triggered states set and resolved.

`apply_transition` takes any transition of a leaf; `fire` one that fired. Firings and decisions are added to the evaluation.
Called by `triggers.windowing` and `triggers.buckets` for events and by `triggers.deadlines` for deadlines; `resolve_on` by
`triggers.evaluator`. Meaning: docs/rules.md, "Composites", "Resolving" and "Loops".
"""

from __future__ import annotations

from collections.abc import Sequence

from whenthen.schemas.events import Event
from whenthen.schemas.firings import FiringState, Reason, Ref
from whenthen.triggers.decisions import Evaluation, Stopped, record_decision
from whenthen.triggers.firing_ids import Cause, make_firing, reports_stop_of
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.trees.trigger_nodes import Composite, Leaf
from whenthen.triggers.window_keys import key_text, parse_key_text
from whenthen.triggers.windows import composite
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.transitions import Transition

__all__ = ["apply_transition", "fire", "resolve_on"]


def apply_transition(
    shard: ShardState, leaf: Leaf, key: str, transition: Transition, cause: Cause, evaluation: Evaluation
) -> None:
    """Record the decision of a transition, and fire or resolve the automation when it says so."""
    if transition.reason is Reason.FIRED:
        fire(shard, leaf, key, transition, cause, evaluation)
    elif transition.reason is Reason.RESOLVED:
        if leaf.parent is not None or not _resolve(
            shard, leaf, key, transition.refs or (), transition.total, cause, evaluation, detail=transition.detail
        ):
            record_decision(shard, evaluation, leaf, Reason.RESOLVED, cause.event, key=key, detail=transition.detail)
    else:
        record_decision(shard, evaluation, leaf, transition.reason, cause.event, key=key, detail=transition.detail)
        satisfied = transition.refs and isinstance(leaf.rule, AbsenceRule)
        if satisfied and leaf.parent is None and leaf.automation.keeps_state:
            detail = "the expected events came"
            _resolve(shard, leaf, key, transition.refs or (), transition.total, cause, evaluation, detail=detail)


def fire(
    shard: ShardState, node: Leaf | Composite, key: str, transition: Transition, cause: Cause, evaluation: Evaluation
) -> None:
    """Handle a node that fired: pass it to the parent composite, which may fire in turn, or make the automation's firing."""
    parent = node.parent
    if parent is None:
        _fire_root(shard, node, key, transition, cause, evaluation)
        return
    at_us = shard.effective_us if parent.by_clock else transition.at_us
    above = key_text(parse_key_text(key)[: parent.correlated]) if parent.correlated else ""
    state = shard.store.get(parent.id, above)
    expires = None if state is None else composite.expires_us(parent.rule, state)
    now_us = shard.effective_us if parent.by_clock else shard.clock_us
    if expires is not None and expires <= now_us:
        state = None
    if isinstance(node, Leaf):
        record_decision(shard, evaluation, node, Reason.FIRED, cause.event, key=key, detail=transition.detail)
    up = composite.on_part_fired(
        parent.rule,
        state,
        node.part,
        transition.refs or (),
        at_us=at_us,
        now_us=now_us,
        depth=cause.depth,
        total=transition.total,
    )
    shard.store_transition(parent, above, up, state)
    if up.reason is Reason.FIRED:
        above_cause = Cause(cause.event, max(cause.depth, up.depth), up.at_us, cause.due_us, cause.opened_by)
        fire(shard, parent, above, up, above_cause, evaluation)
    else:
        record_decision(shard, evaluation, parent, up.reason, cause.event, key=above, detail=up.detail)


def resolve_on(shard: ShardState, leaf: Leaf, event: Event, evaluation: Evaluation) -> None:
    """Resolve the Triggered state of the key of an event that matches `resolve_on`."""
    key = leaf.keys.text(event)
    if key is None:
        missing = leaf.keys.missing(event)
        record_decision(
            shard, evaluation, leaf, Reason.MISSING_KEY, event, detail=f"resolve_on: the event has no {missing}"
        )
        return
    cause = Cause(event, event.depth, event.time_us)
    refs = (Ref(event.id, event.seq, event.time_us),)
    _resolve(shard, leaf, key, refs, 1, cause, evaluation, detail="resolve_on")


def _fire_root(
    shard: ShardState, node: Leaf | Composite, key: str, transition: Transition, cause: Cause, evaluation: Evaluation
) -> None:
    automation = node.automation
    reports_own_stop = cause.event is not None and reports_stop_of(cause.event, automation.name)
    if cause.depth >= shard.max_depth or reports_own_stop:
        detail = f"{cause.depth} firings led to it; max_depth is {shard.max_depth}"
        record_decision(shard, evaluation, node, Reason.LOOP, cause.event, key=key, detail=detail)
        if cause.event is not None and not reports_own_stop:
            evaluation.stopped.append(Stopped(automation.name, cause.event, cause.depth))
        return
    edge = True
    if automation.keeps_state:
        edge = shard.store.get(f"{automation.id}~state", key) is None
        shard.store.put(f"{automation.id}~state", key, [shard.clock_us, transition.at_us])
    refs = transition.refs or ()
    firing = make_firing(
        node,
        key,
        FiringState.TRIGGERED,
        refs,
        cause,
        at_us=transition.at_us,
        edge=edge,
        lineage=shard.lineage,
        total=transition.total,
    )
    if isinstance(node, Composite) and any(firing.id == known.id for known in evaluation.firings):
        detail = "the event made it fire through another part"
        record_decision(shard, evaluation, node, Reason.SPENT, cause.event, key=key, detail=detail, firing=firing.id)
        return
    evaluation.firings.append(firing)
    record_decision(
        shard, evaluation, node, Reason.FIRED, cause.event, key=key, detail=transition.detail, firing=firing.id
    )


def _resolve(
    shard: ShardState,
    leaf: Leaf,
    key: str,
    refs: Sequence[Ref],
    total: int,
    cause: Cause,
    evaluation: Evaluation,
    *,
    detail: str,
) -> bool:
    """Resolve the Triggered state of a key. False when it is not Triggered."""
    automation = leaf.automation
    if shard.store.get(f"{automation.id}~state", key) is None:
        return False
    shard.store.drop(f"{automation.id}~state", key)
    firing = make_firing(
        leaf, key, FiringState.RESOLVED, refs, cause, at_us=cause.at_us, edge=True, lineage=shard.lineage, total=total
    )
    evaluation.firings.append(firing)
    record_decision(shard, evaluation, leaf, Reason.RESOLVED, cause.event, key=key, detail=detail, firing=firing.id)
    return True
