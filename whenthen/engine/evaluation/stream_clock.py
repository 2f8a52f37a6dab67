"""What time it is by the event log while nothing arrives, and whether to ask it with a tick.

Called by the evaluation loop. A shard's clock moves only when it reads a message (docs/architecture.md, "Time"). Between
messages the log's time is estimated: the time of the last message that was read when none was waiting, plus what a monotonic
clock says has passed since. The estimate decides when a tick is published; what the evaluator is given is the time of
the tick as the log stored it. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable

from whenthen.engine.evaluation.log_ports import Received

__all__ = ["StreamClock"]

TICK_EVERY_S = 0.05  #: at most one tick in this time
TICK_LOST_S = 2.0  #: a tick that was not read back is published again


class StreamClock:
    """The clock of one shard. `wall_us` stands in until a message was read; `monotonic` is in seconds."""

    def __init__(self, *, wall_us: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_us = wall_us
        self._monotonic = monotonic
        self._anchor: tuple[int, float] | None = None  #: the log's time, and ours (monotonic) when we read it
        self._tick_sent: float | None = None
        self._tick_was_last = False  #: the last message was a tick, and those are read as soon as they are stored

    def batch_read(self, last: Received, *, is_tick: bool) -> None:
        """Note the last message of a batch that was just read."""
        self._tick_was_last = is_tick
        if last.pending == 0:
            self._anchor = (last.time_us, self._monotonic())

    def now_us(self) -> int:
        """The log's time now, as an estimate."""
        if self._anchor is None:
            return self._wall_us()
        at_us, read_at = self._anchor
        return at_us + int((self._monotonic() - read_at) * 1e6)

    def is_due(self, deadline_us: int) -> bool:
        """Whether the log should be asked for its time because of a deadline. For a shard that has read everything.

        If the last event waited long before it was read, its time is long ago, and only the wall clock can tell that the
        deadline may have passed. The wall clock can be wrong, so the log is asked: once, as its answer is a tick.
        """
        return deadline_us <= self.now_us() or (not self._tick_was_last and deadline_us <= self._wall_us())

    def wait_s(self, deadline_us: int) -> float:
        """How long to wait for messages before asking again whether the deadline is due."""
        return max((deadline_us - self.now_us()) / 1e6, TICK_EVERY_S)

    def tick_outstanding(self) -> bool:
        """Whether a tick was published that may still be read back."""
        return self._tick_sent is not None and self._monotonic() < self._tick_sent + TICK_LOST_S

    def tick_sent(self) -> None:
        """Note that a tick is being published."""
        self._tick_sent = self._monotonic()

    def tick_done(self) -> None:
        """Note that a tick was read back, or could not be published."""
        self._tick_sent = None
