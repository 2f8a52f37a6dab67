"""Spans over OTLP, through OpenTelemetry's SDK: its sampler, its resource, its batches and its exporter, by its environment variables.

What waits is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 spans), and the SDK's own thread sends it. A receiver that is away costs spans and
nothing else. Imported by `span_choice` alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from whenthen import __version__
from whenthen.engine.spans.span_records import SpanKind, SpanRecord, Spans

__all__ = ["OtlpSpans"]

log = logging.getLogger(__name__)

_KINDS = {
    SpanKind.SERVER: otel.SpanKind.SERVER,
    SpanKind.PRODUCER: otel.SpanKind.PRODUCER,
    SpanKind.CONSUMER: otel.SpanKind.CONSUMER,
    SpanKind.CLIENT: otel.SpanKind.CLIENT,
    SpanKind.INTERNAL: otel.SpanKind.INTERNAL,
}


class _GivenIds(IdGenerator):
    """The ids of the span that is recorded now."""

    def __init__(self) -> None:
        self.span = self.trace = 0

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


class OtlpSpans(Spans):
    """Exports spans. For one event loop."""

    on = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        named = "OTEL_SERVICE_NAME" in environment or "service.name" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {} if named else {"service.name": "whenthen"}
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            resource=Resource.create({**own, "service.version": __version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("whenthen", __version__)

    def samples(self, trace_id: str) -> bool:
        found = self._provider.sampler.should_sample(None, int(trace_id, 16), "request")
        return found.decision is not Decision.DROP

    def record(self, span: SpanRecord) -> None:
        try:
            self._record(span)
        except Exception as error:  # noqa: BLE001 - a span is worth nothing that depends on this
            log.debug("a span is not exported: %s: %s", type(error).__name__, error)

    def _record(self, span: SpanRecord) -> None:
        self._ids.trace, self._ids.span = int(span.trace, 16), int(span.id, 16)
        context = otel.set_span_in_context(otel.INVALID_SPAN)
        if span.parent is not None:
            above = otel.SpanContext(
                self._ids.trace, int(span.parent, 16), is_remote=True, trace_flags=otel.TraceFlags(1)
            )
            context = otel.set_span_in_context(otel.NonRecordingSpan(above))
        made = self._tracer.start_span(
            span.name,
            context=context,
            kind=_KINDS[span.kind],
            attributes=dict(span.attributes),
            start_time=span.start_us * 1000,
        )
        for name, at_us, attributes in span.notes:
            made.add_event(name, dict(attributes), timestamp=at_us * 1000)
        if span.error:
            made.set_status(otel.StatusCode.ERROR, span.error)
        made.end(end_time=max(span.end_us, span.start_us) * 1000)

    async def close(self, within_s: float) -> None:
        # the SDK waits for its receiver for up to half a minute, which no stop may take
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # nobody waits any more
                return

        threading.Thread(target=shut_down, name="spans are sent", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await done.wait()
        except TimeoutError:
            log.warning(
                "spans of the last moments are not exported: their receiver did not take them in %g s", within_s
            )
