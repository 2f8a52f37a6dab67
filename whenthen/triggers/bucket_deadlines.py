"""Which buckets of a proactive trigger a check has to look at, without going through all of them.

Derived from the windows, and so not stored: rebuilt when they are restored. Entries may be stale; whoever reads them compares
with the window as it is. StoredMessage by `triggers.shard_state`, read by `triggers.buckets`.
"""

from __future__ import annotations

import heapq

__all__ = ["BucketDeadlines"]


class BucketDeadlines:
    """Ends of the buckets of one trigger by key, earliest first, and the keys whose bucket may hold enough."""

    __slots__ = ("_ends", "_heap", "_satisfied")

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._satisfied: set[str] = set()

    def note(self, key: str, end: int, *, satisfied: bool) -> None:
        """A bucket was opened or has changed."""
        if self._ends.get(key) != end:
            self._ends[key] = end
            heapq.heappush(self._heap, (end, key))
        if satisfied:
            self._satisfied.add(key)

    def forget(self, key: str) -> None:
        """The key has no bucket any more."""
        self._ends.pop(key, None)
        self._satisfied.discard(key)

    def take_satisfied(self) -> list[str]:
        """The keys that were noted as satisfied since the last call."""
        keys = sorted(self._satisfied)
        self._satisfied.clear()
        return keys

    def take_ended(self, now_us: int) -> list[str]:
        """The keys whose noted end has passed; each has to be noted again if it has a bucket afterwards."""
        keys = []
        while (end := self.next_end()) is not None and end <= now_us:
            keys.append(heapq.heappop(self._heap)[1])
            del self._ends[keys[-1]]
        return keys

    def next_end(self) -> int | None:
        """The earliest noted end."""
        heap = self._heap
        while heap and self._ends.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None
