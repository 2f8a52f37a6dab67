"""Proactive triggers with exact windows: fire when fewer than `threshold` events came before the window ended.

With `after`, an `after` event at `a` opens [a, a + within); the window ends satisfied with the `threshold`-th expected event in it, or
fires at a + within. Further `after` events while it is open change nothing; one that is also expected counts first
and, when that ended the window, opens the next (heartbeats). Expected events are kept for `within`, so one that
arrives before the `after` event it belongs to still counts. After a firing no window opens for events that lie before
its deadline plus `cooldown`, when one is given, and none for events that are not newer than the one that opened it. Expected
events that come while no window is open satisfy nothing, but say that what a firing missed has come (`Transition.refs`).

Without `after`, the window always ends `within` after the `threshold`-th newest event (or after it opened). When it fires it
opens again, and the next firing comes `cooldown` later at the earliest. Several windows that ended between two values of the
clock fire once. An event that is older than `within` of the clock is late.

State: [touched, opened, deadline, depth, opened_by, time, position, id, ...]; `opened_by` is the event that opened the
window, [id, position] (its id alone in states of the first versions, "" without one), `depth` its depth; `deadline` is 0 when no window is open, and `opened` is then the end of the cooldown after a firing.
Without `after`, `opened` plus `within` is the earliest deadline.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Absence".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.transitions import State, Transition, refs_of

__all__ = ["AbsenceRule", "deadline_us", "expires_us", "initial_state", "lapse", "on_event", "on_time", "opened_by"]

_HEAD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsenceRule:
    threshold: int
    within_us: int
    cooldown_us: int
    needs_after: bool


def initial_state(rule: AbsenceRule, *, now_us: int) -> State:
    """The state of a window that opens now, without an event."""
    return [now_us, now_us, now_us + rule.within_us, 0, ""]


def deadline_us(state: State) -> int | None:
    """When the window ends, or None when none is open."""
    return state[2] or None


def expires_us(rule: AbsenceRule, state: State) -> int | None:
    """When a state without open window expires; None while one is open."""
    return None if state[2] else max(state[0] + rule.within_us, state[1])


def opened_by(state: State) -> Ref | None:
    """The event that opened the window; None when it opened without one."""
    if not state[4]:
        return None
    event_id, seq = (state[4], 0) if isinstance(state[4], str) else state[4]
    return Ref(event_id, seq, state[1])


def on_event(
    rule: AbsenceRule, state: State | None, event: Ref, *, now_us: int, counts: bool, opens: bool, depth: int = 0
) -> Transition:
    """Decide for one event that passed the filter. `on_time` was called before for a window that ended before `now_us`."""
    if not rule.needs_after and event.time_us <= now_us - rule.within_us:
        return Transition(Reason.LATE, state, "older than the window that ends now", changed=False)
    if state is None or (not state[2] and max(state[0] + rule.within_us, state[1]) <= now_us):
        state = [now_us, 0, 0, 0, ""]
    if _has(state, event):
        return Transition(Reason.SPENT, state, "this event counts already", changed=False)
    state[0] = now_us
    if not rule.needs_after:
        return _count_event(rule, state, event)
    transition = Transition(Reason.OPENED, state)
    came: tuple[Ref, ...] | None = None
    if counts:
        _keep_event(rule, state, event, now_us)
        if not state[2]:
            came = _missed(rule, state, event)
            transition = Transition(Reason.WAITING_FOR_AFTER, state, "no window is open")
        else:
            count = _covered(state, state[1], state[2])
            if event.time_us < state[1]:
                transition = Transition(Reason.LATE, state, "older than the `after` event that opened the window")
            elif count >= rule.threshold:
                refs = refs_of(state[_HEAD:])
                state[1] = state[2] = 0
                detail = f"{count} of {rule.threshold} came in time"
                transition = Transition(Reason.EXPECTED, state, detail, refs=refs, total=(len(state) - _HEAD) // 3)
            else:
                transition = Transition(Reason.BELOW_THRESHOLD, state, f"{count} of {rule.threshold} came so far")
    if opens and not state[2] and event.time_us < state[1]:
        left = (state[1] - event.time_us) / 1e6
        transition = Transition(Reason.COOLDOWN, state, f"quiet for another {left:g} s after a firing")
    elif opens and not state[2]:
        start, end = event.time_us, event.time_us + rule.within_us
        if counts:
            _remove_event(state, event)
        if _covered(state, start, end) < rule.threshold:
            state[1], state[2], state[3], state[4] = start, end, depth, [event.id, event.seq]
            if transition.reason is Reason.OPENED or transition.reason is Reason.WAITING_FOR_AFTER:
                transition = Transition(Reason.OPENED, state, f"opened a window of {rule.within_us / 1e6:g} s")
        elif transition.reason is Reason.OPENED:
            transition = Transition(Reason.EXPECTED, state, "the expected events had arrived before it")
    if came:
        transition.refs, transition.total = came, len(came)
    return transition


def on_time(rule: AbsenceRule, state: State, *, now_us: int) -> Transition:
    """End the window when its deadline has passed: fire, since the expected events would have closed it."""
    due: int = state[2]
    if not due or now_us < due:
        return Transition(Reason.BELOW_THRESHOLD, state)
    start = state[1] if rule.needs_after else due - rule.within_us
    flat: State = []
    for i in range(_HEAD, len(state), 3):
        if start <= state[i] < due:
            flat += state[i : i + 3]
    opener = opened_by(state) if rule.needs_after else None
    if opener is not None:
        flat[:0] = [opener.time_us, opener.seq, opener.id]
    refs, total = refs_of(flat), len(flat) // 3
    detail = f"fewer than {rule.threshold} came within {rule.within_us / 1e6:g} s"
    if rule.needs_after:
        state[0] = now_us
        state[1] = due + rule.cooldown_us if rule.cooldown_us else start + 1
        state[2] = 0
        return Transition(Reason.FIRED, state, detail, refs=refs, at_us=due, total=total)
    period = max(rule.within_us, rule.cooldown_us)
    deadline = due + ((now_us - due) // period + 1) * period
    following = [now_us, deadline - rule.within_us, deadline, 0, ""]
    return Transition(Reason.FIRED, following, detail, refs=refs, at_us=due, total=total)


def lapse(rule: AbsenceRule, state: State, *, now_us: int) -> Transition | None:
    """Close a window that ended while nobody watched; None when none did. What was not seen may have come."""
    due: int = state[2]
    if not due or now_us < due:
        return None
    detail = "its end fell into a time without the rule"
    if not rule.needs_after:
        return Transition(Reason.LAPSED, initial_state(rule, now_us=now_us), detail + "; it watches from now on")
    return Transition(Reason.LAPSED, [now_us, state[1] + 1, 0, *state[3:]], detail)


def _missed(rule: AbsenceRule, state: State, event: Ref) -> tuple[Ref, ...] | None:
    """The events that a firing missed, once `threshold` of them came within `within`; None while they did not."""
    started = (state[1] - rule.cooldown_us - rule.within_us if rule.cooldown_us else state[1] - 1) if state[1] else 0
    first = max(started, event.time_us - rule.within_us)
    flat: State = []
    for i in range(_HEAD, len(state), 3):
        if first <= state[i]:
            flat += state[i : i + 3]
    if not flat and event.time_us >= first:
        flat = [event.time_us, event.seq, event.id]  # too old to count in a window that opens now
    return refs_of(flat) if len(flat) // 3 >= rule.threshold else None


def _count_event(rule: AbsenceRule, state: State, event: Ref) -> Transition:
    """Without `after`: the newest `threshold` events decide when the window ends."""
    if len(state) > _HEAD and event.time_us <= state[_HEAD] and (len(state) - _HEAD) // 3 >= rule.threshold:
        return Transition(Reason.LATE, state, "older than the events that already count")
    _insert(state, event)
    while (len(state) - _HEAD) // 3 > rule.threshold:
        del state[_HEAD : _HEAD + 3]
    count = (len(state) - _HEAD) // 3
    if count >= rule.threshold:
        refs = refs_of(state[_HEAD:])
        state[2] = max(state[1], state[_HEAD]) + rule.within_us
        detail = f"{count} of {rule.threshold} came within {rule.within_us / 1e6:g} s"
        return Transition(Reason.EXPECTED, state, detail, refs=refs, total=(len(state) - _HEAD) // 3)
    if not state[2]:
        state[1], state[2] = event.time_us, event.time_us + rule.within_us
    return Transition(Reason.BELOW_THRESHOLD, state, f"{count} of {rule.threshold} came so far")


def _keep_event(rule: AbsenceRule, state: State, event: Ref, now_us: int) -> None:
    _insert(state, event)
    horizon = state[1] if state[2] else now_us - rule.within_us
    limit = _HEAD + 3 * rule.threshold
    while len(state) > _HEAD and (state[_HEAD] < horizon or len(state) > limit):
        del state[_HEAD : _HEAD + 3]


def _has(state: State, event: Ref) -> bool:
    return any(state[i] == event.time_us and state[i + 2] == event.id for i in range(_HEAD, len(state), 3))


def _insert(state: State, event: Ref) -> None:
    at = len(state)
    while at > _HEAD and state[at - 3] > event.time_us:
        at -= 3
    state[at:at] = [event.time_us, event.seq, event.id]


def _remove_event(state: State, event: Ref) -> None:
    """An event that opens a window does not count in it."""
    for i in range(_HEAD, len(state), 3):
        if state[i + 2] == event.id:
            del state[i : i + 3]
            return


def _covered(state: State, start: int, end: int) -> int:
    return sum(start <= state[i] < end for i in range(_HEAD, len(state), 3))
