"""Prefect's buckets, exactly: one time span a key that counts, fires at most once, and is then quiet.

The decisions follow the observable behaviour of Prefect 3's event triggers (prefect.server.events.triggers), so that an
imported automation fires on the same events:

- without `after`, the first expected event at t opens [t - 15 min, t + within); it accepts older events since they may arrive
  out of order; with `after`, such an event at t opens [t, t + within) and only that;
- a reactive bucket fires as soon as it holds `threshold` events; the next bucket follows on its end, so the rest is quiet;
- an event past the end of a reactive bucket opens a new bucket at its own time and counts there;
- a proactive bucket fires when its end has passed and it holds fewer than `threshold` events;
- an event that is in both `after` and `expect` opens a bucket at -1, and re-opens a satisfied proactive one;
- buckets that ended more than 60 s ago are swept.

Boundaries: an event belongs to [start, end). A periodic check looks at proactive buckets; it is due at the earliest bucket's end
or after `within`. Where Prefect is plainly at fault ours differs: docs/rules.md, "Differences from Prefect".

State: [touched, start, end, count, time, position, id, ...]. Called by `triggers.evaluator`.
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.steps import State, Step, refs_of

__all__ = ["TumblingRule", "begin", "expires_us", "is_satisfied", "on_event", "on_time"]

_HEAD = 4
#: how much older than a bucket's first event others may be (Prefect's lookback for out-of-order events)
_LOOKBACK_US = 15 * 60 * 1_000_000
#: how long after its end a bucket is swept (Prefect's default buffer for expired buckets)
_SWEEP_US = 60 * 1_000_000
_MAX_REFS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TumblingRule:
    threshold: int
    within_us: int
    proactive: bool
    needs_after: bool


def expires_us(state: State) -> int:
    """When the bucket is swept."""
    end: int = state[2]
    return end + _SWEEP_US


def is_satisfied(rule: TumblingRule, state: State) -> bool:
    """Whether a proactive bucket holds what it waits for; a check drops such a bucket before its end."""
    return bool(state[3] >= rule.threshold)


def begin(rule: TumblingRule, *, now_us: int) -> State:
    """The bucket of a proactive trigger that is watched from now on."""
    return [now_us, now_us, now_us + rule.within_us, 0]


def on_event(rule: TumblingRule, state: State | None, event: Ref, *, now_us: int, counts: bool, opens: bool) -> Step:
    """Decide for one event that passed the filter."""
    if state is not None and expires_us(state) <= now_us:
        state = None
    time_us = event.time_us
    opened = False
    if opens and state is None:
        state = [now_us, time_us, time_us + rule.within_us, -1 if counts else 0]
        opened = True
    if not rule.needs_after and counts and state is None:
        state = [now_us, time_us - _LOOKBACK_US, time_us + rule.within_us, 0]
    if state is None:
        return Step(Reason.WAITING_FOR_AFTER, None, "no `after` event opened a bucket")
    state[0] = now_us
    if not counts:
        return Step(Reason.OPENED, state, "opened a bucket" if opened else "its bucket was open")
    return _evaluate(rule, state, time_us, event, opens=opens)


def on_time(rule: TumblingRule, state: State, *, now_us: int) -> Step:
    """Check one proactive bucket at the clock's time."""
    return _evaluate(rule, state, now_us, None, opens=False)


def _evaluate(rule: TumblingRule, state: State, time_us: int, event: Ref | None, *, opens: bool) -> Step:
    touched, start, end, _ = state[:_HEAD]
    if time_us < start:
        quiet = not rule.proactive and start - time_us <= rule.within_us
        return Step(Reason.COOLDOWN if quiet else Reason.LATE, state, "before the start of the current bucket")
    unspent = event is not None
    if event is not None and ((not rule.proactive and not rule.within_us) or time_us < end):
        state[3] += 1
        if len(state) < _HEAD + 3 * _MAX_REFS:
            state += (time_us, event.seq, event.id)
        unspent = False
    meets = state[3] < rule.threshold if rule.proactive else state[3] >= rule.threshold
    if meets and (not rule.proactive or end <= time_us):
        refs = refs_of(state[_HEAD:])
        if event is not None and unspent:
            refs = (*refs, event)
        at_us = time_us if event is not None else end
        detail = f"{max(state[3], 0)} of {rule.threshold} in the bucket"
        if rule.needs_after or not rule.within_us:
            return Step(Reason.FIRED, None, detail, refs=refs, at_us=at_us)
        start = max(end, time_us)
        following: State = [touched, start, start + rule.within_us, 0]
        if unspent and event is not None:
            following[3] = 1
            following += (event.time_us, event.seq, event.id)
        return Step(Reason.FIRED, following, detail, refs=refs, at_us=at_us)
    detail = f"{max(state[3], 0)} of {rule.threshold} in the bucket"
    if time_us < end:
        if event is not None and rule.proactive and not meets and opens:
            return Step(
                Reason.EXPECTED, [touched, event.time_us, event.time_us + rule.within_us, 0], "opened the next bucket"
            )
        reason = Reason.EXPECTED if rule.proactive and not meets else Reason.BELOW_THRESHOLD
        return Step(reason, state, detail)
    if rule.needs_after:
        return Step(Reason.WAITING_FOR_AFTER, None, "its bucket had ended")
    if not rule.within_us:
        return Step(Reason.BELOW_THRESHOLD, state, detail)
    start = max(end, time_us)
    following = [touched, start, start + rule.within_us, 0]
    if unspent and event is not None:
        if not rule.proactive:
            return _evaluate(rule, following, time_us, event, opens=opens)
        following[3] = 1
        following += (event.time_us, event.seq, event.id)
    return Step(Reason.EXPECTED if rule.proactive else Reason.BELOW_THRESHOLD, following, detail)
