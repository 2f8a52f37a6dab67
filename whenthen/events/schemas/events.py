"""Prefect's `events.schemas.events`."""

from whenthen.flows.services.emitted_events import (
    Event,
    RelatedResource,
    Resource,
)

__all__ = [
    "Event",
    "RelatedResource",
    "Resource",
]
