"""Events that follow another one: held until that one was seen, or for at most a set time.

Remembers the ids of recent events: of the last half hour, two hundred thousand at most. Called by `triggers.evaluator` and `triggers.shard_state`; held
events are stored like windows, so a restart does not lose them. Meaning: docs/rules.md, "Order".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from whenthen.schemas import Event

__all__ = ["Predecessors"]

_MAX_IDS = 200_000
_MEMORY_US = 30 * 60 * 1_000_000


class Predecessors:
    """Which ids were seen, and which events wait for which."""

    ID = "held"  #: the trigger id under which held events are stored

    __slots__ = ("_events", "_seen", "_waiting", "in_use", "wait_us")

    def __init__(self, *, wait_us: int) -> None:
        self.wait_us = wait_us
        self.in_use = False  #: whether any event named a predecessor
        #: id to when it was seen, oldest first; finding the oldest in a plain dict takes longer with each one that was deleted
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._events: dict[str, Event] = {}
        self._waiting: dict[str, list[str]] = {}

    def hold(self, event: Event, now_us: int) -> list[Any] | None:
        """The state to store when `event` must wait; None when it need not. `follows` is set."""
        if not self.wait_us:
            return None
        self.in_use = True
        leader = event.follows
        assert leader is not None
        if leader == event.id or self.was_seen(leader, now_us):
            return None
        self._events[event.id] = event
        waiting = self._waiting.setdefault(leader, [])
        if event.id not in waiting:
            waiting.append(event.id)
        return [now_us, now_us + self.wait_us, event.data, event.seq]

    def holds(self, event_id: str) -> bool:
        """Whether an event of this id waits."""
        return event_id in self._events

    def restore(self, key: str, state: list[Any]) -> None:
        event = Event(state[2], state[3])
        self.in_use = True
        self._events[key] = event
        if event.follows is not None:
            self._waiting.setdefault(event.follows, []).append(key)

    def note(self, event_id: str, now_us: int) -> None:
        if not self.wait_us:
            return
        seen = self._seen
        seen.pop(event_id, None)
        seen[event_id] = now_us
        if len(seen) > _MAX_IDS or now_us - seen[next(iter(seen))] >= _MEMORY_US:
            seen.popitem(last=False)

    def was_seen(self, event_id: str, now_us: int) -> bool:
        """Whether an event of this id was decided in the last half hour."""
        at_us = self._seen.get(event_id)
        return at_us is not None and now_us - at_us < _MEMORY_US

    def seen(self, event: Event, now_us: int) -> list[Event]:
        """Note that `event` was decided; gives the events that waited for it, in order of their times."""
        if not self.wait_us:
            return []
        self.note(event.id, now_us)
        if not self._waiting:
            return []
        waiting = [self._events.pop(key) for key in self._waiting.pop(event.id, ()) if key in self._events]
        return sorted(waiting, key=lambda follower: (follower.time_us, follower.id))

    def release(self, key: str) -> Event | None:
        """The event whose time of waiting is over."""
        event = self._events.pop(key, None)
        if event is not None and event.follows is not None:
            others = self._waiting.get(event.follows, [])
            if key in others:
                others.remove(key)
            if not others:
                self._waiting.pop(event.follows, None)
        return event
