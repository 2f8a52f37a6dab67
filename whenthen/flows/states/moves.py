"""Which state may follow which, as a table; and what follows a failure. Pure. Called by the engines of runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from whenthen.flows.clock import LONGEST_WAIT_S
from whenthen.flows.states.state import StateType

S: Final = StateType

#: what may follow each type of state in one process; a final state is followed by nothing, except that a flow that failed is run again
MOVES: Final[dict[StateType, frozenset[StateType]]] = {
    S.SCHEDULED: frozenset([S.PENDING, S.RUNNING, S.CANCELLED, S.CANCELLING, S.CRASHED, S.SCHEDULED]),
    S.PENDING: frozenset([S.PENDING, S.RUNNING, S.SCHEDULED, S.FAILED, S.CANCELLED, S.CANCELLING, S.CRASHED, S.PAUSED]),
    S.RUNNING: frozenset(
        [S.RUNNING, S.SCHEDULED, S.COMPLETED, S.FAILED, S.CANCELLED, S.CANCELLING, S.CRASHED, S.PAUSED, S.PENDING]
    ),
    S.PAUSED: frozenset([S.RUNNING, S.SCHEDULED, S.PENDING, S.FAILED, S.CANCELLED, S.CANCELLING, S.CRASHED]),
    S.CANCELLING: frozenset([S.CANCELLED, S.CRASHED]),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.CRASHED: frozenset(),
}


def may_follow(before: StateType, after: StateType) -> bool:
    return after in MOVES[before]


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often a run is tried again, and how long it waits before. Delays are in seconds; beyond the last the last holds."""

    retries: int
    delay: float | Sequence[float] | None = None
    jitter_factor: float | None = None


def delay_before_retry(rule: RetryRule, tried: int, *, uniform: float | None = None) -> float | None:
    """How long to wait before the retry number `tried` (from 0); 0.0 is at once, None is no retry any more.

    `uniform` is a number between 0 and 1 that decides the jitter: the delay lies between 1 - factor (at least 0) and 1 + factor of itself.
    """
    if tried >= rule.retries:
        return None
    delay = rule.delay
    if isinstance(delay, Sequence):
        delay = delay[min(tried, len(delay) - 1)] if delay else 0.0
    if not delay:
        return 0.0
    delay = min(delay, LONGEST_WAIT_S)
    if rule.jitter_factor:
        where = random.random() if uniform is None else uniform
        low = max(0.0, 1 - rule.jitter_factor)
        return float(delay) * (low + where * (1 + rule.jitter_factor - low))
    return float(delay)
