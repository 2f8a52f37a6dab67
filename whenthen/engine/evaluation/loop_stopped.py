"""The event that says that a chain of firings was stopped. Pure.

It carries the lineage of the event that was not fired on, one step shorter, so that an automation may tell people about it;
the evaluator never lets it start an automation that is in that lineage. Called by the evaluation loop.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from whenthen.actions import automation_id
from whenthen.schemas import Event, new_event
from whenthen.triggers import LOOP_STOPPED, Stopped

__all__ = ["loop_stopped_event"]


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
        now=now,
    )
