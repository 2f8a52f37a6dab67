"""Reactive triggers with exact windows: fire when `threshold` events lie within any span of `within`.

Windows are half-open: events `a` and `b` lie in one window when b - a < within. The events of a firing are spent. After a
firing the key is in cooldown until the time of the newest event plus `cooldown`: events before that time neither fire nor count,
also when they arrived earlier. Events may arrive out of order by up to `within`; an older one is late. With `after`, all events of a
firing lie in the window [a, a + within) of one `after` event, a firing closes the windows up to its newest event, and an
event that matches both counts first and then opens a window. An event counts once in a window. The state of a key expires
after 2 * `within` of the clock without events; after a firing not before the end of the cooldown plus the longer of `within` and
`cooldown`, since events may be late.

State: [touched, quiet_until, spent_until, after times, time, position, id, time, position, id, ...] with the unspent events in
order of time; `quiet_until` is the end of the cooldown, `spent_until` the newest spent event plus `within`. Invariant: no
`threshold` of the events lie in one window (and in one window of an `after` event), so the list is short.

Called by `triggers.windowing`. Meaning: docs/rules.md, "Sliding windows".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.transitions import State, Transition, refs_of

__all__ = ["SlidingRule", "expires_us", "on_event"]

_HEAD = 4
_MAX_OPENINGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingRule:
    threshold: int
    within_us: int
    cooldown_us: int
    needs_after: bool


def expires_us(rule: SlidingRule, state: State) -> int:
    """When the state expires: from then on it can not change a decision."""
    end: int = state[0] + 2 * rule.within_us
    if state[1]:
        end = max(end, state[1] + max(rule.within_us, rule.cooldown_us))
    return end


def on_event(
    rule: SlidingRule, state: State | None, event: Ref, *, now_us: int, counts: bool, opens: bool
) -> Transition:
    """Decide for one event that passed the filter.

    `counts`: it is one of the expected events; `opens`: it is one of the `after` events; both may hold.
    """
    if state is None or expires_us(rule, state) <= now_us:
        state = [now_us, 0, 0, 0]
    elif counts and not opens and event.time_us < state[1]:
        return Transition(Reason.COOLDOWN, state, _quiet(state, event), changed=False)
    transition = _count(rule, state, event) if counts else Transition(Reason.OPENED, state, "opened a window")
    if opens:
        _open(rule, state, event.time_us)
        transition.changed = True
    if transition.changed:
        state[0] = now_us
        if len(state) == _HEAD and not state[3] and state[1] <= event.time_us and not state[2]:
            transition.state = None
    return transition


def _count(rule: SlidingRule, state: State, event: Ref) -> Transition:
    time_us = event.time_us
    within = rule.within_us
    if time_us < state[1]:
        return Transition(Reason.COOLDOWN, state, _quiet(state, event))
    size = len(state)
    newest = state[2] - within if state[2] else 0
    if size > _HEAD and state[size - 3] > newest:
        newest = state[size - 3]
    if newest and time_us <= newest - within:
        detail = f"{(newest - time_us) / 1e6:g} s older than the newest event of its key"
        return Transition(Reason.LATE, state, detail, changed=False)
    covering: list[int] = []
    if rule.needs_after:
        covering = [opened for opened in state[3] or () if opened <= time_us < opened + within]
        if not covering:
            return Transition(Reason.WAITING_FOR_AFTER, state, "no `after` event opened a window that covers it")
    if rule.threshold == 1:
        return _fire(rule, state, [time_us, event.seq, event.id])
    at = size
    if size > _HEAD and state[-3] >= time_us:  # out of order, or at the same time
        at = _HEAD + 3 * bisect_left(range((size - _HEAD) // 3), time_us, key=lambda index: state[_HEAD + 3 * index])
        while at < size and state[at] == time_us:
            if state[at + 2] == event.id:
                return Transition(Reason.SPENT, state, "this event counts already", changed=False)
            at += 3
    if at == size:
        state += (time_us, event.seq, event.id)
    else:
        state[at:at] = (time_us, event.seq, event.id)
    span = 3 * rule.threshold
    for start in range(max(_HEAD, at - span + 3), at + 1, 3):
        end = start + span
        if end > len(state):
            break
        if state[end - 3] - state[start] < within and (
            not rule.needs_after or any(a <= state[start] and state[end - 3] < a + within for a in covering)
        ):
            fired = state[start:end]
            del state[start:end]
            return _fire(rule, state, fired)
    horizon = state[-3] - 2 * within
    while state[_HEAD] <= horizon:
        del state[_HEAD : _HEAD + 3]
    near = 1 if len(state) == _HEAD + 3 else _near(state, time_us, within)
    spent = time_us < state[2]
    return Transition(
        Reason.SPENT if spent else Reason.BELOW_THRESHOLD,
        state,
        f"{near} of {rule.threshold} within {within / 1e6:g} s"
        + (", earlier ones were spent by a firing" if spent else ""),
    )


def _near(state: State, time_us: int, within: int) -> int:
    """How many events lie less than `within` from `time_us`."""
    if state[-3] < time_us + within and state[_HEAD] > time_us - within:
        return (len(state) - _HEAD) // 3
    times = state[_HEAD::3]
    return bisect_left(times, time_us + within) - bisect_right(times, time_us - within)


def _fire(rule: SlidingRule, state: State, fired: State) -> Transition:
    at_us = fired[-3]
    if rule.cooldown_us:
        state[1] = at_us + rule.cooldown_us
        for i in range(len(state) - 3, _HEAD - 1, -3):
            if at_us < state[i] < state[1]:
                del state[i : i + 3]
    if rule.threshold > 1:
        state[2] = max(state[2], at_us + rule.within_us)
    if rule.needs_after:
        state[3] = [opened for opened in state[3] if opened > at_us] or 0
    return Transition(Reason.FIRED, state, refs=refs_of(fired), at_us=at_us, total=len(fired) // 3)


def _open(rule: SlidingRule, state: State, time_us: int) -> None:
    openings = state[3] or []
    horizon = max([time_us, *openings[-1:]]) - 2 * rule.within_us
    kept = sorted({time_us, *(opened for opened in openings if opened > horizon)})
    if len(kept) > _MAX_OPENINGS:
        # of several `after` events with no counted event between them, only the latest is needed
        needed = {bisect_right(kept, state[i]) - 1 for i in range(_HEAD, len(state), 3)}
        surplus = [number for number in range(len(kept) - _MAX_OPENINGS // 2) if number not in needed]
        for number in reversed(surplus):
            del kept[number]
    state[3] = kept


def _quiet(state: State, event: Ref) -> str:
    return f"quiet for another {(state[1] - event.time_us) / 1e6:g} s after a firing"
