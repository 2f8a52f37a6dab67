"""Metric triggers: an aggregate of a value over recent events against a threshold, with an optional hold.

The window at time `now` covers events in (now - within, now]. It is evaluated for every event and whenever an event leaves
it. The trigger fires when the comparison has held for `hold`, once, and resolves when it no longer holds. Without
events `count`, `sum` and `distinct` are 0; the other aggregates have no value, and then the comparison does not
hold. Comparisons that an incomplete window could satisfy (`<`, `<=`, `==`, `!=` of a count, sum or distinct) are not evaluated
until the window has been open for `within`. Percentiles are nearest-rank.

The newest 1,000 events are kept one by one (`metric_exact`). While the window covers more, all its events are also counted in
slices of time, `within` / 256 long and aligned to the epoch (`metric_slices`), and a slice counts as long as any moment of it lies
in the window. Whether all events that the window covers are among the newest 1,000 is known from the newest of those that are
not, and then they alone are the aggregate: so the window is exact again as soon as it covers 1,000 or fewer.

The state of a key without events for 2 * `within` of the clock expires, unless it is triggered or within its hold. A sum or an
average beyond the range of a float is infinite. An event counts once: its id is looked for among the newest 1,000. An event ahead of
the clock counts as one of this moment.

State: [touched, triggered, since, started, depth, slices, time, position, id, value, ...]; `since` is 0 while the comparison does not
hold, `depth` is that of the newest event, `slices` None or what `Slices.stored` says, events are in order of time. States
of earlier versions had no `slices`, and all events of the window; they are carried forward when they are used.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Metrics".
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.long_texts import MAX_ID_BYTES, MAX_VALUE_BYTES, shorten
from whenthen.triggers.windows.metric_exact import ExactAggregate, Reading, read
from whenthen.triggers.windows.metric_slices import Slices
from whenthen.triggers.windows.transitions import MAX_REFS, State, Transition

__all__ = ["MetricRule", "deadline_us", "expires_us", "initial_state", "lapse", "on_event", "on_time"]

_SLICES = 5  #: where the slices are
_HEAD = 6
_STEP = 4
_HEAD_BEFORE = 5  #: of states of earlier versions
_FEW = 16  #: up to so many events are added up anew each time, which needs no memory between events
_SLICES_IN_WINDOW = 256
_MAX_WHOLE = 2**53  #: whole numbers beyond are not exact as floats
_EXACT_AGAIN = MAX_REFS // 2  #: slices are dropped when so few events are left, and not at 1,000, to and fro
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    aggregate: str
    operator: str
    threshold: float
    within_us: int
    hold_us: int
    keyed: bool = False  #: whether there is a window for each key

    @property
    def warms_up(self) -> bool:
        return self.aggregate in ("count", "sum", "distinct") and self.operator not in (">", ">=")

    @property
    def slice_us(self) -> int:
        """The length of a slice."""
        return -(-self.within_us // _SLICES_IN_WINDOW)

    def first_slice(self, now_us: int) -> int:
        """The number of the oldest slice of which any moment lies in the window."""
        return (now_us - self.within_us + 1) // self.slice_us

    def slice_leaves_us(self, number: int) -> int:
        """When no moment of a slice lies in the window any more."""
        return (number + 1) * self.slice_us + self.within_us - 1


class _Window(list[Any]):
    """A state that is in use: `slices` are an object, and the aggregate over the events is at hand. Stored as a list."""

    __slots__ = ("exact",)

    exact: ExactAggregate | None


def initial_state(rule: MetricRule, *, now_us: int) -> State:
    """The state of a window that opens now."""
    return [now_us, 0, 0, now_us, 0, None]


def expires_us(rule: MetricRule, state: State) -> int | None:
    """When the state expires; None while triggered, within the hold, and for a window that opens without an event."""
    if state[1] or state[2] or (rule.warms_up and not rule.keyed):
        return None
    newest = state[-_STEP] if len(state) > _HEAD else state[0]
    return int(max(newest, state[0], state[3])) + 2 * rule.within_us


def deadline_us(rule: MetricRule, state: State) -> int | None:
    """When to evaluate again if no event comes: events leave the window, the hold ends, or the first window is complete."""
    times = []
    window = _in_use(rule, state)
    slices = window[_SLICES]
    if slices is not None and slices.evicted_us > window[0] - rule.within_us:
        times.append(slices.evicted_us + rule.within_us)
        if slices.oldest is not None:
            times.append(rule.slice_leaves_us(slices.oldest))
    elif len(window) > _HEAD:
        times.append(window[_HEAD] + rule.within_us)
    if state[2] and not state[1]:
        times.append(state[2] + rule.hold_us)
    if rule.warms_up and state[0] < state[3] + rule.within_us:
        times.append(state[3] + rule.within_us)
    return min(times) if times else None


def on_event(
    rule: MetricRule, state: State | None, event: Ref, value: Any, *, now_us: int, depth: int = 0
) -> Transition:
    """Add one event with its value. `value` must be a number unless the aggregate is `count` or `distinct`."""
    if event.time_us <= now_us - rule.within_us:
        return Transition(
            Reason.LATE,
            state,
            f"{(now_us - event.time_us) / 1e6:g} s old, the window covers {rule.within_us / 1e6:g} s",
            changed=False,
        )
    if state is None or ((end := expires_us(rule, state)) is not None and end <= now_us):
        state = initial_state(rule, now_us=now_us)
    window = _in_use(rule, state)
    event_id = shorten(event.id, MAX_ID_BYTES)
    if _has(window, event_id):
        return Transition(Reason.SPENT, window, "this event counts already", changed=False)
    if rule.aggregate == "distinct":
        if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE:
            value = int(value)  # 1.0 is no other value than 1
        value = _value_text(orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())
    elif rule.aggregate == "count":
        value = 0
    _trim(rule, window, now_us)
    window[4] = depth
    _insert(rule, window, min(event.time_us, now_us), event.seq, event_id, value)
    return _evaluate(rule, window, now_us=now_us)


def on_time(rule: MetricRule, state: State, *, now_us: int) -> Transition:
    """Evaluate the window at a deadline."""
    window = _in_use(rule, state)
    _trim(rule, window, now_us)
    return _evaluate(rule, window, now_us=now_us)


def lapse(rule: MetricRule, state: State, *, now_us: int) -> Transition | None:
    """Let a window be complete only `within` from now, when it would have been evaluated while nobody watched and an incomplete
    one could satisfy the comparison; None when that is not so, or when it is triggered already."""
    due = deadline_us(rule, state)
    if not rule.warms_up or state[1] or due is None or now_us < due:
        return None
    window = _in_use(rule, state)
    window[2], window[3] = 0, now_us
    return Transition(
        Reason.LAPSED, window, "incomplete after a time without the rule; it is evaluated when complete again"
    )


def _evaluate(rule: MetricRule, state: _Window, *, now_us: int) -> Transition:
    state[0] = now_us
    reading, total = _read(rule, state, now_us)
    warm = not rule.warms_up or now_us >= state[3] + rule.within_us
    holds = warm and reading.sign is not None and _COMPARE[rule.operator](reading.sign, 0)
    detail = f"{rule.aggregate} is {reading.shown}, wanted {rule.operator} {rule.threshold:g}"
    if not holds:
        state[2] = 0
        if state[1]:
            state[1] = 0
            return Transition(Reason.RESOLVED, state, detail, refs=_refs(state), at_us=now_us, total=total)
        return Transition(Reason.BELOW_THRESHOLD, state, detail)
    if not state[2]:
        state[2] = now_us
    if state[1]:
        return Transition(Reason.COOLDOWN, state, detail + "; already triggered")
    if now_us - state[2] < rule.hold_us:
        left = (state[2] + rule.hold_us - now_us) / 1e6
        return Transition(Reason.BELOW_THRESHOLD, state, detail + f"; must hold for another {left:g} s")
    state[1] = 1
    return Transition(Reason.FIRED, state, detail, refs=_refs(state), at_us=now_us, total=total)


def _read(rule: MetricRule, window: _Window, now_us: int) -> tuple[Reading, int]:
    """The aggregate at `now_us`, and over how many events."""
    slices: Slices | None = window[_SLICES]
    if slices is not None and slices.evicted_us > now_us - rule.within_us:
        return slices.reading(), slices.events
    number = _events(window)
    if number <= _EXACT_AGAIN:
        window[_SLICES] = None
    exact = window.exact
    if exact is None:
        exact = ExactAggregate(rule.aggregate, zip(window[_HEAD + 2 :: _STEP], window[_HEAD + 3 :: _STEP], strict=True))
        if number > _FEW:
            window.exact = exact
    elif number <= _FEW // 2:
        window.exact = None
    return read(exact.value(), rule.threshold), number


def _insert(rule: MetricRule, window: _Window, time_us: int, seq: int, event_id: str, value: Any) -> None:
    """Add an event in order of time, and let the oldest go when there are more than 1,000."""
    slices: Slices | None = window[_SLICES]
    if slices is not None:
        slices.add(time_us // rule.slice_us, value)
    at = len(window)
    if at > _HEAD and window[at - _STEP] > time_us:
        number = bisect_right(range(_events(window)), time_us, key=lambda each: window[_HEAD + _STEP * each])
        at = _HEAD + _STEP * number
    window[at:at] = (time_us, seq, event_id, value)
    if window.exact is not None:
        window.exact.add(event_id, value)
    if _events(window) > MAX_REFS:
        _keep_newest(rule, window)


def _keep_newest(rule: MetricRule, window: _Window) -> None:
    """Leave the newest 1,000 events; the others are in slices alone."""
    slices: Slices | None = window[_SLICES]
    if slices is None:
        slices = window[_SLICES] = Slices(rule.aggregate, rule.threshold)
        for each in range(_HEAD, len(window), _STEP):
            slices.add(window[each] // rule.slice_us, window[each + 3])
    surplus = _events(window) - MAX_REFS
    slices.evicted_us = max(slices.evicted_us, window[_HEAD + _STEP * (surplus - 1)])
    _remove_first(window, surplus)


def _trim(rule: MetricRule, window: _Window, now_us: int) -> None:
    """Remove what has left the window."""
    horizon = now_us - rule.within_us
    first, size = _HEAD, len(window)
    while first < size and window[first] <= horizon:
        first += _STEP
    _remove_first(window, (first - _HEAD) // _STEP)
    if window[_SLICES] is not None:
        window[_SLICES].drop_before(rule.first_slice(now_us))


def _remove_first(window: _Window, number: int) -> None:
    end = _HEAD + _STEP * number
    if window.exact is not None:
        for each in range(_HEAD, end, _STEP):
            window.exact.remove(window[each + 2], window[each + 3])
    del window[_HEAD:end]


def _in_use(rule: MetricRule, state: State) -> _Window:
    """The state itself when it is in use already, otherwise made from what was stored."""
    if isinstance(state, _Window):
        return state
    window = _Window(state)
    window.exact = None
    if (len(state) - _HEAD_BEFORE) % _STEP == 0:
        window.insert(_SLICES, None)
        for each in range(_HEAD, len(window), _STEP):
            window[each] = min(window[each], window[0])
            window[each + 2] = shorten(window[each + 2], MAX_ID_BYTES)
            if rule.aggregate == "distinct":
                window[each + 3] = _value_text(window[each + 3])
        if _events(window) > MAX_REFS:
            _keep_newest(rule, window)
    elif window[_SLICES] is not None:
        window[_SLICES] = Slices.load(rule.aggregate, rule.threshold, window[_SLICES])
    return window


def _value_text(text: str) -> str:
    """One value of `distinct`, as JSON: its digest when it is long."""
    return shorten(text, MAX_VALUE_BYTES)


def _has(window: _Window, event_id: str) -> bool:
    return event_id in (window[_HEAD + 2 :: _STEP] if window.exact is None else window.exact.ids)


def _events(window: _Window) -> int:
    return (len(window) - _HEAD) // _STEP


def _refs(state: State) -> tuple[Ref, ...]:
    return tuple(Ref(state[i + 2], state[i + 1], state[i]) for i in range(_HEAD, len(state), _STEP))
