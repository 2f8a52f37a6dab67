"""Decisions that need no event: windows that end, checks and schedules that are due, windows that open without an event.

Called by `triggers.evaluator` when the clock advances. Deadlines are computed in `triggers.timing`; what a transition means for
the automation is in `triggers.firing_outcomes`.
"""

from __future__ import annotations

from whenthen.schemas.firings import Reason
from whenthen.triggers import buckets
from whenthen.triggers.decisions import Evaluation, record_decision
from whenthen.triggers.firing_ids import Cause
from whenthen.triggers.firing_outcomes import apply_transition, fire
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.timing import next_time_us, times_due
from whenthen.triggers.trees.trigger_nodes import Leaf, ScheduleRule
from whenthen.triggers.windows import absence, collecting, metric
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.transitions import State, Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["on_deadline", "open_initial_windows"]


def open_initial_windows(shard: ShardState) -> None:
    """Open the windows that open without an event."""
    for leaf in shard.unstarted.values():
        rule = leaf.rule
        shard.started.add(leaf.id)
        if isinstance(rule, AbsenceRule):
            shard.put(leaf, "", absence.initial_state(rule, now_us=shard.clock_us))
        elif isinstance(rule, MetricRule):
            shard.put(leaf, "", metric.initial_state(rule, now_us=shard.clock_us))
        elif isinstance(rule, ScheduleRule):
            shard.put(leaf, "", [shard.clock_us, next_time_us(rule, shard.clock_us)])
        elif isinstance(rule, TumblingRule):
            buckets.start_checks(shard, leaf)
    shard.unstarted = {}


def on_deadline(shard: ShardState, trigger: str, key: str, state: State, due_us: int, evaluation: Evaluation) -> None:
    """Handle the deadline of a window, or of its check record. `shard.effective_us` has reached it."""
    base, _, kind = trigger.partition("~")
    node = shard.rules.nodes.get(base)
    if not isinstance(node, Leaf):
        return
    if kind == "check":
        buckets.check(shard, node, trigger, due_us, evaluation)
        return
    if kind == "held":
        buckets.forget_held(shard, node, trigger, key, state)
        return
    rule = node.rule
    cause = Cause(None, 0, due_us, due_us)
    if isinstance(rule, ScheduleRule):
        _fire_schedule(shard, node, rule, state, evaluation)
        return
    if isinstance(rule, AbsenceRule):
        opener = absence.opened_by(state)
        cause.depth, cause.opened_by = state[3], "" if opener is None else opener.id
        transition = absence.on_time(rule, state, now_us=shard.clock_us)
    elif isinstance(rule, CollectRule):
        transition = collecting.on_time(rule, state, now_us=due_us)
        cause.depth = transition.depth
        cause.opened_by = transition.refs[0].id if transition.refs else ""
    elif isinstance(rule, MetricRule):
        cause.depth = state[4]
        transition = metric.on_time(rule, state, now_us=due_us)
    else:
        return
    shard.store_transition(node, key, transition, state)
    if transition.reason not in (Reason.FIRED, Reason.RESOLVED):
        return
    if shard.is_paused(node):
        record_decision(
            shard, evaluation, node, Reason.PAUSED, None, key=key, detail="due while the automation is paused"
        )
    else:
        apply_transition(shard, node, key, transition, cause, evaluation)


def _fire_schedule(shard: ShardState, leaf: Leaf, rule: ScheduleRule, state: State, evaluation: Evaluation) -> None:
    """Fire once for each scheduled time that has passed; for the newest 1,000 if there are more."""
    times, due = times_due(rule, state[1], shard.clock_us)
    shard.put(leaf, "", [shard.clock_us, due])
    for at_us in times:
        if shard.is_paused(leaf):
            record_decision(shard, evaluation, leaf, Reason.PAUSED, None, detail="due while the automation is paused")
            continue
        transition = Transition(Reason.FIRED, None, refs=(), at_us=at_us)
        fire(shard, leaf, "", transition, Cause(None, 0, at_us, at_us), evaluation)
