"""The result of a decision over one window."""

from __future__ import annotations

from typing import Any

from whenthen.schemas.firings import Reason, Ref

__all__ = ["MAX_REFS", "State", "Transition", "refs_of"]

State = list[Any]

#: events that a firing names: the newest; `Transition.total` says how many there were
MAX_REFS = 1000


class Transition:
    """A decision over one window: its reason and the state afterwards."""

    __slots__ = ("at_us", "changed", "depth", "detail", "event", "reason", "refs", "state", "total")

    def __init__(
        self,
        reason: Reason,
        state: State | None,
        detail: str = "",
        *,
        refs: tuple[Ref, ...] | None = None,
        at_us: int = 0,
        event: list[Any] | None = None,
        depth: int = 0,
        changed: bool = True,
        total: int = 0,
    ) -> None:
        self.reason = reason
        self.state = state  #: what to store; None deletes the window
        self.detail = detail
        self.refs = refs  #: contributing events when it fired or what it waits for came, the newest 1,000; else None
        self.total = total or len(refs or ())  #: how many contributing events there were
        self.at_us = at_us  #: when it fired, in event time, or the deadline that passed
        self.event = event  #: time, position and data of the triggering event, if the window stores it
        self.depth = depth  #: the largest depth of the events of a composite or a burst
        self.changed = changed  #: False when the stored state is still current


def refs_of(flat: State) -> tuple[Ref, ...]:
    """References to the newest 1,000 events of a flat list of time, position, id, oldest first."""
    first = max(0, len(flat) - 3 * MAX_REFS)
    return tuple(Ref(flat[i + 2], flat[i + 1], flat[i]) for i in range(first, len(flat), 3))
