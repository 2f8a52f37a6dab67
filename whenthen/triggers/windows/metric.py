"""Metric triggers: an aggregate of a value over recent events against a threshold, with an optional hold.

The window at time `now` covers events in (now - within, now]. It is evaluated for every event and whenever an event leaves
it. The trigger fires when the comparison has held for `hold`, once, and resolves when it no longer holds. Without
events `count`, `sum` and `distinct` are 0; the other aggregates have no value, and then the comparison does not
hold. Comparisons that an incomplete window could satisfy (`<`, `<=`, `==`, `!=` of a count, sum or distinct) are not evaluated
until the window has been open for `within`. Percentiles are nearest-rank.

The state of a key without events for 2 * `within` of the clock expires, unless it is triggered or within its hold. A sum or an
average beyond the range of a float is infinite. An event counts once in a window.

State: [touched, triggered, since, started, depth, time, position, id, value, ...]; `since` is 0 while the comparison does not
hold, `depth` is that of the newest event.

Called by `triggers.windowing` and `triggers.deadlines`. Meaning: docs/rules.md, "Metrics".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.schemas import Reason, Ref
from whenthen.triggers.windows.transitions import State, Transition

__all__ = ["MetricRule", "aggregate", "deadline_us", "expires_us", "initial_state", "on_event", "on_time"]

_HEAD = 5
_STEP = 4
_MAX_EVENTS = 100_000
_COMPARE: dict[str, Callable[[float, float], bool]] = {
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


def initial_state(rule: MetricRule, *, now_us: int) -> State:
    """The state of a window that opens now."""
    return [now_us, 0, 0, now_us, 0]


def expires_us(rule: MetricRule, state: State) -> int | None:
    """When the state expires; None while triggered, within the hold, and for a window that opens without an event."""
    if state[1] or state[2] or (rule.warms_up and not rule.keyed):
        return None
    newest = state[-_STEP] if len(state) > _HEAD else state[0]
    return int(max(newest, state[0], state[3])) + 2 * rule.within_us


def deadline_us(rule: MetricRule, state: State) -> int | None:
    """When to evaluate again if no event comes: an event leaves the window, the hold ends, or the first window is complete."""
    times = []
    if len(state) > _HEAD:
        times.append(state[_HEAD] + rule.within_us)
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
    if rule.aggregate == "distinct":
        value = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    elif rule.aggregate == "count":
        value = 0
    at = len(state)
    while at > _HEAD and state[at - _STEP] > event.time_us:
        at -= _STEP
    same = at
    while same > _HEAD and state[same - _STEP] == event.time_us:
        same -= _STEP
        if state[same + 2] == event.id:
            return Transition(Reason.SPENT, state, "this event counts already", changed=False)
    state[4] = depth
    state[at:at] = [event.time_us, event.seq, event.id, value]
    if len(state) > _HEAD + _STEP * _MAX_EVENTS:
        del state[_HEAD : _HEAD + _STEP]
    return _evaluate(rule, state, now_us=now_us)


def on_time(rule: MetricRule, state: State, *, now_us: int) -> Transition:
    """Evaluate the window at a deadline."""
    return _evaluate(rule, state, now_us=now_us)


def aggregate(rule: MetricRule, values: list[Any]) -> float | None:
    """The aggregate of the window's values; None when it has none."""
    kind = rule.aggregate
    if kind == "count":
        return len(values)
    if kind == "distinct":
        return len(set(values))
    if kind == "sum":
        return _sum(values)
    if not values:
        return None
    if kind == "avg":
        return _sum(values) / len(values)
    if kind == "min":
        return float(min(values))
    if kind == "max":
        return float(max(values))
    ordered = sorted(values)
    return float(ordered[max(0, math.ceil(int(kind[1:]) * len(ordered) / 100) - 1)])


def _sum(values: list[Any]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:  # a partial sum is too large for a float
        return float(sum(map(float, values)))


def _evaluate(rule: MetricRule, state: State, *, now_us: int) -> Transition:
    state[0] = now_us
    horizon = now_us - rule.within_us
    first = _HEAD
    while first < len(state) and state[first] <= horizon:
        first += _STEP
    del state[_HEAD:first]
    number = aggregate(rule, state[_HEAD + 3 :: _STEP])
    warm = not rule.warms_up or now_us >= state[3] + rule.within_us
    holds = warm and number is not None and _COMPARE[rule.operator](number, rule.threshold)
    shown = "no value" if number is None else f"{number:g}"
    detail = f"{rule.aggregate} is {shown}, wanted {rule.operator} {rule.threshold:g}"
    if not holds:
        state[2] = 0
        if state[1]:
            state[1] = 0
            return Transition(Reason.RESOLVED, state, detail, refs=_refs(state), at_us=now_us)
        return Transition(Reason.BELOW_THRESHOLD, state, detail)
    if not state[2]:
        state[2] = now_us
    if state[1]:
        return Transition(Reason.COOLDOWN, state, detail + "; already triggered")
    if now_us - state[2] < rule.hold_us:
        left = (state[2] + rule.hold_us - now_us) / 1e6
        return Transition(Reason.BELOW_THRESHOLD, state, detail + f"; must hold for another {left:g} s")
    state[1] = 1
    return Transition(Reason.FIRED, state, detail, refs=_refs(state), at_us=now_us)


def _refs(state: State) -> tuple[Ref, ...]:
    return tuple(Ref(state[i + 2], state[i + 1], state[i]) for i in range(_HEAD, len(state), _STEP))
