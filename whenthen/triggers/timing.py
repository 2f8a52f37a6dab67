"""Deadlines and expiry times of windows, and the times of schedules. Pure.

Called by `triggers.shard_state` and `triggers.deadlines`. What the times mean is in the modules of `triggers.windows`.
"""

from __future__ import annotations

from collections import deque

from whenthen.schemas.calendar import next_after
from whenthen.schemas.times import from_us, to_us
from whenthen.triggers.trees.trigger_nodes import Composite, Leaf, ScheduleRule
from whenthen.triggers.windows import absence, collecting, composite, metric, sliding, tumbling
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.composite import CompositeRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.transitions import State
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["can_expire", "deadline_us", "expires_us", "next_time_us", "remains_us", "times_due"]

_MAX_OCCURRENCES = 1000  #: of a schedule, when the clock advances past many


def deadline_us(trigger: str, node: Leaf | Composite, state: State) -> int | None:
    """The deadline of the record `trigger` of `node`: the window itself, its check, or what is held for it. None without one."""
    if trigger == node.id:
        return _window_deadline_us(node, state)
    if trigger.endswith("~check"):
        due: int | None = state[1] if state[2] else None  # no checks while there is no bucket
        return due
    if trigger.endswith("~held"):
        forgotten: int = state[1]
        return forgotten
    return None


def _window_deadline_us(node: Leaf | Composite, state: State) -> int | None:
    if isinstance(node, Composite):
        return None
    rule = node.rule
    if isinstance(rule, (SlidingRule, TumblingRule)):
        return None
    if isinstance(rule, AbsenceRule):
        return absence.deadline_us(state)
    if isinstance(rule, CollectRule):
        return collecting.deadline_us(rule, state)
    if isinstance(rule, MetricRule):
        return metric.deadline_us(rule, state)
    if isinstance(rule, ScheduleRule):
        following: int | None = state[1]
        return following
    return None


def can_expire(node: Leaf | Composite) -> bool:
    """Whether windows of the node expire; the others are deleted when they end."""
    if isinstance(node, Composite):
        return node.rule.within_us is not None
    return isinstance(node.rule, (SlidingRule, AbsenceRule, TumblingRule, MetricRule))


def expires_us(node: Leaf | Composite, state: State) -> int | None:
    """When a window can be deleted without changing any decision; None when it does not expire."""
    if isinstance(node, Composite):
        return composite.expires_us(node.rule, state)
    rule = node.rule
    if isinstance(rule, SlidingRule):
        return sliding.expires_us(rule, state)
    if isinstance(rule, AbsenceRule):
        return absence.expires_us(rule, state)
    if isinstance(rule, TumblingRule):
        return tumbling.expires_us(state)
    if isinstance(rule, MetricRule):
        return metric.expires_us(rule, state)
    return None


def remains_us(node: Leaf | Composite) -> int | None:
    """How long after it was deleted a window could change a decision if it were there again; None when for ever.

    Windows that are deleted only when they have expired change none. The others may be deleted before they end.
    """
    rule = node.rule
    if isinstance(rule, (SlidingRule, AbsenceRule, MetricRule)):
        return 0
    if isinstance(rule, (TumblingRule, CompositeRule)):
        return rule.within_us
    return None


def next_time_us(rule: ScheduleRule, after_us: int) -> int | None:
    """The schedule's first time after a moment; None when there is none."""
    following = next_after(rule.calendar, from_us(after_us))
    return None if following is None else to_us(following)


def times_due(rule: ScheduleRule, first_us: int | None, now_us: int) -> tuple[deque[int], int | None]:
    """The newest times from `first_us` to `now_us`, 1,000 at most, and the next one after `now_us`.

    The search starts close to `now_us` and doubles its distance until it finds 1,000 times, so that a schedule of every second
    is not computed for years.
    """
    back_us = _MAX_OCCURRENCES * 1_000_000  # none comes more often than once a second
    while True:
        start_us = now_us - back_us
        near = first_us is None or first_us > start_us
        due = first_us if near else next_time_us(rule, start_us)
        times: deque[int] = deque(maxlen=_MAX_OCCURRENCES)
        while due is not None and due <= now_us:
            times.append(due)
            due = next_time_us(rule, due)
        if near or len(times) == _MAX_OCCURRENCES:
            return times, due
        back_us *= 2
