"""Tumbling windows with Prefect's semantics: one bucket per key, which counts events and fires at most once.

The decisions follow the observable behaviour of Prefect 3's event triggers (prefect.server.events.triggers), so that an
imported automation fires on the same events:

- without `after`, the first expected event at t opens [t - 15 min, t + within); it accepts older events since they may arrive
  out of order; with `after`, only an `after` event opens a bucket: one at t opens [t, t + within);
- a reactive bucket fires as soon as it holds `threshold` events; the next bucket starts at its end, so later events before that
  end do not fire;
- an event past the end of a reactive bucket opens a new bucket at its own time and counts there;
- without `within` a reactive bucket counts every event until it is deleted: each `threshold`-th one fires;
- a proactive bucket fires when its end has passed and it holds fewer than `threshold` events, with the last event that
  it saw as the triggering one;
- an event that is in both `after` and `expect` opens a bucket at -1, and re-opens a satisfied proactive one; a further `after` event
  leaves an open bucket, and its last event, as they are;
- a proactive bucket with `after` opens with the expected events that came before and lie within it (`windows.held_events`);
- a bucket is deleted 60 s after its end, at the earliest when the clock advances past its last change.

Boundaries: an event belongs to [start, end). A periodic check evaluates proactive buckets; it is due at the earliest bucket's end
or after `within`. Deliberate differences, where Prefect has defects: docs/rules.md, "Differences from Prefect".

State: [touched, start, end, count, last] where `last` is [time, position, event, awaited] in a proactive bucket that saw one, else None;
`awaited` says that the event was expected and opens nothing.
Called by `triggers.buckets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.held_events import count_within
from whenthen.triggers.windows.transitions import State, Transition

__all__ = ["TumblingRule", "expires_us", "initial_state", "is_satisfied", "lapse", "on_event", "on_time"]

#: how much older than a bucket's first event others may be (Prefect's lookback for out-of-order events)
_LOOKBACK_US = 15 * 60 * 1_000_000
#: how long after its end a bucket is deleted (Prefect's default buffer for expired buckets)
_DELETE_AFTER_US = 60 * 1_000_000
_TOUCHED, _START, _END, _COUNT, _LAST = range(5)
_AWAITED = 3  #: in `last`


@dataclass(frozen=True, slots=True, kw_only=True)
class TumblingRule:
    threshold: int
    within_us: int
    proactive: bool
    needs_after: bool

    @property
    def holds_events(self) -> bool:
        """Whether expected events are held for a bucket that opens later."""
        return self.proactive and self.needs_after

    @property
    def has_state(self) -> bool:
        """Whether there is any state: without it every expected event fires."""
        return self.proactive or self.needs_after or self.threshold > 1 or self.within_us > 0


def expires_us(state: State) -> int:
    """When the bucket is deleted."""
    return max(int(state[_END]) + _DELETE_AFTER_US, int(state[_TOUCHED]) + 1)


def is_satisfied(rule: TumblingRule, state: State) -> bool:
    """Whether a proactive bucket has its `threshold` events; a check deletes such a bucket before its end."""
    return bool(state[_COUNT] >= rule.threshold)


def initial_state(rule: TumblingRule, *, now_us: int) -> State:
    """The state of a bucket that opens now, without an event."""
    return [now_us, now_us, now_us + rule.within_us, 0, None]


def on_event(
    rule: TumblingRule,
    state: State | None,
    event: Ref,
    *,
    now_us: int,
    counts: bool,
    opens: bool,
    data: dict[str, Any] | None = None,
    held: State | None = None,
) -> Transition:
    """Decide for one event that passed the filter.

    `data` is the event itself, which a proactive bucket stores; `held` are the events held for the key, with this one.
    """
    if state is not None and expires_us(state) <= now_us:
        state = None
    time_us = event.time_us
    last = [time_us, event.seq, data, counts and not opens] if rule.proactive else None
    opened = state is None
    if state is None and opens:
        came = count_within(held, time_us, time_us + rule.within_us)
        state = [now_us, time_us, time_us + rule.within_us, came - 1 if counts else came, last]
    elif state is None and counts and not rule.needs_after:
        state = [now_us, time_us - _LOOKBACK_US, time_us + rule.within_us, 0, last]
    elif state is None:
        return Transition(Reason.WAITING_FOR_AFTER, None, "no `after` event opened a bucket")
    state[_TOUCHED] = now_us
    if not counts:
        return Transition(Reason.OPENED, state, _opening(state) if opened else "its bucket was open")
    return _evaluate(rule, state, time_us, event, last, now_us=now_us, opens=opens, held=held)


def on_time(rule: TumblingRule, state: State, *, now_us: int) -> Transition:
    """Check one proactive bucket at time `now_us`."""
    return _evaluate(rule, state, now_us, None, None, now_us=now_us, opens=False)


def lapse(rule: TumblingRule, state: State, *, now_us: int) -> Transition | None:
    """Close a proactive bucket that ended, unsatisfied, while nobody watched; None when it did not."""
    if now_us < state[_END] or is_satisfied(rule, state):
        return None
    detail = "its end fell into a time without the rule"
    if rule.needs_after:
        return Transition(Reason.LAPSED, None, detail)
    return Transition(Reason.LAPSED, initial_state(rule, now_us=now_us), detail + "; it watches from now on")


def _evaluate(
    rule: TumblingRule,
    state: State,
    time_us: int,
    event: Ref | None,
    last: list[Any] | None,
    *,
    now_us: int,
    opens: bool,
    held: State | None = None,
) -> Transition:
    _, start, end, count, before = state
    if time_us < start:
        quiet = not rule.proactive and start - time_us <= rule.within_us
        return Transition(Reason.COOLDOWN if quiet else Reason.LATE, state, "before the start of the current bucket")
    unspent = event is not None
    if event is not None and ((not rule.proactive and not rule.within_us) or time_us < end):
        count = state[_COUNT] = count + 1
        state[_LAST] = last
        unspent = False
    meets = count < rule.threshold if rule.proactive else count >= rule.threshold
    detail = f"{max(count, 0)} of {rule.threshold} in the bucket"
    if meets and (not rule.proactive or end <= time_us):
        fired = state[_LAST] if event is None else last
        ref = event if event is not None else None if fired is None else Ref(fired[2]["id"], fired[1], fired[0])
        following = None
        if not rule.needs_after and rule.within_us:
            following = _following(rule, state, time_us, now_us, count=1 if unspent else 0)
        refs = () if ref is None else (ref,)
        return Transition(Reason.FIRED, following, detail, refs=refs, at_us=now_us, event=fired)
    if time_us < end:
        if event is not None and rule.proactive and not meets and opens:
            # what is held counts again: the bucket does not know when each event that it counted occurred
            came = count_within(held, time_us, time_us + rule.within_us)
            awaited = before is not None and len(before) > _AWAITED and before[_AWAITED] and before[0] >= time_us
            again = [now_us, time_us, time_us + rule.within_us, came, before if awaited else last]
            return Transition(Reason.EXPECTED, again, "opened the next bucket")
        return Transition(Reason.EXPECTED if rule.proactive and not meets else Reason.BELOW_THRESHOLD, state, detail)
    if rule.needs_after:
        return Transition(Reason.WAITING_FOR_AFTER, None, "its bucket had ended")
    if not rule.within_us:
        return Transition(Reason.BELOW_THRESHOLD, state, detail)
    if event is not None and not rule.proactive:
        following = _following(rule, state, time_us, now_us, count=0)
        return _evaluate(rule, following, time_us, event, last, now_us=now_us, opens=opens)
    following = _following(rule, state, time_us, now_us, count=1 if unspent else 0)
    return Transition(Reason.EXPECTED if rule.proactive else Reason.BELOW_THRESHOLD, following, detail)


def _opening(state: State) -> str:
    return f"opened a bucket with {state[_COUNT]} that came before" if state[_COUNT] else "opened a bucket"


def _following(rule: TumblingRule, state: State, time_us: int, now_us: int, *, count: int) -> State:
    """The next bucket: from the end of this one, or from the event after it."""
    start = max(state[_END], time_us)
    return [now_us, start, start + rule.within_us, count, None]
