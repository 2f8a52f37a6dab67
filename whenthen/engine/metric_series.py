"""Series of metrics: those whose labels come from the rules, and how long each automation has been silent. Parts of `metrics`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["MOST_AHEAD", "LastFirings", "Series"]

log = logging.getLogger(__name__)
M = TypeVar("M", Counter, Gauge, Histogram)

MOST_AHEAD = (
    50_000  #: series of one counter that are made before anything is counted: a scrape of them takes half a second
)


class Series(Generic[M]):
    """The series of a metric whose labels come from the rules."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._made: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        found = self._made.get(values)
        if found is None:
            found = self._made[values] = self._metric.labels(*values)
        return found

    def keep(self, wanted: Sequence[tuple[str, ...]]) -> None:
        """Remove all but those that are `wanted`, and make what of these is missing, as far as `MOST_AHEAD` allows."""
        for gone in self._made.keys() - set(wanted):
            self._metric.remove(*gone)
            del self._made[gone]
        missing = [values for values in wanted if values not in self._made]
        ahead = max(MOST_AHEAD - len(self._made), 0)
        for values in missing[:ahead]:
            self.labels(*values)
        if len(missing) > ahead:
            log.warning(
                "metrics: %d series of %s are made when the first of them is counted, as there are more than %d; an alert on their "
                "increase does not see a first burst",
                len(missing) - ahead,
                next(iter(self._metric.describe())).name,
                MOST_AHEAD,
            )


class LastFirings(Collector):
    """How long each automation has been silent, counted at the moment of the scrape."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._every: dict[str, float | None] = {}
        self._loaded: dict[str, float] = {}
        self._fired: dict[str, float] = {}

    def keep(self, automations: Mapping[str, float | None]) -> None:
        now = self._clock()
        self._every = dict(automations)
        self._loaded = {name: self._loaded.get(name, now) for name in automations}
        self._fired = {name: at for name, at in self._fired.items() if name in automations}

    def fired(self, automation: str, at: float) -> None:
        if automation in self._loaded:
            self._fired[automation] = max(at, self._fired.get(automation, 0.0))

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        now = self._clock()
        silent = GaugeMetricFamily(
            "whenthen_automation_silent_seconds",
            "Since the automation fired last, or was loaded when it never did.",
            labels=["automation"],
        )
        every = GaugeMetricFamily(
            "whenthen_automation_expected_every_seconds",
            "How often the automation says that it should fire.",
            labels=["automation"],
        )
        for name, loaded in self._loaded.items():
            silent.add_metric([name], max(now - self._fired.get(name, loaded), 0.0))
            expected = self._every.get(name)
            if expected:
                every.add_metric([name], expected)
        return [silent, every]
