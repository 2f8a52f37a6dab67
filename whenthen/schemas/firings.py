"""What the evaluator concludes: decisions with reasons, and firings with the actions they ask for.

`Decision`, `Ref` and `Firing` are values like all others here; treat them as frozen. They are not declared so, because building
a frozen one takes three times as long and every event builds some.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whenthen.schemas.trace_context import derived_trace, valid_trace

__all__ = ["ActionTask", "Decision", "Firing", "FiringState", "Reason", "Ref"]


class Reason(StrEnum):
    """Why a trigger fired for an event (or a moment), or why it did not. A bounded set: metric labels come from it."""

    FIRED = "fired"  #: it fired
    LABEL_MISMATCH = "label_mismatch"  #: a label of the resource or of the related ones does not match
    CONDITION_FALSE = "condition_false"  #: `when` is false
    CONDITION_ERROR = "condition_error"  #: `when` could not be evaluated for this event
    MISSING_KEY = "missing_key"  #: the event lacks what `for_each`, `correlate` or `value` names
    BELOW_THRESHOLD = "below_threshold"  #: counted; more are needed
    COOLDOWN = "cooldown"  #: the key fired recently and is quiet
    SPENT = "spent"  #: the events it would count with were used by an earlier firing
    WAITING_FOR_AFTER = "waiting_for_after"  #: no `after` event opened a window
    WAITING_FOR_SIBLING = "waiting_for_sibling"  #: a part of a composite fired, others have not
    COLLECTING = "collecting"  #: gathered into a burst that has not ended
    EXPECTED = "expected"  #: a proactive trigger saw what it waits for
    OPENED = "opened"  #: an `after` event opened a window
    RESOLVED = "resolved"  #: the Triggered state ended
    LATE = "late"  #: older than what its window still covers
    HELD_FOR_PREDECESSOR = "held_for_predecessor"  #: waits for the event that it follows
    PAUSED = "paused"  #: the automation is paused or disabled
    LAPSED = "lapsed"  #: it was due while the automation was not in the rules, so nothing was seen
    LOOP = "loop"  #: caused by too many firings in a row

    __hash__ = str.__hash__  # an enumeration's own one is written in Python, and reasons are counted for every event


class FiringState(StrEnum):
    TRIGGERED = "Triggered"
    RESOLVED = "Resolved"


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Decision:
    """What one trigger concluded for one event, or for a moment when `event` is None."""

    automation: str
    reason: Reason
    at_us: int
    event: str | None = None  #: id
    seq: int = 0  #: its position in `EVENTS`; 0 when there is none
    path: str = ""  #: which trigger of a composite: `triggers[1]`; empty for the root
    key: str = ""  #: the window's key as text
    detail: str = ""  #: the clause and the value: `match.bucket: "tmp" is not "raw"`
    firing: str | None = None


@dataclass(slots=True, unsafe_hash=True)
class Ref:
    """A contributing event, by id and by position in `EVENTS` (0 when there is none)."""

    id: str
    seq: int
    time_us: int


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Firing:
    """A decision to act. The same events under the same trigger give the same id, on any machine."""

    id: str
    automation: str
    state: FiringState
    at: str  #: RFC 3339; event time of what completed it, or the deadline that passed
    key: dict[str, Any]  #: the values of `for_each` / `correlate`
    event: dict[str, Any] | None  #: the triggering event; None when time fired it
    seq: int = 0  #: position of that event in `EVENTS`; 0 when there is none
    refs: tuple[Ref, ...] = ()  #: contributing events, oldest first; the newest 1,000 if there were more
    total: int = 0  #: how many contributing events there were
    depth: int = 0  #: of the events it will cause
    automations: tuple[str, ...] = ()  #: lineage: which automations led here, this one last
    edge: bool = True  #: whether the state changed with it
    trace: dict[str, str] | None = None  #: of the triggering event, as it came; see `current_trace`
    computed: dict[str, str] | None = None  #: the labels that the trigger's `let` gave the triggering event

    @property
    def seen_event(self) -> dict[str, Any] | None:
        """The triggering event as its trigger saw it: with the computed labels in its resource."""
        if self.event is None or not self.computed:
            return self.event
        return {**self.event, "resource": {**self.event["resource"], **self.computed}}

    @property
    def current_trace(self) -> dict[str, str]:
        """The trace that the firing is part of: that of its event, else one of its own, derived from its id."""
        return valid_trace(self.trace) or derived_trace(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionTask:
    """One action of one firing, as it waits in `ENGINE`. `key` is its idempotency key, `<firing id>.<index>`."""

    key: str
    index: int
    firing: Firing
    #: the action in its long form, as the rule had it when it fired; in the stream its type alone
    action: dict[str, Any]
    attempt: int = 1
    extra: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  #: of `action`, by which its specification is found; empty in tasks of the first versions
