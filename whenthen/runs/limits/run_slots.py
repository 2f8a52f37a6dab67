"""The slots that a run needs to be active: of its deployment, or of its key there, and of its work pool.

A slot is a run's for as long as the run is active, which a worker says with heartbeats: the slot of a dead worker's run comes free when
the run is marked Crashed. Called by `worker`. Meaning: docs/deployments.md, "Limits".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from whenthen.runs.run_states import transition
from whenthen.runs.stores import Deployments, Stored, Stores
from whenthen.schemas.deployments import ACTIVE, Deployment, FlowRun, OnLimit, RunState
from whenthen.schemas.errors import Conflict
from whenthen.schemas.work_pools import WorkPool

__all__ = ["Full", "RunSlots", "SlotLimit", "limits_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimit:
    """One limit that a run is under."""

    name: str  #: of the slots
    limit: int
    key: str = ""
    on_limit: OnLimit = OnLimit.QUEUE
    what: str  #: for people


@dataclass(frozen=True, slots=True)
class Full:
    """All slots of a limit are taken."""

    message: str
    cancel: bool = False  #: the run is not to wait for one


def limits_of(run: FlowRun, deployment: Deployment, pools: Sequence[WorkPool]) -> list[SlotLimit]:
    """The limits that a run is under; `pools` are its own, and those of which that is a queue. They come first: for a run that has no place
    there none is cancelled."""
    # names have no slash, so that no deployment has the slots of a pool
    found = [
        SlotLimit(name=f"work-pool/{pool.name}", limit=pool.limit, what=f"work pool {pool.name!r}")
        for pool in pools
        if pool.limit is not None
    ]
    if (own := deployment.limits) is not None:
        key = own.key_of(run.parameters)
        what = f"deployment {deployment.name!r}" + (f" for its {own.key}" if own.key else "")
        found.append(SlotLimit(name=deployment.name, limit=own.limit, key=key, on_limit=own.on_limit, what=what))
    return found


class RunSlots:
    """Takes and gives back the slots of the runs of one worker."""

    def __init__(self, stores: Stores, deployments: Deployments, *, clock: Callable[[], datetime]) -> None:
        self._stores = stores
        self._deployments = deployments
        self._clock = clock
        self._taken: dict[str, set[str]] = {}  #: names of slots by run

    async def look(self, run: FlowRun, deployment: Deployment) -> Full | None:
        """What keeps the run from its slots now. Looked at before the run becomes Pending, to avoid a change back.

        Where the limit says so, runs that have the slots are cancelled.
        """
        for limit in self._limits(run, deployment):
            held = await self._stores.slots.holders(limit.name, key=limit.key)
            if len(held) < limit.limit or run.id in held:
                continue
            active = [stored for holder in held if (stored := await self._active(holder)) is not None]
            if len(active) < limit.limit:
                continue
            if limit.on_limit is OnLimit.CANCEL_RUNNING:
                return await self._make_room(run, limit, active)
            # a retry is no new run
            return Full(_message(limit), cancel=limit.on_limit is OnLimit.CANCEL_NEW and run.attempt == 0)
        return None

    async def acquire(self, run: FlowRun, deployment: Deployment) -> Full | None:
        """Take all slots of a run that is Pending, or none and say of which there are no more."""
        for limit in self._limits(run, deployment):
            self._taken.setdefault(run.id, set()).add(limit.name)
            if not await self._stores.slots.acquire(limit.name, [run.id], limit.limit, self._is_active, key=limit.key):
                await self.release(run)
                return Full(_message(limit))
        return None

    async def release(self, run: FlowRun) -> None:
        """Give back the slots that this worker took for the run; others come free with the run's state."""
        for name in self._taken.pop(run.id, ()):
            await self._stores.slots.release(name, [run.id])

    async def _make_room(self, run: FlowRun, limit: SlotLimit, active: list[Stored]) -> Full:
        """Cancel as many of the oldest runs as the run needs. One that is older than all that have slots gives way itself."""
        ends = sum(stored.run.state is RunState.CANCELLING for stored in active)
        if ends > len(active) - limit.limit:
            return Full(_message(limit))
        older = [
            stored
            for stored in sorted(active, key=lambda each: (each.run.created, each.run.id))
            if stored.run.state is not RunState.CANCELLING
            and (stored.run.created, stored.run.id) < (run.created, run.id)
        ]
        if not older:
            return Full(f"newer runs have the {limit.limit} slots of {limit.what}", cancel=True)
        oldest = older[0]
        message = f"cancelled for the newer run {run.id}: {limit.what} has {limit.limit} slots"
        try:
            cancelling = transition(oldest.run, RunState.CANCELLING, self._clock(), message=message)
            await self._stores.runs.update(cancelling, oldest.version)
            log.info("flow run %s: %s", oldest.run.id, message)
        except Conflict:
            pass  # it changed, and is looked at again
        return Full(_message(limit))

    def _limits(self, run: FlowRun, deployment: Deployment) -> list[SlotLimit]:
        known = self._deployments.work_pools()
        pools = [pool for name, pool in known.items() if name == run.work_pool or run.work_pool in pool.queues]
        return limits_of(run, deployment, sorted(pools, key=lambda pool: pool.name))

    async def _active(self, run_id: str) -> Stored | None:
        stored = await self._stores.runs.get(run_id)
        return stored if stored is not None and stored.run.state in ACTIVE else None

    async def _is_active(self, run_id: str) -> bool:
        return await self._active(run_id) is not None


def _message(limit: SlotLimit) -> str:
    return f"waits for one of {limit.limit} slots of {limit.what}"
