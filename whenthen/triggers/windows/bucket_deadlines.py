"""Deadlines of the buckets of a proactive trigger, so that a check does not go through all buckets.

Derived from the windows, and so not stored: rebuilt when windows are restored. Entries may be stale; readers compare
with the window's current state. Written by `triggers.shard_state`, read by `triggers.buckets`.
"""

from __future__ import annotations

import heapq

__all__ = ["BucketDeadlines"]


class BucketDeadlines:
    """Deadlines of the buckets of one trigger by key, earliest first, and the keys whose bucket may be satisfied."""

    __slots__ = ("_deadlines", "_heap", "_satisfied")

    def __init__(self) -> None:
        self._deadlines: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._satisfied: set[str] = set()

    def track(self, key: str, end: int, *, satisfied: bool) -> None:
        """Register a bucket that was opened or changed."""
        if self._deadlines.get(key) != end:
            self._deadlines[key] = end
            heapq.heappush(self._heap, (end, key))
        if satisfied:
            self._satisfied.add(key)

    def forget(self, key: str) -> None:
        """Remove a key without a bucket."""
        self._deadlines.pop(key, None)
        self._satisfied.discard(key)

    def pop_satisfied(self) -> list[str]:
        """Remove and return the keys that were tracked as satisfied since the last call."""
        keys = sorted(self._satisfied)
        self._satisfied.clear()
        return keys

    def pop_ended(self, now_us: int) -> list[str]:
        """Remove and return the keys whose deadline has passed; track each again that still has a bucket."""
        keys = []
        while (end := self.next_deadline()) is not None and end <= now_us:
            keys.append(heapq.heappop(self._heap)[1])
            del self._deadlines[keys[-1]]
        return keys

    def next_deadline(self) -> int | None:
        """The earliest deadline."""
        heap = self._heap
        while heap and self._deadlines.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None
