"""The event `deployment.late`, and the position up to which somebody has looked for what is late. Called by `lateness` and `overdue_runs`."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime

from whenthen.runs.run_states import display_name
from whenthen.runs.stores import Flag, FlagStore
from whenthen.schemas.deployments import Deployment, FlowRun
from whenthen.schemas.errors import Conflict
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.times import format_time

__all__ = ["advance", "late_event"]

log = logging.getLogger(__name__)


def late_event(
    deployment: Deployment, due: datetime, *, since: str | None, now: datetime, run: FlowRun | None = None
) -> Event:
    """The event of `run`, which goes on though it was to be done by `due`; without one, of a deployment none of whose runs completed by then.
    `since` is from when that was counted. One run or deployment has one event for one `due`, whoever makes it."""
    name = deployment.name
    digest = hashlib.blake2b(f"{name if run is None else run.id}\n{format_time(due)}".encode(), digest_size=16)
    related = [
        {"id": f"whenthen.work-pool.{deployment.work_pool}", "role": "work-pool", "name": deployment.work_pool},
        *({"id": f"whenthen.tag.{tag}", "role": "tag", "name": tag} for tag in deployment.tags),
    ]
    payload = {"deployment": name, "expected_by": format_time(due), "since": since}
    if run is not None:
        related.insert(0, {"id": f"whenthen.flow-run.{run.id}", "role": "flow-run", "name": display_name(run)})
        payload |= {"flow_run": run.id, "state": run.state.value}
    return new_event(
        "deployment.late",
        id=f"late-{digest.hexdigest()}",
        resource={"id": f"whenthen.deployment.{name}", "name": name, "deployment": name},
        related=related,
        payload=payload,
        occurred=due,
        now=now,
        source="flow-runs",
        lineage=None if run is None else run.lineage,
        trace=None if run is None else run.trace,
    )


async def advance(flags: FlagStore, key: str, at: datetime, version: int, *, note: str = "") -> None:
    """Move the position `key` to `at`, unless another process has moved it since `version`."""
    try:
        await flags.put(key, Flag(paused=False, changed=format_time(at), note=note), version)
    except Conflict:
        log.debug("%s was advanced by another process", key)
