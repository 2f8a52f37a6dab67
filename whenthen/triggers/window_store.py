"""The windows of an evaluator in memory: states by trigger and key, deadlines, expiry times, and which of them changed.

Deadlines are a binary heap with one entry per window. When a deadline moves to a later time its entry stays, and is moved when it
reaches the top, so that heartbeats cost nothing. Expiry uses no heap entry per window, since a million keys may be about to
expire: keys are grouped in buckets of 10 s, and a bucket is checked when its time is over.

Invariant: which deadlines are due, and in which order, depends on the states alone and not on the order of calls.

Owned by `triggers.shard_state`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from whenthen.triggers.windows.transitions import State

__all__ = ["RECHECK_US", "WindowStore"]

_BUCKET_US = 10_000_000
#: after how long a window whose expiry time is not known is checked again
RECHECK_US = 60 * _BUCKET_US


class WindowStore:
    """States of windows. Keys and triggers are opaque texts."""

    __slots__ = ("_buckets", "_changed", "_deadlines", "_expiring", "_heap", "_queued", "_states")

    def __init__(self) -> None:
        self._states: dict[str, dict[str, State]] = {}
        self._deadlines: dict[tuple[str, str], int] = {}
        self._queued: dict[tuple[str, str], int] = {}  #: the window's time in the heap: its deadline or earlier
        self._heap: list[tuple[int, str, str]] = []
        self._expiring: dict[int, list[tuple[str, str]]] = {}
        self._buckets: list[int] = []  #: a heap of the keys of `_expiring`
        self._changed: dict[tuple[str, str], None] = {}

    def get(self, trigger: str, key: str) -> State | None:
        states = self._states.get(trigger)
        return None if states is None else states.get(key)

    def put(self, trigger: str, key: str, state: State, *, deadline: int | None = None, changed: bool = True) -> bool:
        """Store a state and its deadline, if any. True when the key is new."""
        states = self._states.get(trigger)
        if states is None:
            states = self._states[trigger] = {}
        fresh = key not in states
        states[key] = state
        name = (trigger, key)
        if changed:
            self._changed[name] = None
        if deadline is not None:
            self._deadlines[name] = deadline
            queued_us = self._queued.get(name)
            if queued_us is None or deadline < queued_us:
                self._queued[name] = deadline
                heapq.heappush(self._heap, (deadline, trigger, key))
        elif self._deadlines:
            self._deadlines.pop(name, None)
        return fresh

    def drop(self, trigger: str, key: str) -> None:
        """Delete one window."""
        states = self._states.get(trigger)
        if states is not None and states.pop(key, None) is not None:
            self._changed[(trigger, key)] = None
            self._deadlines.pop((trigger, key), None)
            if not states:
                del self._states[trigger]

    def take_out(self, trigger: str) -> list[tuple[str, bytes, bool]]:
        """Remove all windows of a trigger without deleting them: key, encoded state, and whether it changed since `drain`."""
        taken = []
        for key, state in self._states.pop(trigger, {}).items():
            name = (trigger, key)
            changed = name in self._changed
            self._changed.pop(name, None)
            self._deadlines.pop(name, None)
            taken.append((key, _encoded(state), changed))
        return taken

    def has(self, trigger: str) -> bool:
        """Whether the trigger has any window."""
        return trigger in self._states

    def triggers(self) -> list[str]:
        return list(self._states)

    def items(self, trigger: str) -> list[tuple[str, State]]:
        return list(self._states.get(trigger, {}).items())

    def __len__(self) -> int:
        return sum(len(states) for states in self._states.values())

    # -- deadlines

    def next_deadline_us(self) -> int | None:
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def is_idle(self, now_us: int) -> bool:
        """Whether no deadline or expiry can be due by `now_us`. True is exact; False may be wrong."""
        heap = self._heap
        buckets = self._buckets
        return not (heap and heap[0][0] <= now_us) and not (buckets and buckets[0] <= now_us // _BUCKET_US)

    def pop_due(self, now_us: int) -> tuple[str, str, State, int] | None:
        """Return the window with the earliest deadline up to `now_us`, and remove the deadline until the next `put`."""
        if not self._heap or self._heap[0][0] > now_us:
            return None
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now_us:
            return None
        due, trigger, key = heapq.heappop(self._heap)
        del self._deadlines[(trigger, key)], self._queued[(trigger, key)]
        return trigger, key, self._states[trigger][key], due

    def overdue(self, now_us: int) -> list[tuple[str, str, State]]:
        """Trigger, key and state of the windows whose deadline is not after `now_us`."""
        names = [name for name, due_us in self._deadlines.items() if due_us <= now_us]
        return [(trigger, key, self._states[trigger][key]) for trigger, key in names]

    def _drop_stale(self) -> None:
        """Remove or move stale heap entries until the top entry equals its window's deadline."""
        heap = self._heap
        while heap:
            queued_us, trigger, key = heap[0]
            name = (trigger, key)
            if self._queued.get(name) != queued_us:
                heapq.heappop(heap)
                continue
            deadline = self._deadlines.get(name)
            if deadline == queued_us:
                return
            if deadline is None:
                heapq.heappop(heap)
                del self._queued[name]
            else:
                self._queued[name] = deadline
                heapq.heapreplace(heap, (deadline, trigger, key))

    # -- expiry

    def schedule_expiry(self, trigger: str, key: str, at_us: int) -> None:
        """Check the window for expiry once `at_us` has passed."""
        bucket = at_us // _BUCKET_US + 1
        names = self._expiring.get(bucket)
        if names is None:
            names = self._expiring[bucket] = []
            heapq.heappush(self._buckets, bucket)
        names.append((trigger, key))

    def expire_due(self, now_us: int, expiry: Callable[[str, State], int | None]) -> None:
        """Delete the windows whose expiry time has passed; schedule those again that were used since."""
        over = now_us // _BUCKET_US
        while self._buckets and self._buckets[0] <= over:
            for trigger, key in dict.fromkeys(self._expiring.pop(heapq.heappop(self._buckets))):
                state = self.get(trigger, key)
                if state is None:
                    continue
                at_us = expiry(trigger, state)
                if at_us is not None and at_us <= now_us:
                    self.drop(trigger, key)
                else:
                    self.schedule_expiry(trigger, key, at_us if at_us is not None else now_us + RECHECK_US)

    # -- changes

    def pending(self) -> int:
        return len(self._changed)

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        """The windows changed since the last call, with their current states."""
        changes = []
        for trigger, key in self._changed:
            state = self.get(trigger, key)
            changes.append((trigger, key, None if state is None else _encoded(state)))
        self._changed = {}
        return changes

    def keys(self, trigger: str) -> Iterable[str]:
        return self._states.get(trigger, {}).keys()


def _encoded(state: State) -> bytes:
    return orjson.dumps(state, default=_stored)


def _stored(part: Any) -> Any:
    """A part of a state that is an object while in use, as JSON values."""
    return part.stored()
