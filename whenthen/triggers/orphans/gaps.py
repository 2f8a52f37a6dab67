"""What a time without the rule means for the windows of a trigger that came back: nothing was seen, so nothing is concluded from silence.

- An absence, or a proactive bucket, whose end fell into the gap closes unfired (`lapsed`); one that watches without `after` watches
  again from the return on.
- Times of a schedule within the gap do not fire (`lapsed`).
- A comparison that an incomplete window could satisfy waits until the window has been open for `within` again.
- All other windows go on with what they had; a deadline that passed in the gap takes effect as after any jump of the clock.

Called by `triggers.evaluator` at the first value of the clock after the return. Meaning: docs/rules.md, "Editing a rule keeps its
memory".
"""

from __future__ import annotations

from whenthen.schemas.firings import Reason
from whenthen.triggers.decisions import Evaluation, record_decision
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.timing import next_time_us
from whenthen.triggers.trees.trigger_nodes import Leaf, ScheduleRule
from whenthen.triggers.windows import absence, metric, tumbling
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["close_gap"]


def close_gap(shard: ShardState, leaf: Leaf, evaluation: Evaluation) -> None:
    """Apply a gap that ends now, at `shard.clock_us`, to the windows of a leaf."""
    rule = leaf.rule
    now_us = shard.clock_us
    if isinstance(rule, TumblingRule):
        if rule.proactive:
            _close_buckets(shard, leaf, rule, evaluation)
        return
    if not isinstance(rule, (AbsenceRule, MetricRule, ScheduleRule)):
        return
    for key, state in sorted(shard.store.items(leaf.id)):
        if isinstance(rule, AbsenceRule):
            transition = absence.lapse(rule, state, now_us=now_us)
        elif isinstance(rule, MetricRule):
            transition = metric.lapse(rule, state, now_us=now_us)
        elif state[1] is not None and state[1] <= now_us:
            shard.put(leaf, key, [now_us, next_time_us(rule, now_us)])
            _record(shard, leaf, key, "due while the automation was not in the rules", evaluation)
            continue
        else:
            continue
        if transition is not None:
            shard.store_transition(leaf, key, transition, state)
            _record(shard, leaf, key, transition.detail, evaluation)


def _close_buckets(shard: ShardState, leaf: Leaf, rule: TumblingRule, evaluation: Evaluation) -> None:
    now_us = shard.clock_us
    for key, state in sorted(shard.store.items(leaf.id)):
        transition = tumbling.lapse(rule, state, now_us=now_us)
        if transition is not None:
            shard.store_transition(leaf, key, transition, state)
            shard.track_bucket(leaf, rule, key, transition.state)
            _record(shard, leaf, key, transition.detail, evaluation)
    trigger = f"{leaf.id}~check"
    check = shard.store.get(trigger, "")
    if check is not None and check[2] and check[1] <= now_us:
        shard.store.put(trigger, "", [check[0], now_us, check[2]], deadline=now_us)


def _record(shard: ShardState, leaf: Leaf, key: str, detail: str, evaluation: Evaluation) -> None:
    record_decision(shard, evaluation, leaf, Reason.LAPSED, None, key=key, detail=detail)
