"""Triggers with tumbling windows: events into buckets, and the checks that look at the buckets of proactive ones.

A check is a record of its own, `<trigger>~check`, with a deadline: the earliest bucket's end, or `within` after the last check. It
rests while there is no bucket. What a bucket decides, and where that follows Prefect, is in `triggers.windows.tumbling`.

Called by `triggers.windowing` for events and by `triggers.deadlines` for checks.
"""

from __future__ import annotations

from whenthen.schemas import Event, Reason, Ref
from whenthen.triggers.bucket_deadlines import BucketDeadlines
from whenthen.triggers.decisions import Evaluation, note
from whenthen.triggers.firing_ids import Cause
from whenthen.triggers.firing_outcomes import conclude, fire
from whenthen.triggers.rule_set import Leaf
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.windows import tumbling
from whenthen.triggers.windows.transitions import Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["apply_event", "begin_checks", "check"]

_MAX_CHECKS = 20_000  #: of one trigger's buckets, when the clock jumps over many


def apply_event(
    shard: ShardState, leaf: Leaf, rule: TumblingRule, event: Event, counts: bool, opens: bool, outcome: Evaluation
) -> None:
    """As `windowing.apply_event`, for a trigger with buckets. What the event lacks of the key is empty text."""
    key = leaf.keys.text_or_empty(event)
    now_us = shard.moment_us
    ref = Ref(event.data["id"], event.seq, event.time_us)
    cause = Cause(event, event.depth, now_us)
    if not rule.remembers:
        fire(shard, leaf, key, Transition(Reason.FIRED, None, refs=(ref,), at_us=now_us), cause, outcome)
        return
    state = shard.store.get(leaf.id, key)
    step = tumbling.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens, data=event.data)
    opened = shard.settle(leaf, key, step, state)
    if rule.proactive:
        if opened:
            _schedule_check(shard, leaf, rule)
        shard.note_bucket(leaf, rule, key, step.state)
    conclude(shard, leaf, key, step, cause, outcome)


def begin_checks(shard: ShardState, leaf: Leaf) -> None:
    """Have the first check made at once, unless checks go on from before."""
    trigger = f"{leaf.id}~check"
    if shard.store.get(trigger, "") is None:
        shard.store.put(trigger, "", [shard.clock_us, shard.clock_us, 1], deadline=shard.clock_us)


def check(shard: ShardState, leaf: Leaf, trigger: str, due_us: int, outcome: Evaluation) -> None:
    """Look at all buckets of a proactive trigger with tumbling windows, as Prefect's periodic check does."""
    rule = leaf.rule
    assert isinstance(rule, TumblingRule)
    now_us = max(due_us, shard.moment_us, shard.clock_us - _MAX_CHECKS * rule.within_us)
    if now_us > shard.moment_us:
        shard.stop_us, shard.moment_us = shard.moment_us, now_us
    opens_itself = not leaf.keys.expressions and not rule.needs_after
    if opens_itself and shard.store.get(leaf.id, "") is None:
        bucket = tumbling.begin(rule, now_us=now_us)
        shard.put(leaf, "", bucket)
        _schedule_check(shard, leaf, rule)
        shard.note_bucket(leaf, rule, "", bucket)
    ends = shard.ends.setdefault(leaf.id, BucketDeadlines())
    for key in ends.take_satisfied():
        state = shard.store.get(leaf.id, key)
        if state is not None and tumbling.is_satisfied(rule, state):
            shard.store.drop(leaf.id, key)
            ends.forget(key)
    ended = [(key, state) for key in ends.take_ended(now_us) if (state := shard.store.get(leaf.id, key)) is not None]
    for key, state in sorted(ended, key=lambda item: (item[1][1], item[0])):
        if tumbling.expires_us(state) <= shard.stop_us:
            shard.store.drop(leaf.id, key)
            continue
        end = state[2]
        step = tumbling.on_time(rule, state, now_us=now_us)
        shard.settle(leaf, key, step, state)
        shard.note_bucket(leaf, rule, key, step.state)
        if step.reason is not Reason.FIRED:
            continue
        if shard.is_paused(leaf):
            note(shard, outcome, leaf, Reason.PAUSED, None, key=key, detail="due while the automation is paused")
        else:
            event = None if step.event is None else Event(step.event[2], step.event[1])
            cause = Cause(event, 0 if event is None else event.depth, now_us, end)
            fire(shard, leaf, key, step, cause, outcome)
    again = min(now_us + rule.within_us, ends.next_end() or now_us + rule.within_us)
    watched = opens_itself or shard.store.has(leaf.id)
    shard.store.put(trigger, "", [now_us, again, int(watched)], deadline=again if watched else None)


def _schedule_check(shard: ShardState, leaf: Leaf, rule: TumblingRule) -> None:
    """Have a new bucket looked at by the next check. While there was no bucket, checks went on in steps of `within`."""
    trigger = f"{leaf.id}~check"
    now_us = shard.moment_us
    known = shard.store.get(trigger, "")
    following = now_us + rule.within_us if known is None else known[1]
    if following <= now_us:
        following += ((now_us - following) // rule.within_us + 1) * rule.within_us
    shard.store.put(trigger, "", [now_us, following, 1], deadline=following)
