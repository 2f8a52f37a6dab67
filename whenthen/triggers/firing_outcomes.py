"""What a window's step means for the automation: composites told, firings made or stopped, the Triggered state kept and ended.

`conclude` takes the step of a leaf, whatever it decided; `fire` one that fired. Firings and decisions go into the outcome.
Called by `triggers.windowing` and `triggers.buckets` for events and by `triggers.deadlines` for moments; `resolve_on` by
`triggers.evaluator`. Meaning: docs/rules.md, "Composites", "Firings" and "Loops".
"""

from __future__ import annotations

from collections.abc import Sequence

from whenthen.schemas import Event, FiringState, Reason, Ref
from whenthen.triggers.decisions import Evaluation, Stopped, note
from whenthen.triggers.firing_ids import Cause, make_firing, tells_of
from whenthen.triggers.rule_set import Composite, Leaf
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.window_keys import key_text, parse_key_text
from whenthen.triggers.windows import composite
from whenthen.triggers.windows.transitions import Transition

__all__ = ["conclude", "fire", "resolve_on"]


def conclude(shard: ShardState, leaf: Leaf, key: str, step: Transition, cause: Cause, outcome: Evaluation) -> None:
    """What a step of a leaf means for the automation."""
    if step.reason is Reason.FIRED:
        fire(shard, leaf, key, step, cause, outcome)
    elif step.reason is Reason.RESOLVED:
        refs = step.refs or ()
        if leaf.parent is not None or not _resolve(shard, leaf, key, refs, cause, outcome, detail=step.detail):
            note(shard, outcome, leaf, Reason.RESOLVED, cause.event, key=key, detail=step.detail)
    else:
        note(shard, outcome, leaf, step.reason, cause.event, key=key, detail=step.detail)
        satisfied = step.reason is Reason.EXPECTED and step.refs
        if satisfied and leaf.parent is None and leaf.automation.keeps_state:
            _resolve(shard, leaf, key, step.refs or (), cause, outcome, detail="what it waits for came")


def fire(
    shard: ShardState, node: Leaf | Composite, key: str, step: Transition, cause: Cause, outcome: Evaluation
) -> None:
    """A node fired: tell its composite, which may fire in turn, or make the firing of the automation."""
    parent = node.parent
    if parent is None:
        _fire_root(shard, node, key, step, cause, outcome)
        return
    at_us = shard.moment_us if parent.by_clock else step.at_us
    above = key_text(parse_key_text(key)[: parent.correlated]) if parent.correlated else ""
    state = shard.store.get(parent.id, above)
    expires = None if state is None else composite.expires_us(parent.rule, state)
    now_us = shard.moment_us if parent.by_clock else shard.clock_us
    if expires is not None and expires <= now_us:
        state = None
    if isinstance(node, Leaf):
        note(shard, outcome, node, Reason.FIRED, cause.event, key=key, detail=step.detail)
    up = composite.on_part_fired(
        parent.rule, state, node.part, step.refs or (), at_us=at_us, now_us=now_us, depth=cause.depth
    )
    shard.settle(parent, above, up, state)
    if up.reason is Reason.FIRED:
        above_cause = Cause(cause.event, max(cause.depth, up.depth), up.at_us, cause.due_us, cause.opener)
        fire(shard, parent, above, up, above_cause, outcome)
    else:
        note(shard, outcome, parent, up.reason, cause.event, key=above, detail=up.detail)


def resolve_on(shard: ShardState, leaf: Leaf, event: Event, outcome: Evaluation) -> None:
    """An event came that `resolve_on` names: end the Triggered state of its key."""
    key = leaf.keys.text(event)
    if key is None:
        missing = leaf.keys.missing(event)
        note(shard, outcome, leaf, Reason.MISSING_KEY, event, detail=f"resolve_on: the event has no {missing}")
        return
    cause = Cause(event, event.depth, event.time_us)
    _resolve(shard, leaf, key, (Ref(event.id, event.seq, event.time_us),), cause, outcome, detail="resolve_on")


def _fire_root(
    shard: ShardState, node: Leaf | Composite, key: str, step: Transition, cause: Cause, outcome: Evaluation
) -> None:
    automation = node.automation
    tells_of_it = cause.event is not None and tells_of(cause.event, automation.name)
    if cause.depth >= shard.max_depth or tells_of_it:
        detail = f"{cause.depth} firings led to it, at most {shard.max_depth} are followed"
        note(shard, outcome, node, Reason.LOOP, cause.event, key=key, detail=detail)
        if cause.event is not None and not tells_of_it:
            outcome.stopped.append(Stopped(automation.name, cause.event, cause.depth))
        return
    edge = True
    if automation.keeps_state:
        edge = shard.store.get(f"{automation.id}~state", key) is None
        shard.store.put(f"{automation.id}~state", key, [shard.clock_us, step.at_us])
    refs = step.refs or ()
    firing = make_firing(
        node, key, FiringState.TRIGGERED, refs, cause, at_us=step.at_us, edge=edge, lineage=shard.lineage
    )
    if isinstance(node, Composite) and any(firing.id == known.id for known in outcome.firings):
        detail = "the event made it fire through another part"
        note(shard, outcome, node, Reason.SPENT, cause.event, key=key, detail=detail, firing=firing.id)
        return
    outcome.firings.append(firing)
    note(shard, outcome, node, Reason.FIRED, cause.event, key=key, detail=step.detail, firing=firing.id)


def _resolve(
    shard: ShardState, leaf: Leaf, key: str, refs: Sequence[Ref], cause: Cause, outcome: Evaluation, *, detail: str
) -> bool:
    """End the Triggered state of a key. False when it is not Triggered."""
    automation = leaf.automation
    if shard.store.get(f"{automation.id}~state", key) is None:
        return False
    shard.store.drop(f"{automation.id}~state", key)
    firing = make_firing(
        leaf, key, FiringState.RESOLVED, refs, cause, at_us=cause.at_us, edge=True, lineage=shard.lineage
    )
    outcome.firings.append(firing)
    note(shard, outcome, leaf, Reason.RESOLVED, cause.event, key=key, detail=detail, firing=firing.id)
    return True
