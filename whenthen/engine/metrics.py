"""The Prometheus metrics of a process. One object with its own registry; the wiring builds it and hands it around.

Names start with `whenthen_`. Label values come from rules and settings, never from events, so that nobody outside can make
the number of series grow; series of what left the rules are removed. The alerts in `deploy/prometheus/whenthen.rules.yaml` use
these names.

Every counter that an alert or the dashboard reads is there, at zero, from the loading of the rules on: `increase` and `rate` see the
differences between scrapes alone, so that of a series which is born with its first burst the burst is missing. At most
`metric_series.MOST_AHEAD` series of a counter are made so; beyond, each is made when it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from itertools import chain, product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from whenthen.engine.metric_series import LastFirings, Series
from whenthen.schemas.deployments import TERMINAL
from whenthen.schemas.errors import Unproven
from whenthen.schemas.firings import Reason

__all__ = ["REFUSALS", "Metrics"]

LONG_S = 0.1  #: beyond, an exposition is given again
KEPT_TIMES = 10  #: for so many times what it took to make
OUTCOMES = ("executed", "failed", "dead")  #: of attempts
_BUS = (
    "bus_busy",
    "bus_disconnected",
    "bus_refused",
    "bus_timeout",
    "bus_unavailable",
    "data_directory_gone",
    "disk_full",
    "no_stream",
    "stream_full",
)
_FORM = (
    "body_too_large",
    "busy",
    "internal",
    "invalid_event",
    "invalid_input",
    "invalid_json",
    "invalid_request",
    "reserved_name",
    "unsupported_media_type",
)
#: why requests are refused, by what they were sent to: the API, a webhook of the rules, one that is not there
REFUSALS: Mapping[str, tuple[str, ...]] = {
    "api": (*_BUS, *_FORM),
    "webhook:": (
        *_BUS,
        *_FORM,
        "method_not_allowed",
        "rate_limited",
        "refused",
        "render_error",
        "keys_unavailable",
        *Unproven.REASONS,
    ),
    "webhook": ("not_found",),
    "source:": (
        "internal",
        "invalid_event",
        "invalid_input",
        "invalid_json",
        "render_error",
        "reserved_name",
        "unsupported_media_type",
    ),
}
# a further sample for each counter and histogram, the time at which it was made: it doubles every scrape, and nothing here reads it
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PARTS_OF_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """All metrics of one process. `clock` gives seconds since 1970. Of rules a process counts what its `roles` do with them."""

    def __init__(
        self,
        *,
        version: str,
        roles: Collection[str] = ("api", "evaluator", "executor", "scheduler"),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._text: bytes | None = None  #: that took long to make
        self._text_until = 0.0
        registry = self.registry = CollectorRegistry(auto_describe=True)
        self._clock = clock
        self._automations: frozenset[str] = frozenset()
        self._deployments: frozenset[str] = frozenset()
        self._webhooks: frozenset[str] = frozenset()
        self._roles = roles
        self._received: dict[str, Counter] = {}  #: by source; looked up for every event, so kept apart
        self._last = LastFirings(clock)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(self._last)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"whenthen_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"whenthen_{name}", text, labels, registry=registry)

        self.build = Info("whenthen_build", "Version of the running code.", registry=registry)
        self.build.info({"version": version})
        self.events_received = counter("events_received", "Events acknowledged by the stream.", "source")
        self.events_duplicate = counter("events_duplicate", "Events that the stream had already.", "source")
        self.events_refused = counter("events_refused", "Requests refused before the stream.", "source", "reason")
        self.http_requests = counter("http_requests", "Requests answered.", "route", "status")
        self.connections_refused = counter(
            "http_connections_refused",
            "Requests and connections refused for their form, size, time or number.",
            "reason",
        )
        self.stream_clients = gauge("stream_clients", "Clients of `/api/stream`.")
        self.stream_dropped = counter(
            "stream_dropped", "What clients of `/api/stream` were not sent, as they were too slow.", "kind"
        )
        self.matched = counter("automation_matched", "Events that matched a trigger of the automation.", "automation")
        self.fired = counter("automation_fired", "Firings.", "automation")
        self.paused = gauge("automation_paused", "1 while the automation is paused.", "automation")
        self.set_aside = gauge(
            "automation_set_aside",
            "1 while the automation is set aside, as it left what can not be stored.",
            "automation",
        )
        self.decisions = counter("decisions", "Decisions of the evaluator.", "reason")
        self.evaluated = counter("evaluated_events", "Events read by the evaluator.", "shard")
        self.skipped = counter(
            "skipped_messages", "Messages that are no event, or on which the evaluator failed.", "shard"
        )
        self.events_set_aside = counter(
            "events_set_aside", "Events that a shard passes over, as they hung processes.", "shard"
        )
        self.lag_messages = gauge("evaluation_lag_messages", "Events in the stream that are not evaluated.", "shard")
        self.lag_seconds = gauge("evaluation_lag_seconds", "Age of the oldest event not yet evaluated.", "shard")
        self.commit_seconds = Histogram(
            "whenthen_commit_duration_seconds", "Atomic commits.", registry=registry, buckets=_PARTS_OF_SECONDS
        )
        self.actions = counter("actions", "Attempts of actions.", "automation", "type", "outcome")
        self.refused_actions = counter("actions_refused", "Action tasks that named no published action.")
        self.action_seconds = Histogram(
            "whenthen_action_duration_seconds",
            "One attempt of an action.",
            ("type",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.actions_waiting = gauge("actions_waiting", "Actions that wait or are being performed, retries included.")
        self.dead_letters = gauge("dead_letters", "Actions whose last attempt failed.", "automation")
        self.rules_loaded = gauge("rules_loaded", "Parts of the rules in force.", "kind")
        self.rules_rejected = counter("rules_rejected", "Sets of rules that were refused.")
        self.rules_refused = gauge(
            "rules_refused", "1 while the rules on disk are refused and older ones are in force."
        )
        self.rules_revision = gauge("rules_revision", "Number of the revision of the rules in force.")
        self.rules_files_differ = gauge(
            "rules_files_differ", "1 while the rules files of this process are not the rules in force."
        )
        self.rules_unusable = gauge(
            "rules_unusable", "1 while the current revision of the rules can not be used by this process."
        )
        self.rules_taken = gauge("rules_loaded_timestamp_seconds", "When the rules in force were taken.")
        self.bus_connected = gauge("bus_connected", "1 while NATS is connected.")
        self.stream_bytes = gauge("stream_bytes", "Bytes in a stream.", "stream")
        self.stream_limit_bytes = gauge("stream_limit_bytes", "Limit of a stream; absent without one.", "stream")
        self.made_room = counter(
            "stream_made_room", "Messages dropped before their time, as a stream neared its limit in bytes.", "stream"
        )
        self.disk_free = gauge("disk_free_bytes", "Free on the disk of the embedded NATS server.")
        self.data_gone = gauge(
            "data_directory_gone", "1 while the data directory of the embedded NATS server is not where it was."
        )
        self.disk_reserve = gauge("disk_reserve_bytes", "Below so many free bytes events from outside are refused.")
        self.unread_share = gauge(
            "events_unread_age_share", "How much of its time in the stream the oldest unread event has spent."
        )
        self.stream_stuck = gauge(
            "stream_stuck", "1 while nothing can be stored in a stream that is full of what is needed.", "stream"
        )
        self.stream_messages = gauge("stream_messages", "Messages in a stream.", "stream")
        self.history_lag_messages = gauge(
            "history_lag_messages", "Messages of a stream that are not in the history.", "stream"
        )
        self.history_lag_seconds = gauge(
            "history_lag_seconds", "Age of the oldest message of a stream that is not in the history.", "stream"
        )
        self.runs = counter("flow_runs", "Flow runs by the state that they ended in.", "deployment", "state")
        self.run_events_set_aside = counter(
            "flow_run_events_set_aside", "State changes of flow runs whose event is without its data, or not published."
        )
        self._matched, self._fired, self._actions = map(Series, (self.matched, self.fired, self.actions))
        self._runs = Series(self.runs)
        self._secrets_missing = Series(
            gauge("webhook_secrets_missing", "Secrets of the webhook that this process can not read.", "webhook")
        )
        self._source_reading = Series(gauge("source_reading", "1 while this process reads the source.", "source"))
        self._source_heard = Series(
            gauge("source_heard_timestamp_seconds", "When the source heard a message last here; 0 if never.", "source")
        )
        self._sources: frozenset[str] = frozenset()
        self._webhook_heard = Series(
            gauge(
                "webhook_heard_timestamp_seconds",
                "When the webhook took a request last; 0: never in 7 days.",
                "webhook",
            )
        )
        self._action_seconds = Series(self.action_seconds)
        self._events_received, self._events_duplicate = Series(self.events_received), Series(self.events_duplicate)
        self._events_refused = Series(self.events_refused)
        if "evaluator" in roles:
            for reason in Reason:
                self.decisions.labels(reason.value)
        self._take_ways_in((), ())

    def received(self, source: str, *, duplicate: bool = False) -> None:
        """Count an event that the stream acknowledged. One of a webhook that left the rules meanwhile is not counted."""
        counter = self._received.get(source)
        if counter is None:
            return
        counter.inc()
        if duplicate:
            self.events_duplicate.labels(source).inc()

    def refused(self, source: str, reason: str) -> None:
        """Count a request that was refused, unless it is one of a webhook that left the rules meanwhile."""
        if source in self._received or (source == "webhook" and "api" in self._roles):
            self._events_refused.labels(source, reason).inc()

    def fire(self, automation: str) -> None:
        """Count a firing."""
        if automation in self._automations:
            self._fired.labels(automation).inc()
            self._last.fired(automation, self._clock())

    def fired_before(self, automation: str, at: float) -> None:
        """Note when an automation fired before the process began, `at` seconds since 1970: a start is no sign of life."""
        self._last.fired(automation, at)

    def match(self, automation: str, events: int) -> None:
        """Count events that matched a trigger of the automation."""
        if automation in self._automations:
            self._matched.labels(automation).inc(events)

    def acted(self, automation: str, kind: str, outcome: str, seconds: float) -> None:
        """Count one try of an action."""
        if automation in self._automations:
            self._actions.labels(automation, kind, outcome).inc()
        self._action_seconds.labels(kind).observe(seconds)

    def run_ended(self, deployment: str, state: str) -> None:
        """Count a flow run in a terminal state."""
        if deployment in self._deployments:
            self._runs.labels(deployment, state).inc()

    def secrets_missing(self, webhook: str, count: int) -> None:
        """Note how many secrets of a webhook can not be read."""
        if webhook in self._webhooks:
            self._secrets_missing.labels(webhook).set(count)

    def show_source(self, name: str, *, reading: bool, heard_at: float | None) -> None:
        """Note how a source does in this process."""
        if name in self._sources:
            self._source_reading.labels(name).set(int(reading))
            self._source_heard.labels(name).set(heard_at or 0)

    def webhook_heard(self, webhook: str, at: float) -> None:
        """Note when a webhook took a request last, in seconds since 1970; 0 when it never did."""
        if webhook in self._webhooks:
            self._webhook_heard.labels(webhook).set(at)

    def decide(self, reasons: Mapping[Reason, int]) -> None:
        """Count decisions."""
        for reason, count in reasons.items():
            self.decisions.labels(reason.value).inc(count)

    def take_rules(
        self,
        automations: Mapping[str, timedelta | None],
        counts: Mapping[str, int],
        *,
        actions: Mapping[str, Collection[str]] | None = None,
        webhooks: Collection[str] = (),
        sources: Collection[str] = (),
        deployments: Collection[str] = (),
    ) -> None:
        """Note that rules are in force: automations with what they say of `expected_every`, and how many of each kind.

        `actions` are the types of each automation's actions.
        """
        names = frozenset(automations)
        for gone in self._automations - names:
            for gauge in (self.paused, self.set_aside, self.dead_letters):
                gauge.remove(gone)
        self._automations = names
        for name in names:
            self.paused.labels(name)
        if "evaluator" in self._roles:
            self._last.keep({name: every.total_seconds() if every else None for name, every in automations.items()})
            for series in (self._fired, self._matched):
                series.keep([(name,) for name in automations])
        if "executor" in self._roles:
            types = {name: sorted(kinds) for name, kinds in (actions or {}).items()}
            self._actions.keep(
                [(name, kind, outcome) for name, kinds in types.items() for kind, outcome in product(kinds, OUTCOMES)]
            )
            self._action_seconds.keep([(kind,) for kind in sorted({*chain(*types.values())})])
        if "scheduler" in self._roles:
            self._deployments = frozenset(deployments)
            self._runs.keep([(name, state) for name in deployments for state in sorted(TERMINAL)])
        self._take_ways_in(webhooks, sources)
        for kind, count in counts.items():
            self.rules_loaded.labels(kind).set(count)
        self.rules_refused.set(0)
        self.rules_taken.set(self._clock())

    def _take_ways_in(self, webhooks: Collection[str], read: Collection[str]) -> None:
        """Make the series of what events come by here: requests where this process answers them, sources where it reads them."""
        answers = "api" in self._roles
        names = webhooks if answers else ()
        sources = ["api", *(f"webhook:{name}" for name in names)] if answers else []
        if "source" in self._roles:
            sources += [f"source:{name}" for name in read]
            self._source_reading.keep([(name,) for name in read])
            self._source_heard.keep([(name,) for name in read])
            self._sources = frozenset(read)
        for series in (self._events_received, self._events_duplicate):
            series.keep([(source,) for source in sources])
        self._events_refused.keep(
            [
                (source, reason)
                for source in (*sources, *(["webhook"] if answers else []))
                for reason in REFUSALS[source[: source.find(":") + 1] or source]
            ]
        )
        self._secrets_missing.keep([(name,) for name in names])
        self._webhook_heard.keep([(name,) for name in names])
        self._webhooks = frozenset(names)
        self._received = {source: self.events_received.labels(source) for source in sources}

    def refuse_rules(self) -> None:
        """Note that a set of rules was refused and the last good one stays."""
        self.rules_rejected.inc()
        self.rules_refused.set(1)

    def set_stream(self, stream: str, *, messages: int, size: int, limit: int) -> None:
        """Note how full a stream is; `limit` is -1 when it has none."""
        self.stream_messages.labels(stream).set(messages)
        self.stream_bytes.labels(stream).set(size)
        if limit > 0:
            self.stream_limit_bytes.labels(stream).set(limit)

    def set_history_lag(self, found: Mapping[str, tuple[int, float]]) -> None:
        """Note how far the history is behind streams, in messages and seconds."""
        for stream, (messages, seconds) in found.items():
            self.history_lag_messages.labels(stream).set(messages)
            self.history_lag_seconds.labels(stream).set(seconds)

    def text(self) -> bytes:
        """The exposition that `/metrics` serves. One that took long to make is given again for a while: whoever asks all the time, which
        needs no token, takes a tenth of the event loop's time at most."""
        began = self._monotonic()
        if self._text is None or began >= self._text_until:
            text = generate_latest(self.registry)
            took = self._monotonic() - began
            kept = took >= LONG_S
            self._text = text if kept else None
            self._text_until = began + KEPT_TIMES * took
            return text
        return self._text
