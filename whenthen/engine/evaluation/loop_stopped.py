"""The events by which the evaluation reports what it stopped: a chain of firings, or an automation. Pure.

The first carries the lineage of the event that was not fired on, one step shorter, so that an automation may tell people about it;
the evaluator never lets it start an automation that is in that lineage. Called by the evaluation loop.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from whenthen.actions import automation_id
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.trace_context import valid_trace
from whenthen.triggers import LOOP_STOPPED, Stopped

__all__ = ["SET_ASIDE_EVENT", "loop_stopped_event", "set_aside_event"]

SET_ASIDE_EVENT = "automation.set-aside"


def loop_stopped_event(stopped: Stopped, *, now: datetime) -> Event:
    """One id for an automation and an event, so that a repeated publish is the same event."""
    event = stopped.event
    digest = hashlib.blake2b(f"{stopped.automation}/{event.id}".encode(errors="surrogatepass"), digest_size=16)
    automations = [*((event.data.get("lineage") or {}).get("automations") or ()), stopped.automation]
    return new_event(
        LOOP_STOPPED,
        id=f"loop-{digest.hexdigest()}",
        resource={"id": automation_id(stopped.automation), "name": stopped.automation},
        related=[{"id": f"whenthen.event.{event.id}", "role": "triggering-event", "name": event.name}],
        payload={"depth": stopped.depth, "automations": automations, "event": event.name},
        source="whenthen",
        lineage={"depth": stopped.depth - 1, "firing": None, "automations": automations},
        trace=valid_trace(event.data.get("trace")),
        now=now,
    )


def set_aside_event(automation: str, detail: str, *, position: int, now: datetime) -> Event:
    """Says that an automation is evaluated no more until it is edited or resumed. One id for an automation and a position, so
    that a repeated publish is the same event."""
    return new_event(
        SET_ASIDE_EVENT,
        id=f"aside-{automation[:120]}-{position}",
        resource={"id": automation_id(automation), "name": automation},
        payload={"detail": detail, "position": position},
        source="whenthen",
        lineage={"depth": 0, "firing": None, "automations": [automation]},
        now=now,
    )
