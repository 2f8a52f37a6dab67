"""Applies an event to the window of a trigger that it matches: the key, the value, the transition of the window.

Called by `triggers.evaluator` for every event that a filter admitted. Tumbling windows are in `triggers.buckets`; what a
transition means for the automation is in `triggers.firing_outcomes`.
"""

from __future__ import annotations

import sys
from typing import Any

from whenthen.schemas.errors import RenderError
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers import buckets
from whenthen.triggers.decisions import Evaluation, record_decision
from whenthen.triggers.firing_ids import Cause, make_plain_firing
from whenthen.triggers.firing_outcomes import apply_transition, fire
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.trees.trigger_nodes import EveryRule, Leaf
from whenthen.triggers.windows import absence, collecting, metric, sliding
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.transitions import Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["apply_event"]

_MAX_EXACT = 2**53  #: larger integers are stored as floats


def apply_event(shard: ShardState, leaf: Leaf, event: Event, counts: bool, opens: bool, evaluation: Evaluation) -> None:
    """Apply an event that a filter of `leaf` admitted to the window of its key.

    `counts` says whether it matches `expect`, `opens` whether it matches `after`.
    """
    rule = leaf.rule
    if isinstance(rule, TumblingRule):
        buckets.apply_event(shard, leaf, rule, event, counts, opens, evaluation)
        return
    key = leaf.keys.text(event)
    if key is None:
        missing = leaf.keys.missing(event)
        record_decision(
            shard, evaluation, leaf, Reason.MISSING_KEY, event, detail=f"for_each: the event has no {missing}"
        )
        return
    now_us = shard.clock_us
    time_us = event.time_us
    ref = Ref(event.data["id"], event.seq, time_us)
    if isinstance(rule, EveryRule):
        depth = event.depth
        if leaf.parent is None and not depth and not leaf.automation.keeps_state:
            firing = make_plain_firing(leaf, key, (ref,), event, depth=depth, at_us=time_us, lineage=shard.lineage)
            evaluation.firings.append(firing)
            record_decision(shard, evaluation, leaf, Reason.FIRED, event, key=key, firing=firing.id)
        else:
            transition = Transition(Reason.FIRED, None, refs=(ref,), at_us=time_us)
            fire(shard, leaf, key, transition, Cause(event, depth, time_us), evaluation)
        return
    state = shard.store.get(leaf.id, key)
    if isinstance(rule, SlidingRule):
        transition = sliding.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens)
    elif isinstance(rule, AbsenceRule):
        transition = absence.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens, depth=event.depth)
    elif isinstance(rule, CollectRule):
        transition = collecting.on_event(rule, state, ref, now_us=now_us, depth=event.depth)
    elif isinstance(rule, MetricRule):
        value = _metric_value(shard, leaf, event, evaluation)
        if value is None:
            return
        transition = metric.on_event(rule, state, ref, value[0], now_us=now_us, depth=event.depth)
    else:
        return
    shard.store_transition(leaf, key, transition, state)
    apply_transition(
        shard,
        leaf,
        key,
        transition,
        Cause(event, max(event.depth, transition.depth), transition.at_us or time_us),
        evaluation,
    )


def _metric_value(shard: ShardState, leaf: Leaf, event: Event, evaluation: Evaluation) -> tuple[Any] | None:
    """The value in a tuple; None (and a decision that says why) when the event has no usable one."""
    assert isinstance(leaf.rule, MetricRule)
    if leaf.value is None:
        return (None,)
    try:
        value = leaf.value.one(event.data)
    except RenderError as error:
        record_decision(shard, evaluation, leaf, Reason.MISSING_KEY, event, detail=f"value: {error}")
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not number and leaf.rule.aggregate not in ("count", "distinct"):
        detail = f"value: {leaf.value.text} is {value!r:.100}, not a number"
        record_decision(shard, evaluation, leaf, Reason.CONDITION_ERROR, event, detail=detail)
        return None
    if isinstance(value, int) and abs(value) > _MAX_EXACT and leaf.rule.aggregate != "distinct":
        value = float(value)
    return (value,)
