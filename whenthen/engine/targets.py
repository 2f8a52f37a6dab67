"""How many actions may run at once against one target, and when a failing one is left in peace for a while. Pure.

Called by the execution loop, which gives each task's target a name (an action type and a host, a notifier, ...). A
target that hangs takes its own share of the slots and no more; one that keeps failing is not tried for a while, and
then by one task alone until that succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Gate", "TargetLimits", "Targets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLimits:
    at_once: int = 16  #: tasks of one target that run together
    waiting: int = 96  #: tasks of one target that may wait here for a slot; more are handed back for a moment
    failures: int = 10  #: in a row, after which the target is left in peace
    pause_s: float = 5.0  #: for how long at first; doubles up to `max_pause_s`
    max_pause_s: float = 60.0


@dataclass(slots=True)
class Gate:
    """One target."""

    running: int = 0
    waiting: int = 0
    failures: int = 0
    closed_until: float = 0.0
    pause_s: float = 0.0
    probing: bool = False


@dataclass(slots=True)
class Targets:
    """The gates of all targets; idle ones that work are forgotten."""

    limits: TargetLimits = field(default_factory=TargetLimits)
    gates: dict[str, Gate] = field(default_factory=dict)

    def refuse_s(self, target: str, now: float) -> float:
        """0 when a task may come in and wait for its slot, else for how many seconds it should be handed back."""
        gate = self.gates.get(target)
        if gate is None:
            return 0.0
        if now < gate.closed_until:
            return gate.closed_until - now
        if gate.pause_s and gate.probing:
            return min(1.0, gate.pause_s)
        if gate.waiting >= self.limits.waiting:
            return 1.0
        return 0.0

    def enter(self, target: str) -> Gate:
        """Wait for a slot: counts as waiting until `begin`."""
        gate = self.gates.setdefault(target, Gate())
        gate.waiting += 1
        if gate.pause_s:
            gate.probing = True
        return gate

    def free(self, gate: Gate) -> bool:
        return gate.running < self.limits.at_once

    def begin(self, gate: Gate) -> None:
        gate.waiting -= 1
        gate.running += 1

    def end(self, target: str, gate: Gate, *, worked: bool | None, now: float) -> None:
        """The task left its slot. `worked` None says nothing about the target (it was interrupted)."""
        gate.running -= 1
        gate.probing = False
        if worked:
            gate.failures, gate.pause_s, gate.closed_until = 0, 0.0, 0.0
        elif worked is False:
            gate.failures += 1
            if gate.failures >= self.limits.failures:
                doubled = gate.pause_s * 2 or self.limits.pause_s
                gate.pause_s = min(doubled, self.limits.max_pause_s)
                gate.closed_until = now + gate.pause_s
        if not gate.running and not gate.waiting and not gate.failures:
            self.gates.pop(target, None)
