"""The span of a request that brings events, and one for each event below it.

    span = RequestSpan(spans, "POST /api/events", trace, now_us=...)
    span.carry(events)                  # before they are published: each names its span as the parent of what it causes
    span.status = 202
    span.end(now_us=...)

The trace of an event is that of its request, else a new one that begins with the request. An event that brings another trace, as a
CloudEvent of a broker's batch may, stays in its own one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from whenthen.engine.spans.span_records import MOST_CHARS, SpanKind, SpanRecord, Spans
from whenthen.schemas.events import Event
from whenthen.schemas.trace_context import is_sampled, valid_trace

__all__ = ["RequestSpan"]

MOST_EVENTS = 100  #: of a request that have a span of their own; the others are below the request's


class RequestSpan:
    """For one request. `trace` is the one that it names, if any."""

    def __init__(self, spans: Spans, name: str, trace: Mapping[str, str] | None, *, now_us: int) -> None:
        self.status: int | None = None  #: of the answer; None when nobody waited for one
        self._spans = spans
        self._name = name
        self._came = dict(trace) if trace is not None else None
        self._trace = self._came or _new_trace(spans)
        self._id = secrets.token_hex(8) if self._came is not None else self._trace["parent"]
        self._start_us = now_us
        self._events: list[tuple[Event, str, str, dict[str, str]]] = []

    def carry(self, events: Sequence[Event]) -> None:
        """Put each event below the request, in its trace."""
        for number, event in enumerate(events):
            came = valid_trace(event.data.get("trace"))
            other = came is not None and (self._came is None or came["id"] != self._came["id"])
            trace = came if came is not None and other else self._trace
            above = trace["parent"] if other else self._id
            if number >= MOST_EVENTS:
                event.data["trace"] = {**trace, "parent": above}
                continue
            own = secrets.token_hex(8)
            event.data["trace"] = {**trace, "parent": own}
            if is_sampled(trace):
                self._events.append((event, own, above, trace))

    def end(self, *, now_us: int) -> None:
        """Record the request, and the events if they were taken."""
        status = self.status
        if status is not None and status < 300:
            for event, own, above, trace in self._events:
                self._spans.record(
                    SpanRecord(
                        name=f"publish {event.name[:MOST_CHARS]}",
                        trace=trace["id"],
                        id=own,
                        parent=above,
                        kind=SpanKind.PRODUCER,
                        start_us=self._start_us,
                        end_us=now_us,
                        attributes={"whenthen.event": event.id, "whenthen.event.name": event.name[:MOST_CHARS]},
                    )
                )
        if is_sampled(self._trace):
            failed = status is not None and status >= 500
            self._spans.record(
                SpanRecord(
                    name=self._name,
                    trace=self._trace["id"],
                    id=self._id,
                    parent=None if self._came is None else self._came["parent"],
                    kind=SpanKind.SERVER,
                    start_us=self._start_us,
                    end_us=now_us,
                    attributes={} if status is None else {"http.response.status_code": status},
                    error=f"answered {status}" if failed else "",
                )
            )


def _new_trace(spans: Spans) -> dict[str, str]:
    """A trace that begins now, with the span that is its `parent`; its id is random."""
    trace_id = secrets.token_hex(16)
    return {"id": trace_id, "parent": secrets.token_hex(8), "flags": "03" if spans.samples(trace_id) else "02"}
