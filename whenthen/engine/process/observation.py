"""The observer of the evaluation loops: updates metrics, logs firings.

One object for all shards of a process; passed to every `ShardLoop`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.evaluation import FiredTotal, Observer
from whenthen.engine.hangs import Skip
from whenthen.engine.metrics import Metrics
from whenthen.engine.spans import Spans, evaluation_span, firing_span
from whenthen.schemas.events import Event
from whenthen.schemas.firings import (
    Decision,
    Firing,
    FiringState,
    Reason,
)
from whenthen.schemas.times import format_time
from whenthen.triggers import Aside

__all__ = ["Observation"]

log = logging.getLogger(__name__)

_EVENTS_ASIDE = 20  #: that are kept for `whenthen status`
#: reasons for which the event did not match the trigger
_NO_MATCH = frozenset({Reason.LABEL_MISMATCH, Reason.CONDITION_FALSE, Reason.CONDITION_ERROR, Reason.PAUSED})


class Observation(Observer):
    """Counts events, decisions and firings of a process, which may be given any of `shards`."""

    def __init__(self, metrics: Metrics, *, shards: int = 0, spans: Spans | None = None) -> None:
        self._metrics = metrics
        self._spans = spans or Spans()
        self.wants_events = self._spans.on
        for shard in range(shards):  # at most 256
            metrics.events_set_aside.labels(str(shard))
        metrics.stream_stuck.labels(ENGINE).set(0)
        self._full: set[int] = set()  #: shards that wait for room
        self._aside: dict[int, dict[str, str]] = {}
        #: events that shards of this process passed over, the oldest first; by shard and position
        self._events_aside: OrderedDict[tuple[int, int], Skip] = OrderedDict()
        #: firings of each automation of the shards that this process evaluates, or has evaluated, whichever process made them
        self.fired: Counter[str] = Counter()
        self.lags: dict[int, int] = {}  #: events that shards of this process have still to read, by shard
        self.last_fired: dict[str, str] = {}  #: when each automation fired last, not when its event occurred; RFC 3339

    def seed(self, automation: str, at: str) -> None:
        """Set the last firing of an automation from before the process started."""
        self.last_fired[automation] = max(at, self.last_fired.get(automation, ""))

    def evaluated(self, shard: int, events: int, decisions: Sequence[Decision], firings: Sequence[Firing]) -> None:
        self._metrics.evaluated.labels(str(shard)).inc(events)
        if not decisions:
            return
        reasons: dict[Reason, int] = {}
        matched: dict[str, int] = {}
        for decision in decisions:  # once for every event: one loop, no generators
            reason = decision.reason
            reasons[reason] = reasons.get(reason, 0) + 1
            if decision.event is not None and not decision.path and reason not in _NO_MATCH:
                matched[decision.automation] = matched.get(decision.automation, 0) + 1
        self._metrics.decide(reasons)
        for automation, count in matched.items():
            self._metrics.match(automation, count)

    def decided(self, shard: int, event: Event, decisions: Sequence[Decision], stored_us: int) -> None:
        span = evaluation_span(shard, event, decisions, start_us=stored_us, end_us=max(stored_us, _now_us()))
        if span is not None:
            self._spans.record(span)

    def committed(self, shard: int, firings: Sequence[Firing], messages: int, seconds: float) -> None:
        self._metrics.commit_seconds.observe(seconds)
        told = log.isEnabledFor(logging.INFO)
        now = format_time(datetime.now(UTC)) if firings else ""
        now_us = _now_us() if firings and self._spans.on else 0
        for firing in firings:
            if self._spans.on and (span := firing_span(shard, firing, end_us=now_us)) is not None:
                self._spans.record(span)
            if firing.state is FiringState.TRIGGERED:
                self._metrics.fire(firing.automation)
                self.fired[firing.automation] += 1
                self.seed(firing.automation, now)
            if told:
                log.info(
                    "%s: %s",
                    firing.automation,
                    firing.state.value,
                    extra={
                        "firing": firing.id,
                        "event": firing.event["id"] if firing.event else None,
                        "trace": firing.current_trace["id"],
                    },
                )

    def counted(self, shard: int, totals: Mapping[str, FiredTotal]) -> None:
        for name, total in totals.items():
            self.fired[name] = total.count
            self.seed(name, total.last)

    def set_aside(self, shard: int, aside: Mapping[str, Aside]) -> None:
        for name in self._aside.get(shard, {}).keys() - aside.keys():
            self._metrics.set_aside.labels(name).set(0)
        self._aside[shard] = {name: each.detail for name, each in aside.items()}
        for name in aside:
            self._metrics.set_aside.labels(name).set(1)

    @property
    def aside(self) -> dict[str, str]:
        """The automations that are set aside in the shards of this process, and why."""
        return {name: detail for found in self._aside.values() for name, detail in found.items()}

    def event_set_aside(self, shard: int, skip: Skip) -> None:
        if (shard, skip.position) in self._events_aside:
            return
        self._metrics.events_set_aside.labels(str(shard)).inc()
        self._events_aside[shard, skip.position] = skip
        if len(self._events_aside) > _EVENTS_ASIDE:
            self._events_aside.popitem(last=False)

    @property
    def events_aside(self) -> list[Skip]:
        """The last events that shards of this process passed over, newest first."""
        return list(reversed(self._events_aside.values()))

    def released(self, shard: int) -> None:
        """This process evaluates the shard no more."""
        self.set_aside(shard, {})
        self.full(shard, False)
        self.lags.pop(shard, None)
        for gauge in (
            self._metrics.lag_messages,
            self._metrics.lag_seconds,
        ):  # who evaluates it now knows how far it is
            gauge.remove(str(shard))

    def full(self, shard: int, full: bool) -> None:
        if full != (shard in self._full):
            (self._full.add if full else self._full.discard)(shard)
            self._metrics.stream_stuck.labels(ENGINE).set(int(bool(self._full)))

    def lag(self, shard: int, messages: int, seconds: float) -> None:
        self.lags[shard] = messages
        self._metrics.lag_messages.labels(str(shard)).set(messages)
        self._metrics.lag_seconds.labels(str(shard)).set(seconds)

    def unreadable(self, shard: int, seq: int, error: Exception) -> None:
        self._metrics.skipped.labels(str(shard)).inc()


def _now_us() -> int:
    return time.time_ns() // 1000
