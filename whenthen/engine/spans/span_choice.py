"""Whether spans are exported: as OpenTelemetry's own environment variables say. Without them nothing of it is imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from whenthen.engine.spans.span_records import Spans

__all__ = ["open_spans"]

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def open_spans(environment: Mapping[str, str]) -> Spans:
    """Where spans go. A process whose OpenTelemetry can not be used says so in its log, and goes on without."""
    if not any(environment.get(name, "").strip() for name in _ENDPOINTS):
        return Spans()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Spans()
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("otlp", ""):
        return Spans()
    protocol = next((found for name in _PROTOCOLS if (found := environment.get(name, "").strip().lower())), "")
    if protocol not in ("", "http/protobuf"):
        log.error(
            "spans are not exported: %s asks for the protocol %r, and whenthen speaks http/protobuf alone, "
            "usually at port 4318",
            " or ".join(_PROTOCOLS),
            protocol[:80],
        )
        return Spans()
    try:
        from whenthen.engine.spans.otlp_spans import OtlpSpans
    except ImportError as error:
        log.error(
            "spans are not exported: %s names a receiver, and OpenTelemetry is not installed (%s); "
            "pip install 'whenthen[otel]'",
            " or ".join(_ENDPOINTS),
            error,
        )
        return Spans()
    try:
        return OtlpSpans(environment)
    except Exception as error:  # noqa: BLE001 - of the values of its variables; nothing of ours depends on spans
        log.error("spans are not exported: OpenTelemetry refuses its settings: %s: %s", type(error).__name__, error)
        return Spans()
