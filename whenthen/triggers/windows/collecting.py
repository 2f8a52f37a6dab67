"""Bursts: collect matching events and fire once with all of them.

A burst starts with its first event and ends with the `events`-th one, `wait` after the first, or `quiet` after the latest,
whichever is first; `wait` and `quiet` are measured by the evaluator's clock. An event counts once in a burst.
Of a burst the newest 1,000 events are kept, and how many came before them; the id of an event is looked for among these.

With `first: now` the first event fires at once and alone, and the burst that it starts gathers those that follow. After a firing at t no
other comes before t + `cooldown`: what comes until then is gathered, and fires then if its burst has ended.

State: [touched, first, depth, dropped, quiet until, time, position, id, ...]; `depth` is the largest of the events', `dropped` how many are
no longer kept, `quiet until` the end of the cooldown. `first` is 0 when no burst is open. States of earlier versions had no `quiet
until`, and the first ones no `dropped` either, but all events.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Bursts".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.long_texts import MAX_ID_BYTES, shorten
from whenthen.triggers.windows.transitions import MAX_REFS, State, Transition, refs_of

__all__ = ["CollectRule", "deadline_us", "on_event", "on_time"]

_HEAD = 5
_STEP = 3
_TOUCHED, _FIRST, _DEPTH, _DROPPED, _QUIET = range(_HEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRule:
    events: int
    wait_us: int
    quiet_us: int | None
    first_now: bool = False
    cooldown_us: int = 0


def deadline_us(rule: CollectRule, state: State) -> int:
    """When the burst ends, or else the cooldown, if no more event comes."""
    state = _carried_forward(state)
    quiet: int = state[_QUIET]
    count = _count(state)
    if not state[_FIRST] or count >= rule.events:
        return quiet
    end: int = state[_FIRST] + rule.wait_us
    if rule.quiet_us is not None:
        end = min(end, state[_TOUCHED] + rule.quiet_us)
    return max(end, quiet) if count else end


def on_event(rule: CollectRule, state: State | None, event: Ref, *, now_us: int, depth: int = 0) -> Transition:
    """Add one event; fires when the burst is full, or for the first event at once."""
    event_id = shorten(event.id, MAX_ID_BYTES)
    state = [now_us, 0, 0, 0, 0] if state is None else _carried_forward(state)
    if event_id in state[_HEAD + 2 :: _STEP]:
        return Transition(Reason.SPENT, state, "this event is in the burst already", changed=False)
    state[_TOUCHED] = now_us
    if not state[_FIRST]:
        state[_FIRST] = now_us
        if rule.first_now and state[_QUIET] <= now_us:
            state[_QUIET] = now_us + rule.cooldown_us
            return Transition(Reason.FIRED, state, "the first of a burst", refs=(event,), at_us=event.time_us)
    state[_DEPTH] = max(state[_DEPTH], depth)
    state += (event.time_us, event.seq, event_id)
    if len(state) > _HEAD + _STEP * MAX_REFS:
        del state[_HEAD : _HEAD + _STEP]
        state[_DROPPED] += 1
    count = _count(state)
    if count < rule.events:
        return Transition(Reason.COLLECTING, state, f"{count} of {rule.events} gathered")
    if now_us < state[_QUIET]:
        left = (state[_QUIET] - now_us) / 1e6
        return Transition(Reason.COLLECTING, state, f"{count} gathered; quiet for another {left:g} s after a firing")
    return _fire(rule, state, event.time_us, now_us)


def on_time(rule: CollectRule, state: State, *, now_us: int) -> Transition:
    """End the burst, or the cooldown, when its deadline has passed."""
    due = deadline_us(rule, state)
    if now_us < due:
        return Transition(Reason.COLLECTING, state)
    state = _carried_forward(state)
    if _count(state):
        return _fire(rule, state, due, due)
    return Transition(Reason.COLLECTING, _quiet_state(state[_QUIET], due))


def _fire(rule: CollectRule, state: State, at_us: int, now_us: int) -> Transition:
    refs = sorted(refs_of(state[_HEAD:]), key=lambda ref: ref.time_us)
    following = _quiet_state(now_us + rule.cooldown_us, now_us)
    return Transition(Reason.FIRED, following, refs=tuple(refs), at_us=at_us, depth=state[_DEPTH], total=_count(state))


def _quiet_state(quiet_us: int, now_us: int) -> State | None:
    """The state of a key without burst; None when it is not quiet either."""
    return [now_us, 0, 0, 0, quiet_us] if quiet_us > now_us else None


def _count(state: State) -> int:
    dropped: int = state[_DROPPED]
    return dropped + (len(state) - _HEAD) // _STEP


def _carried_forward(state: State) -> State:
    """The state in today's form."""
    if len(state) % _STEP == _HEAD % _STEP:
        return state
    if len(state) % _STEP == _QUIET % _STEP:
        return [*state[:_QUIET], 0, *state[_QUIET:]]
    kept = state[_DROPPED:]
    surplus = max(0, len(kept) // _STEP - MAX_REFS)
    return [*state[:_DROPPED], surplus, 0, *kept[_STEP * surplus :]]
