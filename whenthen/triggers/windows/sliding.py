"""Reactive triggers with exact windows: fire when `threshold` events lie within any span of `within`.

Windows are half-open: events `a` and `b` lie within one another when b - a < within. The events of a firing are spent. After a
firing the key is quiet until the newest of its events plus `cooldown`: what comes then neither fires nor counts. Events may
arrive out of order by up to `within`; an older one is late. With `after`, an event counts only in [a, a + within) of an
`after` event, a firing closes those windows, and an event that is both counts first and opens then.

State: [touched, quiet_until, spent_until, after times, time, position, id, time, position, id, ...] with the unspent events in
order of time. Invariant: no `threshold` of them lie within one another, so the list is short.

Called by `triggers.evaluator`. Meaning: docs/rules.md, "Sliding windows".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.steps import State, Step, refs_of

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
    """From when on nothing in `state` can change a decision."""
    return int(max(state[0] + 2 * rule.within_us, state[1]))


def on_event(rule: SlidingRule, state: State | None, event: Ref, *, now_us: int, counts: bool, opens: bool) -> Step:
    """Decide for one event that passed the filter.

    `counts`: it is one of the expected events; `opens`: it is one of the `after` events; both may hold.
    """
    if state is None or expires_us(rule, state) <= now_us:
        state = [now_us, 0, 0, 0]
    step = _count(rule, state, event) if counts else Step(Reason.OPENED, state, "opened a window")
    if opens and step.state is not None:
        _open(rule, step.state, event.time_us)
    if step.state is not None:
        step.state[0] = now_us
        if len(step.state) == _HEAD and not step.state[3] and step.state[1] <= event.time_us and not step.state[2]:
            step.state = None
    return step


def _count(rule: SlidingRule, state: State, event: Ref) -> Step:
    time_us = event.time_us
    within = rule.within_us
    if time_us < state[1]:
        return Step(Reason.COOLDOWN, state, f"quiet for another {(state[1] - time_us) / 1e6:g} s after a firing")
    size = len(state)
    if size > _HEAD and time_us <= state[size - 3] - within:
        return Step(
            Reason.LATE, state, f"{(state[size - 3] - time_us) / 1e6:g} s older than the newest event of its key"
        )
    floor = -1
    if rule.needs_after:
        openings = state[3] or []
        covering = [opened for opened in openings if opened <= time_us < opened + within]
        if not covering:
            return Step(Reason.WAITING_FOR_AFTER, state, "no `after` event opened a window that covers it")
        floor = covering[0]
    if rule.threshold == 1:
        return _fire(rule, state, [time_us, event.seq, event.id])
    at = size
    while at > _HEAD and state[at - 3] > time_us:
        at -= 3
    state[at:at] = [time_us, event.seq, event.id]
    span = 3 * rule.threshold
    for start in range(max(_HEAD, at - span + 3), at + 1, 3):
        end = start + span
        if end > len(state):
            break
        if state[end - 3] - state[start] < within and state[start] >= floor:
            fired = state[start:end]
            del state[start:end]
            return _fire(rule, state, fired)
    newest = state[-3]
    while state[_HEAD] <= newest - 2 * within:
        del state[_HEAD : _HEAD + 3]
    near = sum(abs(state[i] - time_us) < within for i in range(_HEAD, len(state), 3))
    spent = time_us < state[2]
    return Step(
        Reason.SPENT if spent else Reason.BELOW_THRESHOLD,
        state,
        f"{near} of {rule.threshold} within {within / 1e6:g} s"
        + (", earlier ones were spent by a firing" if spent else ""),
    )


def _fire(rule: SlidingRule, state: State, fired: State) -> Step:
    at_us = fired[-3]
    if rule.cooldown_us:
        state[1] = at_us + rule.cooldown_us
    elif rule.threshold > 1:
        state[2] = at_us + rule.within_us
    if rule.needs_after:
        state[3] = [opened for opened in state[3] if opened > at_us] or 0
    return Step(Reason.FIRED, state, refs=refs_of(fired), at_us=at_us)


def _open(rule: SlidingRule, state: State, time_us: int) -> None:
    openings = state[3] or []
    horizon = max([time_us, *openings[-1:]]) - 2 * rule.within_us
    state[3] = sorted({time_us, *(opened for opened in openings if opened > horizon)})[-_MAX_OPENINGS:]
