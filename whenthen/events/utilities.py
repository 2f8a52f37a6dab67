"""Prefect's `events.utilities`."""

from whenthen.flows.services.emitted_events import (
    emit_event,
)

__all__ = [
    "emit_event",
]
