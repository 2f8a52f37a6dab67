"""The circuit breaker of one target of actions, and how many tasks of that target run and wait. Pure.

Called by `engine.execution.concurrency_limits`. A target is a name for what an action calls: its type and a host, a notifier, ...
A closed breaker lets tasks through. After a number of failures in a row it opens: tasks are refused until the open time is over. Then
it is half-open: one task (the probe) is let through. If it succeeds the breaker closes, else it opens for twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CircuitBreaker", "CircuitBreakerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerSettings:
    at_once: int = 16  #: tasks of one target that run at the same time
    waiting: int = (
        96  #: tasks of one target that may wait in this process for a slot; more are returned with a short delay
    )
    failures: int = 10  #: in a row, after which the breaker opens
    open_s: float = 5.0  #: how long it stays open the first time; doubles up to `max_open_s`
    max_open_s: float = 60.0


@dataclass(slots=True)
class CircuitBreaker:
    """The breaker of one target."""

    running: int = 0
    waiting: int = 0
    failures: int = 0  #: in a row
    open_until: float = 0.0  #: by the caller's clock; half-open from then on
    open_s: float = 0.0  #: how long it was opened for the last time; 0 while it is closed
    probing: bool = False  #: the probe is waiting or running

    @property
    def idle(self) -> bool:
        """No task waits or runs, and no failure has to be remembered."""
        return not self.running and not self.waiting and not self.failures

    def refuse_s(self, limits: CircuitBreakerSettings, now: float) -> float:
        """0 when a task may wait for a slot here, else the delay in seconds with which it should be returned (nak)."""
        if now < self.open_until:
            return self.open_until - now
        if self.open_s and self.probing:
            return min(1.0, self.open_s)
        if self.waiting >= limits.waiting:
            return 1.0
        return 0.0

    def record(self, limits: CircuitBreakerSettings, *, succeeded: bool, now: float) -> None:
        """Record the result of an attempt: a success closes the breaker, the failure that is one too many opens it."""
        if succeeded:
            self.failures, self.open_s, self.open_until = 0, 0.0, 0.0
            return
        self.failures += 1
        if self.failures >= limits.failures:
            doubled = self.open_s * 2 or limits.open_s
            self.open_s = min(doubled, limits.max_open_s)
            self.open_until = now + self.open_s
