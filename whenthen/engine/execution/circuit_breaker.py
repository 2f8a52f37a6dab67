"""When a target of actions that keeps failing is left in peace for a while, and what of it runs and waits. Pure.

Called by `engine.execution.concurrency_limits`, which gives each task its turn. A target is a name for what an action calls: its type and
a host, a notifier, ... One that failed often in a row is closed for a pause, and then tried by one task alone (the probe)
until that succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CircuitBreaker", "CircuitBreakerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerSettings:
    at_once: int = 16  #: tasks of one target that run together
    waiting: int = 96  #: tasks of one target that may wait here for a slot; more are handed back for a moment
    failures: int = 10  #: in a row, after which the target is left in peace
    pause_s: float = 5.0  #: for how long at first; doubles up to `max_pause_s`
    max_pause_s: float = 60.0


@dataclass(slots=True)
class CircuitBreaker:
    """One target."""

    running: int = 0
    waiting: int = 0
    failures: int = 0  #: in a row
    closed_until: float = 0.0
    pause_s: float = 0.0  #: of the last closure; 0 when the target works
    probing: bool = False  #: the probe is here, waiting or running

    @property
    def idle(self) -> bool:
        """Nothing is here, and there is nothing to remember."""
        return not self.running and not self.waiting and not self.failures

    def refuse_s(self, limits: CircuitBreakerSettings, now: float) -> float:
        """0 when a task may come in and wait for its slot, else for how many seconds it should be handed back."""
        if now < self.closed_until:
            return self.closed_until - now
        if self.pause_s and self.probing:
            return min(1.0, self.pause_s)
        if self.waiting >= limits.waiting:
            return 1.0
        return 0.0

    def tried(self, limits: CircuitBreakerSettings, *, worked: bool, now: float) -> None:
        """Note how a try of the target ended."""
        if worked:
            self.failures, self.pause_s, self.closed_until = 0, 0.0, 0.0
            return
        self.failures += 1
        if self.failures >= limits.failures:
            doubled = self.pause_s * 2 or limits.pause_s
            self.pause_s = min(doubled, limits.max_pause_s)
            self.closed_until = now + self.pause_s
