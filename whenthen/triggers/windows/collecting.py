"""Bursts: collect matching events and fire once with all of them.

A burst starts with its first event and ends with the `events`-th one, `wait` after the first, or `quiet` after the latest,
whichever is first; `wait` and `quiet` are measured by the evaluator's clock. An event counts once in a burst.
State: [touched, first, depth, time, position, id, ...]; `depth` is the largest of the events'.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Bursts".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas import Reason, Ref
from whenthen.triggers.windows.transitions import State, Transition, refs_of

__all__ = ["CollectRule", "deadline_us", "on_event", "on_time"]

_HEAD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRule:
    events: int
    wait_us: int
    quiet_us: int | None


def deadline_us(rule: CollectRule, state: State) -> int:
    """When the burst ends if no more event comes."""
    end: int = state[1] + rule.wait_us
    return end if rule.quiet_us is None else min(end, state[0] + rule.quiet_us)


def on_event(rule: CollectRule, state: State | None, event: Ref, *, now_us: int, depth: int = 0) -> Transition:
    """Add one event; fires when the burst is full."""
    if state is None:
        state = [now_us, now_us, 0]
    elif event.id in state[_HEAD + 2 :: 3]:
        return Transition(Reason.SPENT, state, "this event is in the burst already", changed=False)
    state[0] = now_us
    state[2] = max(state[2], depth)
    state += (event.time_us, event.seq, event.id)
    count = (len(state) - _HEAD) // 3
    if count >= rule.events:
        return _fire(state, event.time_us)
    return Transition(Reason.COLLECTING, state, f"{count} of {rule.events} gathered")


def on_time(rule: CollectRule, state: State, *, now_us: int) -> Transition:
    """End the burst when its deadline has passed."""
    due = deadline_us(rule, state)
    if now_us < due:
        return Transition(Reason.COLLECTING, state)
    return _fire(state, due)


def _fire(state: State, at_us: int) -> Transition:
    refs = sorted(refs_of(state[_HEAD:]), key=lambda ref: ref.time_us)
    return Transition(Reason.FIRED, None, refs=tuple(refs), at_us=at_us, depth=state[2])
