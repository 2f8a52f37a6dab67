"""Triggers with tumbling windows: events counted in buckets, and the periodic checks of proactive triggers.

A check is a record of its own, `<trigger>~check`, with a deadline: the earliest bucket's end, or `within` after the last check. It
has no deadline while there is no bucket. The events held for buckets that open later are a record for each key, `<trigger>~held`. How a bucket decides, and where that follows Prefect, is in `triggers.windows.tumbling`.

Called by `triggers.windowing` for events and by `triggers.deadlines` for checks and held events.
"""

from __future__ import annotations

from typing import Any

from whenthen.schemas.events import Event, SeenEvent
from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.decisions import Evaluation, record_decision
from whenthen.triggers.firing_ids import Cause
from whenthen.triggers.firing_outcomes import apply_transition, fire
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.trees.trigger_nodes import Leaf
from whenthen.triggers.windows import held_events, tumbling
from whenthen.triggers.windows.bucket_deadlines import BucketDeadlines
from whenthen.triggers.windows.transitions import State, Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["apply_event", "check", "forget_held", "start_checks"]

_MAX_CHECKS = 20_000  #: of one trigger, when the clock advances past many


def apply_event(
    shard: ShardState, leaf: Leaf, rule: TumblingRule, event: Event, counts: bool, opens: bool, evaluation: Evaluation
) -> None:
    """As `windowing.apply_event`, for a trigger with buckets. A key value that the event lacks is the empty text."""
    key = leaf.keys.text_or_empty(event)
    now_us = shard.effective_us
    ref = Ref(event.data["id"], event.seq, event.time_us)
    cause = Cause(event, event.depth, now_us)
    if not rule.has_state:
        fire(shard, leaf, key, Transition(Reason.FIRED, None, refs=(ref,), at_us=now_us), cause, evaluation)
        return
    state = shard.store.get(leaf.id, key)
    data = held = None
    if rule.proactive:
        data = _stored(event)
        held = _held(shard, leaf, rule, key, event.time_us if counts and not opens else None)
    transition = tumbling.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens, data=data, held=held)
    opened = shard.store_transition(leaf, key, transition, state)
    if rule.proactive:
        if opened:
            _schedule_check(shard, leaf, rule)
        shard.track_bucket(leaf, rule, key, transition.state)
    apply_transition(shard, leaf, key, transition, cause, evaluation)


def forget_held(shard: ShardState, leaf: Leaf, trigger: str, key: str, held: State) -> None:
    """Forget the held events of a key that no bucket can need any more, and look again when the next ones may go."""
    bucket = shard.store.get(leaf.id, key)
    kept = held_events.forget(held, now_us=shard.effective_us, open_until_us=None if bucket is None else bucket[2])
    if kept is None:
        shard.store.drop(trigger, key)
    else:
        shard.store.put(trigger, key, kept, deadline=kept[1])


def start_checks(shard: ShardState, leaf: Leaf) -> None:
    """Schedule the first check for now, unless a check is already scheduled."""
    trigger = f"{leaf.id}~check"
    if shard.store.get(trigger, "") is None:
        shard.store.put(trigger, "", [shard.clock_us, shard.clock_us, 1], deadline=shard.clock_us)


def check(shard: ShardState, leaf: Leaf, trigger: str, due_us: int, evaluation: Evaluation) -> None:
    """Evaluate the buckets of a proactive trigger whose deadline has passed, as Prefect's periodic check does."""
    rule = leaf.rule
    assert isinstance(rule, TumblingRule)
    now_us = max(due_us, shard.effective_us, shard.clock_us - _MAX_CHECKS * rule.within_us)
    if now_us > shard.effective_us:
        shard.previous_us, shard.effective_us = shard.effective_us, now_us
    opens_itself = not leaf.keys.expressions and not rule.needs_after
    if opens_itself and shard.store.get(leaf.id, "") is None:
        bucket = tumbling.initial_state(rule, now_us=now_us)
        shard.put(leaf, "", bucket)
        _schedule_check(shard, leaf, rule)
        shard.track_bucket(leaf, rule, "", bucket)
    deadlines = shard.bucket_deadlines.setdefault(leaf.id, BucketDeadlines())
    for key in deadlines.pop_satisfied():
        state = shard.store.get(leaf.id, key)
        if state is not None and tumbling.is_satisfied(rule, state):
            shard.store.drop(leaf.id, key)
            deadlines.forget(key)
    ended = [
        (key, state) for key in deadlines.pop_ended(now_us) if (state := shard.store.get(leaf.id, key)) is not None
    ]
    for key, state in sorted(ended, key=lambda item: (item[1][1], item[0])):
        if tumbling.expires_us(state) <= shard.previous_us:
            shard.store.drop(leaf.id, key)
            continue
        end = state[2]
        transition = tumbling.on_time(rule, state, now_us=now_us)
        shard.store_transition(leaf, key, transition, state)
        shard.track_bucket(leaf, rule, key, transition.state)
        if transition.reason is not Reason.FIRED:
            continue
        if shard.is_paused(leaf):
            record_decision(
                shard, evaluation, leaf, Reason.PAUSED, None, key=key, detail="due while the automation is paused"
            )
        else:
            event = None if transition.event is None else _restored(transition.event[2], transition.event[1])
            cause = Cause(event, 0 if event is None else event.depth, now_us, end)
            fire(shard, leaf, key, transition, cause, evaluation)
    again = min(now_us + rule.within_us, deadlines.next_deadline() or now_us + rule.within_us)
    watched = opens_itself or shard.store.has(leaf.id)
    shard.store.put(trigger, "", [now_us, again, int(watched)], deadline=again if watched else None)


def _stored(event: Event) -> dict[str, Any]:
    """An event as a bucket keeps it: as it came, and beside it what the trigger computed."""
    return event.came if event.computed is None else {**event.came, "computed": event.computed}


def _restored(data: dict[str, Any], seq: int) -> Event:
    if "computed" not in data:
        return Event(data, seq)
    came = {name: value for name, value in data.items() if name != "computed"}
    return SeenEvent(Event(came, seq), data["computed"])


def _held(shard: ShardState, leaf: Leaf, rule: TumblingRule, key: str, time_us: int | None) -> State | None:
    """The events held for a key, with the one at `time_us` when it is to be held."""
    if not rule.holds_events:
        return None
    trigger = f"{leaf.id}~held"
    held = shard.store.get(trigger, key)
    if held is not None and held[1] <= shard.effective_us:
        forget_held(shard, leaf, trigger, key, held)
        held = shard.store.get(trigger, key)
    if time_us is not None:
        held = held_events.hold(
            held, time_us, threshold=rule.threshold, within_us=rule.within_us, now_us=shard.effective_us
        )
        shard.store.put(trigger, key, held, deadline=held[1])
    return held


def _schedule_check(shard: ShardState, leaf: Leaf, rule: TumblingRule) -> None:
    """Schedule the next check for a new bucket: the first multiple of `within` after the last check that is not past."""
    trigger = f"{leaf.id}~check"
    now_us = shard.effective_us
    known = shard.store.get(trigger, "")
    following = now_us + rule.within_us if known is None else known[1]
    if following <= now_us:
        following += ((now_us - following) // rule.within_us + 1) * rule.within_us
    shard.store.put(trigger, "", [now_us, following, 1], deadline=following)
