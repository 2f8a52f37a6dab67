"""What time alone leads to: windows that end, checks that are due, times of schedules, windows that are watched from the start.

Called by `triggers.evaluator` as the clock moves on. When something is due is in `triggers.timing`; what a step means for the
automation is in `triggers.firing_outcomes`.
"""

from __future__ import annotations

from whenthen.schemas import Reason
from whenthen.triggers import buckets
from whenthen.triggers.decisions import Evaluation, note
from whenthen.triggers.firing_ids import Cause
from whenthen.triggers.firing_outcomes import conclude, fire
from whenthen.triggers.rule_set import Leaf, ScheduleRule
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.timing import next_time_us, times_due
from whenthen.triggers.windows import absence, collecting, metric
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.transitions import State, Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["begin", "on_deadline"]


def begin(shard: ShardState) -> None:
    """Open the windows that are watched before any event came."""
    for leaf in shard.unbegun.values():
        rule = leaf.rule
        shard.begun.add(leaf.id)
        if isinstance(rule, AbsenceRule):
            shard.put(leaf, "", absence.begin(rule, now_us=shard.clock_us))
        elif isinstance(rule, MetricRule):
            shard.put(leaf, "", metric.begin(rule, now_us=shard.clock_us))
        elif isinstance(rule, ScheduleRule):
            shard.put(leaf, "", [shard.clock_us, next_time_us(rule, shard.clock_us)])
        elif isinstance(rule, TumblingRule):
            buckets.begin_checks(shard, leaf)
    shard.unbegun = {}


def on_deadline(shard: ShardState, trigger: str, key: str, state: State, due_us: int, outcome: Evaluation) -> None:
    """Do what the deadline of a window, or of a record beside one, asks for. `shard.moment_us` has reached it."""
    base, _, kind = trigger.partition("~")
    node = shard.rules.nodes.get(base)
    if not isinstance(node, Leaf):
        return
    if kind == "check":
        buckets.check(shard, node, trigger, due_us, outcome)
        return
    rule = node.rule
    cause = Cause(None, 0, due_us, due_us)
    if isinstance(rule, ScheduleRule):
        _meet_times(shard, node, rule, state, outcome)
        return
    if isinstance(rule, AbsenceRule):
        cause.depth, cause.opener = state[3], state[4]
        step = absence.on_time(rule, state, now_us=shard.clock_us)
    elif isinstance(rule, CollectRule):
        step = collecting.on_time(rule, state, now_us=due_us)
        cause.depth = step.depth
        cause.opener = step.refs[0].id if step.refs else ""
    elif isinstance(rule, MetricRule):
        cause.depth = state[4]
        step = metric.on_time(rule, state, now_us=due_us)
    else:
        return
    shard.settle(node, key, step, state)
    if step.reason not in (Reason.FIRED, Reason.RESOLVED):
        return
    if shard.is_paused(node):
        note(shard, outcome, node, Reason.PAUSED, None, key=key, detail="due while the automation is paused")
    else:
        conclude(shard, node, key, step, cause, outcome)


def _meet_times(shard: ShardState, leaf: Leaf, rule: ScheduleRule, state: State, outcome: Evaluation) -> None:
    """Fire for every time that passed, the newest thousand at most."""
    times, due = times_due(rule, state[1], shard.clock_us)
    shard.put(leaf, "", [shard.clock_us, due])
    for at_us in times:
        if shard.is_paused(leaf):
            note(shard, outcome, leaf, Reason.PAUSED, None, detail="due while the automation is paused")
            continue
        step = Transition(Reason.FIRED, None, refs=(), at_us=at_us)
        fire(shard, leaf, "", step, Cause(None, 0, at_us, at_us), outcome)
