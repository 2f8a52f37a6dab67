"""Bursts: collect matching events and fire once with all of them.

A burst starts with its first event and ends with the `events`-th one, `wait` after the first, or `quiet` after the latest,
whichever is first; `wait` and `quiet` are measured by the evaluator's clock. An event counts once in a burst.
Of a burst the newest 1,000 events are kept, and how many came before them; the id of an event is looked for among these.

State: [touched, first, depth, dropped, time, position, id, ...]; `depth` is the largest of the events', `dropped` how many are no longer
kept. States of earlier versions had no `dropped`, and all events.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Bursts".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.long_texts import MAX_ID_BYTES, shorten
from whenthen.triggers.windows.transitions import MAX_REFS, State, Transition, refs_of

__all__ = ["CollectRule", "deadline_us", "on_event", "on_time"]

_HEAD = 4
_STEP = 3
_DROPPED = 3


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
    event_id = shorten(event.id, MAX_ID_BYTES)
    if state is None:
        state = [now_us, now_us, 0, 0]
    else:
        state = _carried_forward(state)
    if event_id in state[_HEAD + 2 :: _STEP]:
        return Transition(Reason.SPENT, state, "this event is in the burst already", changed=False)
    state[0] = now_us
    state[2] = max(state[2], depth)
    state += (event.time_us, event.seq, event_id)
    if len(state) > _HEAD + _STEP * MAX_REFS:
        del state[_HEAD : _HEAD + _STEP]
        state[_DROPPED] += 1
    count = _count(state)
    if count >= rule.events:
        return _fire(state, event.time_us)
    return Transition(Reason.COLLECTING, state, f"{count} of {rule.events} gathered")


def on_time(rule: CollectRule, state: State, *, now_us: int) -> Transition:
    """End the burst when its deadline has passed."""
    due = deadline_us(rule, state)
    if now_us < due:
        return Transition(Reason.COLLECTING, state)
    return _fire(_carried_forward(state), due)


def _fire(state: State, at_us: int) -> Transition:
    refs = sorted(refs_of(state[_HEAD:]), key=lambda ref: ref.time_us)
    return Transition(Reason.FIRED, None, refs=tuple(refs), at_us=at_us, depth=state[2], total=_count(state))


def _count(state: State) -> int:
    dropped: int = state[_DROPPED]
    return dropped + (len(state) - _HEAD) // _STEP


def _carried_forward(state: State) -> State:
    """The state in today's form."""
    if len(state) % _STEP == _HEAD % _STEP:
        return state
    kept = state[_DROPPED:]
    surplus = max(0, len(kept) // _STEP - MAX_REFS)
    return [*state[:_DROPPED], surplus, *kept[_STEP * surplus :]]
