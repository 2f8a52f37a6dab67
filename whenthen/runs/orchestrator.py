"""Starts, cancels and lists flow runs, and pauses schedules: the built-in orchestrator.

Implements the `Orchestrator` port of `actions`; the HTTP API and the scheduler call it too. A run is created in two steps:
its record, under an id made from its key, and its entry in the queue. After a crash between them, the caller's retry or the
reaper repeats the second step; both steps are idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from whenthen.runs.attempts.attempt_logs import LogLine, LogSlice
from whenthen.runs.limits.pause_flags import deployment_flag, pool_flag, schedule_flag
from whenthen.runs.reports.task_runs import TaskRunPage
from whenthen.runs.run_states import ALLOWED, new_run, transition
from whenthen.runs.stores import Deployments, Flag, Stored, Stores
from whenthen.schemas.base import MAX_MADE_DEPTH, is_deeper_than
from whenthen.schemas.deployments import (
    MAX_PARAMETER_BYTES,
    TERMINAL,
    WAITING,
    Deployment,
    FlowRun,
    RunState,
    Schedule,
    is_run_id,
)
from whenthen.schemas.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    did_you_mean,
)
from whenthen.schemas.times import format_time
from whenthen.schemas.work_pools import WorkPool

__all__ = ["BuiltInOrchestrator"]

_TRIES = 20  #: of a compare-and-set that fails again and again


def _now() -> datetime:
    return datetime.now(UTC)


class BuiltInOrchestrator:
    """Deployments of the rules, run by workers that share `stores`."""

    def __init__(self, stores: Stores, deployments: Deployments, *, clock: Callable[[], datetime] = _now) -> None:
        self._stores = stores
        self._deployments = deployments
        self._clock = clock

    # Runs

    async def run_deployment(
        self,
        name: str,
        parameters: dict[str, Any],
        *,
        key: str,
        delay: timedelta = timedelta(0),
        lineage: dict[str, Any] | None = None,
        trace: dict[str, str] | None = None,
        related: Sequence[dict[str, str]] = (),
        triggered_by: str | None = "api",
    ) -> FlowRun:
        """Create a run that is due `delay` from now, or return the run that `key` created before.

        Raises:
            NotFound: no such deployment; lists near names.
            InvalidInput: the parameters are not JSON or too large.
        """
        now = self._clock()
        run = new_run(
            self._deployment(name),
            key=key,
            parameters=parameters,
            now=now,
            scheduled_for=now + delay,
            lineage=lineage,
            trace=trace,
            related=tuple(related),
            triggered_by=triggered_by,
        )
        return await self.submit(run)

    def knows(self, name: str) -> bool:
        """Whether there is such a deployment."""
        return name in self._deployments.current()

    async def submit(self, run: FlowRun) -> FlowRun:
        """Store and queue `run`; if a run with its id exists, queue that one when it waits. Idempotent."""
        _check_size(run.parameters)
        stored = (await self._stores.runs.create(run)).run
        if stored.state in WAITING:
            await self._stores.queue.put(stored.id, pool=stored.work_pool, deployment=stored.deployment)
        return stored

    async def cancel_flow_run(self, run_id: str) -> None:
        """Cancel the run: at once when no worker has it, else once its worker has stopped its processes.

        A run that has ended, or is being cancelled, is not changed.

        Raises:
            NotFound: no such run.
        """
        for _ in range(_TRIES):
            stored = await self.get_flow_run(run_id)
            if stored.run.state in TERMINAL or stored.run.state is RunState.CANCELLING:
                return
            held = stored.run.state in (RunState.PENDING, RunState.RUNNING)
            to = RunState.CANCELLING if held else RunState.CANCELLED
            assert to in ALLOWED[stored.run.state]
            try:
                await self._stores.runs.update(
                    transition(stored.run, to, self._clock(), message="cancelled by request"), stored.version
                )
                return
            except Conflict:
                continue
        raise Conflict(f"flow run {run_id} keeps changing; try again")

    async def retry_flow_run(self, run_id: str, *, key: str, triggered_by: str | None = "api") -> FlowRun:
        """Start a new run like one that has ended: of the same deployment, with the same parameters, part of the same lineage. One `key` is one
        run; where that exists it is returned.

        Raises:
            NotFound: no such run, or its deployment is not in the rules any more.
            Conflict: it has not ended.
        """
        run = (await self.get_flow_run(run_id)).run
        if run.state not in TERMINAL:
            raise Conflict(f"flow run {run_id} is {run.state}; only one that has ended is retried")
        again = new_run(
            self._deployment(run.deployment),
            key=key,
            parameters=run.parameters,
            now=self._clock(),
            lineage=run.lineage,
            trace=run.trace,
            related=(*run.related, {"id": f"whenthen.flow-run.{run.id}", "role": "retried"}),
            triggered_by=triggered_by,
        )
        return await self.submit(again)

    async def get_flow_run(self, run_id: str) -> Stored:
        """The run as it is now.

        Raises:
            NotFound: no such run.
        """
        stored = await self._stores.runs.get(run_id) if is_run_id(run_id) else None
        if stored is None:
            raise NotFound(f"there is no flow run {run_id[:80]!r}; `whenthen runs` lists them")
        return stored

    async def has_run(self, run_id: str) -> bool:
        """Whether there is such a run."""
        return await self._stores.runs.get(run_id) is not None

    async def logs(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        """The log of the run so far.

        Raises:
            NotFound: no such run.
        """
        await self.get_flow_run(run_id)
        return await self._stores.logs.read(run_id, tail=tail)

    async def log_page(self, run_id: str, *, after: int, limit: int, most_bytes: int) -> LogSlice:
        """Some lines of the log of a run; see `LogStore.page`."""
        return await self._stores.logs.page(run_id, after=after, limit=limit, most_bytes=most_bytes)

    async def log_end(self, run_id: str, *, limit: int, most_bytes: int) -> LogSlice:
        """The last lines of the log of a run; see `LogStore.last`."""
        return await self._stores.logs.last(run_id, limit=limit, most_bytes=most_bytes)

    async def task_run_page(self, run_id: str, *, after: int, limit: int) -> TaskRunPage:
        """Some of the task runs of a run; see `TaskRunStore.page`."""
        return await self._stores.task_runs.page(run_id, after=after, limit=limit)

    # Schedules

    async def pause_deployment(self, name: str) -> None:
        """Pause all schedules of the deployment. Raises `NotFound`."""
        self._deployment(name)
        await self._set_paused(deployment_flag(name), True)

    async def resume_deployment(self, name: str) -> None:
        """Resume all schedules of the deployment; times during the pause are not made up for. Raises `NotFound`."""
        self._deployment(name)
        await self._set_paused(deployment_flag(name), False)

    async def pause_schedule(self, deployment: str, schedule: str) -> None:
        """Pause one schedule. Raises `NotFound`."""
        self._schedule(deployment, schedule)
        await self._set_paused(schedule_flag(deployment, schedule), True)

    async def resume_schedule(self, deployment: str, schedule: str) -> None:
        """Resume one schedule. Raises `NotFound`."""
        self._schedule(deployment, schedule)
        await self._set_paused(schedule_flag(deployment, schedule), False)

    # Work pools

    async def pause_work_pool(self, name: str) -> None:
        """Start no more runs of the pool; those that are active go on. Raises `NotFound`."""
        await self._set_paused(pool_flag(self._pool(name).name), True)

    async def resume_work_pool(self, name: str) -> None:
        """Start the runs that wait in the pool. Raises `NotFound`."""
        await self._set_paused(pool_flag(self._pool(name).name), False)

    def _pool(self, name: str) -> WorkPool:
        pools = self._deployments.work_pools()
        if name not in pools:
            raise NotFound(f"there is no work pool {name[:200]!r}{_near(name, pools)}")
        return pools[name]

    async def _set_paused(self, key: str, paused: bool) -> None:
        for _ in range(_TRIES):
            found = await self._stores.flags.get(key)
            changed = format_time(self._clock())
            flag = Flag(paused=paused, changed=changed)
            if found is not None:
                # the later write counts, also when its clock lags
                flag = replace(flag, changed=max(changed, found[0].changed))
            try:
                await self._stores.flags.put(key, flag, found[1] if found else 0)
                return
            except Conflict:
                continue
        raise Conflict(f"{key} keeps changing; try again")

    def deployment(self, name: str) -> Deployment:
        """The deployment of this name. Raises `NotFound`; lists near names."""
        return self._deployment(name)

    def _deployment(self, name: str) -> Deployment:
        current = self._deployments.current()
        if name not in current:
            raise NotFound(f"there is no deployment {name[:200]!r}{_near(name, current)}")
        return current[name]

    def _schedule(self, deployment: str, name: str) -> Schedule:
        schedules = {schedule.name: schedule for schedule in self._deployment(deployment).schedules}
        if name not in schedules:
            raise NotFound(f"deployment {deployment!r} has no schedule {name[:200]!r}{_near(name, schedules)}")
        return schedules[name]


def _near(name: str, known: Any) -> str:
    if near := did_you_mean(name, known):
        return near
    return f"; there are {', '.join(map(repr, sorted(known)[:10]))}" if known else "; there are none"


def _check_size(parameters: dict[str, Any]) -> None:
    if is_deeper_than(parameters, MAX_MADE_DEPTH):
        raise InvalidInput(f"nested more than {MAX_MADE_DEPTH} deep; flatten them", path=("parameters",))
    try:
        size = len(orjson.dumps(parameters))
    except TypeError as error:
        raise InvalidInput(f"not JSON: {error}", path=("parameters",)) from None
    if size > MAX_PARAMETER_BYTES:
        raise InvalidInput(
            f"{size} bytes as JSON; at most {MAX_PARAMETER_BYTES} are allowed; refer to large data",
            path=("parameters",),
        )
