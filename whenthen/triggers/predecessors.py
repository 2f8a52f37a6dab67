"""Events that name a predecessor (`follows`): held until it was seen, or for at most `wait_us`.

Keeps the ids of recent events: of the last 30 minutes, 200,000 at most. Held events are kept whole, so their number and bytes are bounded;
what comes beyond is not held. That goes by the events alone, so a replay decides the same. Called by `triggers.evaluator` and
`triggers.shard_state`; held events are stored like windows, so a restart does not lose them. Meaning: docs/rules.md, "Order".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from whenthen.schemas.events import Event

__all__ = ["MAX_HELD", "MAX_HELD_BYTES", "Predecessors"]

MAX_HELD = 100_000  #: events
MAX_HELD_BYTES = 64 << 20  #: of them together, as JSON

_MAX_IDS = 200_000
_MEMORY_US = 30 * 60 * 1_000_000


class Predecessors:
    """The ids that were seen, and the events that are held for a predecessor."""

    ID = "held"  #: the trigger id under which held events are stored

    __slots__ = ("_bytes", "_events", "_seen", "_sizes", "_waiting", "in_use", "wait_us")

    def __init__(self, *, wait_us: int) -> None:
        self.wait_us = wait_us
        self.in_use = False  #: whether any event named a predecessor
        #: id to the time it was seen, oldest first; finding the first entry of a plain dict slows down with each deletion
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._events: dict[str, Event] = {}
        self._sizes: dict[str, int] = {}  #: of the held events
        self._bytes = 0  #: of all of them
        self._waiting: dict[str, list[str]] = {}

    def hold(self, event: Event, now_us: int) -> list[Any] | None:
        """The state to store when `event` must be held, else None: there is nothing to wait for, or no room. `event.follows` is set."""
        if not self.wait_us:
            return None
        self.in_use = True
        predecessor = event.follows
        assert predecessor is not None
        if predecessor == event.id or self.was_seen(predecessor, now_us):
            return None
        size = len(orjson.dumps(event.data))
        others, others_bytes = len(self._events), self._bytes
        if event.id in self._events:
            others, others_bytes = others - 1, others_bytes - self._sizes[event.id]
        if others >= MAX_HELD or others_bytes + size > MAX_HELD_BYTES:
            return None
        self._keep(event.id, event, size)
        waiting = self._waiting.setdefault(predecessor, [])
        if event.id not in waiting:
            waiting.append(event.id)
        return [now_us, now_us + self.wait_us, event.data, event.seq]

    def holds(self, event_id: str) -> bool:
        """Whether the event with this id is held."""
        return event_id in self._events

    def restore(self, key: str, state: list[Any]) -> None:
        event = Event(state[2], state[3])
        self.in_use = True
        self._keep(key, event, len(orjson.dumps(event.data)))
        if event.follows is not None:
            self._waiting.setdefault(event.follows, []).append(key)

    def remember(self, event_id: str, now_us: int) -> None:
        if not self.wait_us:
            return
        seen = self._seen
        seen.pop(event_id, None)
        seen[event_id] = now_us
        if len(seen) > _MAX_IDS or now_us - seen[next(iter(seen))] >= _MEMORY_US:
            seen.popitem(last=False)

    def was_seen(self, event_id: str, now_us: int) -> bool:
        """Whether an event with this id was decided in the last 30 minutes."""
        at_us = self._seen.get(event_id)
        return at_us is not None and now_us - at_us < _MEMORY_US

    def mark_seen(self, event: Event, now_us: int) -> list[Event]:
        """Mark `event` as decided; return the events that were held for it, in order of their times."""
        if not self.wait_us:
            return []
        self.remember(event.id, now_us)
        if not self._waiting:
            return []
        keys = self._waiting.pop(event.id, ())
        waiting = [found for key in keys if (found := self._take(key)) is not None]
        return sorted(waiting, key=lambda follower: (follower.time_us, follower.id))

    def expire(self, key: str) -> Event | None:
        """Remove and return a held event whose deadline has passed."""
        event = self._take(key)
        if event is not None and event.follows is not None:
            others = self._waiting.get(event.follows, [])
            if key in others:
                others.remove(key)
            if not others:
                self._waiting.pop(event.follows, None)
        return event

    def _keep(self, key: str, event: Event, size: int) -> None:
        self._take(key)
        self._events[key] = event
        self._sizes[key] = size
        self._bytes += size

    def _take(self, key: str) -> Event | None:
        event = self._events.pop(key, None)
        if event is not None:
            self._bytes -= self._sizes.pop(key)
        return event
