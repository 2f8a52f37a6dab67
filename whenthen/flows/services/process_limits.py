"""How many slots of a named limit are taken in this process, and who is next. No clock, no waiting: `slot_waiting` does both.

Slots are given in the order in which they were asked for; a request for several names gets all of them at once or none, and waits
until it is the first of each. Slots of a limit with a decay come free by themselves, `decay` of them a second.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from whenthen.flows.flow_errors import ConfigurationError

__all__ = ["Limit", "ProcessLimits", "SlotRequest", "read_limit"]

WRITTEN = re.compile(r"\s*(\d+)\s*(?:,\s*(\d+(?:\.\d+)?)\s*/\s*s\s*)?")

SHORTEST_WAIT_S = 0.001
ROUNDING = 1e-9  #: of slots that come free by parts


@dataclass(frozen=True, slots=True)
class Limit:
    """How many slots there are, and how many come free each second by themselves."""

    slots: int
    decay: float = 0.0


@dataclass(slots=True, eq=False)
class SlotRequest:
    """One request, granted or not."""

    limits: Mapping[str, Limit]
    occupy: int
    notify: Callable[[], object]
    granted: bool = False
    withdrawn: bool = field(default=False)


@dataclass(slots=True)
class _Slots:
    taken: float = 0.0
    since: float = 0.0  #: when `taken` was counted
    queue: deque[SlotRequest] = field(default_factory=deque)


class ProcessLimits:
    """The slots of all limits of this process. Safe between threads. A name that nobody uses costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, _Slots] = {}

    def request(self, request: SlotRequest, *, now: float) -> None:
        """Put a request into the queues; it may be granted at once."""
        with self._lock:
            for name in request.limits:
                self._slots.setdefault(name, _Slots(since=now)).queue.append(request)
            self._grant(list(request.limits), now)

    def poll(self, request: SlotRequest, *, now: float) -> float | None:
        """Look again, as time may have freed slots. Gives the seconds after which to look next; None where it will be notified."""
        with self._lock:
            self._grant(list(request.limits), now)
            if request.granted or not self._is_first(request):
                return None
            waits = [
                (self._slots[name].taken + request.occupy - limit.slots) / limit.decay
                for name, limit in request.limits.items()
                if limit.decay
            ]
            return max([SHORTEST_WAIT_S, *waits]) if waits else None

    def withdraw(self, request: SlotRequest, *, now: float) -> None:
        """Give up waiting, or give back what was granted."""
        with self._lock:
            if request.withdrawn:
                return
            request.withdrawn = True
            if request.granted:
                for name in request.limits:
                    slots = self._slots.get(name)
                    if slots is not None:  # a decay may have freed them all
                        self._count(slots, request.limits[name], now)
                        slots.taken = max(0.0, slots.taken - request.occupy)
            self._grant(list(request.limits), now)

    def _grant(self, names: Sequence[str], now: float) -> None:
        waiting = deque(names)
        while waiting:
            name = waiting.popleft()
            slots = self._slots.get(name)
            if slots is None:
                continue
            first = _first(slots.queue)
            if first is None:
                if not slots.taken:
                    del self._slots[name]
            elif self._may_have(first, now):
                for each in first.limits:
                    self._slots[each].queue.popleft()
                if _told(first):
                    first.granted = True
                    for each in first.limits:
                        self._slots[each].taken += first.occupy
                else:
                    first.withdrawn = True
                waiting.extend(first.limits)
            elif first.limits[name].decay:
                _told(first)  # it has become the first, and has to look at the clock

    def _is_first(self, request: SlotRequest) -> bool:
        return all(_first(self._slots[name].queue) is request for name in request.limits)

    def _may_have(self, request: SlotRequest, now: float) -> bool:
        for name, limit in request.limits.items():
            self._count(self._slots[name], limit, now)
        return self._is_first(request) and all(
            self._slots[name].taken + request.occupy <= limit.slots + ROUNDING for name, limit in request.limits.items()
        )

    def _count(self, slots: _Slots, limit: Limit, now: float) -> None:
        if limit.decay and now > slots.since:
            slots.taken = max(0.0, slots.taken - (now - slots.since) * limit.decay)
        slots.since = max(now, slots.since)


def _first(queue: deque[SlotRequest]) -> SlotRequest | None:
    while queue and queue[0].withdrawn:
        queue.popleft()
    return queue[0] if queue else None


def _told(request: SlotRequest) -> bool:
    try:
        request.notify()
    except RuntimeError:  # its event loop is closed: nobody waits any more
        return False
    return True


def read_limit(written: str, variable: str) -> Limit:
    """The limit that `3`, or `10, 2/s` for ten slots of which two come free each second, means.

    Raises:
        ConfigurationError: it is neither.
    """
    found = WRITTEN.fullmatch(written)
    if found is None:
        raise ConfigurationError(
            f"{variable}={written!r:.60} is no limit; write the number of slots, such as 3, or 10, 2/s where two of ten come free "
            "each second"
        )
    return Limit(int(found[1]), float(found[2] or 0))
