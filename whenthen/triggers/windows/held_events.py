"""Times of expected events, held for a bucket that opens over them later. Pure.

A proactive tumbling trigger with `after` holds every event that it expects and that opens nothing: events may come in any order, so
one may come before the `after` event whose bucket it belongs to. A bucket that opens counts what is held within it. As in Prefect 3.9
(prefect.server.events.models.automation_held_events), what no bucket needs is forgotten: within each slot of `within`, aligned to
the epoch, the first and last `threshold` events are enough to satisfy any bucket that the slot's events could satisfy.

State: [touched, due, time, held at, time, held at, ...], oldest time first; `due` is when something may be forgotten.
Called by `triggers.buckets`. Meaning: docs/rules.md, "Tumbling windows".
"""

from __future__ import annotations

from bisect import bisect_left

from whenthen.triggers.windows.transitions import State

__all__ = ["MAX_HELD", "count_within", "forget", "hold"]

#: how long an event is held (twice Prefect's lookback for out-of-order events)
_RETENTION_US = 2 * 15 * 60 * 1_000_000
#: events held for one key, the newest
MAX_HELD = 1000
_HEAD = 2


def hold(held: State | None, time_us: int, *, threshold: int, within_us: int, now_us: int) -> State:
    """Hold one more event, and forget those of its slot that no bucket needs."""
    pairs = _pairs(held)
    pairs.insert(bisect_left(pairs, (time_us, now_us)), (time_us, now_us))
    oldest = pairs[-1][0] - max(_RETENTION_US, within_us)
    start = time_us // within_us * within_us
    first, past = bisect_left(pairs, (start, 0)), bisect_left(pairs, (start + within_us, 0))
    if past - first > 2 * threshold:
        del pairs[first + threshold : past - threshold]
    pairs = [pair for pair in pairs if pair[0] >= oldest][-MAX_HELD:]
    return _state(pairs, now_us, _first_due(pairs))


def forget(held: State, *, now_us: int, open_until_us: int | None) -> State | None:
    """What is left at `now_us`; None when nothing is. While a bucket is open, until `open_until_us`, nothing is forgotten."""
    pairs = _pairs(held)
    if open_until_us is not None and open_until_us > now_us:
        return _state(pairs, now_us, max(open_until_us, _first_due(pairs)))
    pairs = [pair for pair in pairs if pair[1] >= now_us - _RETENTION_US]
    return _state(pairs, now_us, _first_due(pairs)) if pairs else None


def count_within(held: State | None, start_us: int, end_us: int) -> int:
    """How many of the held events lie in [start, end)."""
    return sum(start_us <= time_us < end_us for time_us, _ in _pairs(held))


def _first_due(pairs: list[tuple[int, int]]) -> int:
    return min(held_us for _, held_us in pairs) + _RETENTION_US + 1


def _pairs(held: State | None) -> list[tuple[int, int]]:
    return [] if held is None else list(zip(held[_HEAD::2], held[_HEAD + 1 :: 2], strict=True))


def _state(pairs: list[tuple[int, int]], now_us: int, due_us: int) -> State:
    return [now_us, due_us, *(part for pair in pairs for part in pair)]
