"""Which spans does OpenTelemetry get? One for each request, event, evaluation, firing, action, attempt and run of a trace.

Off, and nothing of OpenTelemetry imported, unless its own environment variables name a receiver. Meaning: docs/actions.md, "Traces".
"""

from __future__ import annotations

from whenthen.engine.spans.request_spans import RequestSpan
from whenthen.engine.spans.span_choice import open_spans
from whenthen.engine.spans.span_records import (
    SpanKind,
    SpanRecord,
    Spans,
    action_spans,
    evaluation_span,
    firing_span,
    run_span,
)

__all__ = [
    "RequestSpan",
    "SpanKind",
    "SpanRecord",
    "Spans",
    "action_spans",
    "evaluation_span",
    "firing_span",
    "open_spans",
    "run_span",
]
