"""Events that follow another one: held until that one was seen, or for at most a set time.

Remembers the ids of recent events (the last hundred thousand or two). Called by `triggers.evaluator`; held events are stored
like windows, so a restart does not lose them. Meaning: docs/rules.md, "Order".
"""

from __future__ import annotations

from typing import Any

from whenthen.schemas.events import Event

__all__ = ["Holding"]

_GENERATION = 100_000


class Holding:
    """Which ids were seen, and which events wait for which."""

    ID = "held"  #: the trigger id under which held events are stored

    __slots__ = ("_before", "_events", "_recent", "_waiting", "in_use", "wait_us")

    def __init__(self, *, wait_us: int) -> None:
        self.wait_us = wait_us
        self.in_use = False  #: whether any event named a predecessor
        self._recent: set[str] = set()
        self._before: set[str] = set()
        self._events: dict[str, Event] = {}
        self._waiting: dict[str, list[str]] = {}

    def hold(self, event: Event, now_us: int) -> list[Any] | None:
        """The state to store when `event` must wait; None when it need not. `follows` is set."""
        if not self.wait_us:
            return None
        self.in_use = True
        leader = event.follows
        assert leader is not None
        if leader in self._recent or leader in self._before or leader == event.id:
            return None
        self._events[event.id] = event
        self._waiting.setdefault(leader, []).append(event.id)
        return [now_us, now_us + self.wait_us, event.data, event.seq]

    def restore(self, key: str, state: list[Any]) -> None:
        event = Event(state[2], state[3])
        self.in_use = True
        self._events[key] = event
        if event.follows is not None:
            self._waiting.setdefault(event.follows, []).append(key)

    def note(self, event_id: str) -> None:
        if not self.wait_us:
            return
        self._recent.add(event_id)
        if len(self._recent) >= _GENERATION:
            self._before, self._recent = self._recent, set()

    def seen(self, event: Event) -> list[Event]:
        """Note that `event` was decided; gives the events that waited for it, in order of their times."""
        if not self.wait_us:
            return []
        self.note(event.id)
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
