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
from whenthen.runs.limits.pause_flags import deployment_flag, is_pool_paused, pool_flag, schedule_flag
from whenthen.runs.pauses.pause_changes import PauseChanges
from whenthen.runs.reports.task_runs import TaskRunPage
from whenthen.runs.run_states import display_name, new_run, shown_run
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
)
from whenthen.schemas.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    did_you_mean,
)
from whenthen.schemas.times import format_time
from whenthen.schemas.work_pools import WorkPool

__all__ = ["SET_STATES", "BuiltInOrchestrator"]

#: states that somebody may put a run into
SET_STATES = frozenset({RunState.CANCELLED, RunState.SUSPENDED, RunState.COMPLETED, RunState.FAILED, RunState.CRASHED})

_TAIL_BYTES = 16 * 1024  #: of the end of a log in a template
_TRIES = 20  #: of a compare-and-set that fails again and again


def _now() -> datetime:
    return datetime.now(UTC)


class BuiltInOrchestrator:
    """Deployments of the rules, run by workers that share `stores`."""

    def __init__(self, stores: Stores, deployments: Deployments, *, clock: Callable[[], datetime] = _now) -> None:
        self._stores = stores
        self._deployments = deployments
        self._clock = clock
        self._pauses = PauseChanges(stores, clock)

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

    @property
    def deployments(self) -> Deployments:
        """Those that it runs."""
        return self._deployments

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
        await self._pauses.cancel(run_id)

    async def pause_flow_run(self, run_id: str, *, by: str = "") -> FlowRun:
        """Let the run wait where it next begins a task. See `PauseChanges.pause`.

        Raises:
            Conflict: its deployment is a command, which knows of no pauses.
        """
        deployment = self._deployments.current().get((await self.get_flow_run(run_id)).run.deployment)
        if deployment is not None and deployment.command is not None:
            raise Conflict(f"deployment {deployment.name!r} is a command, which knows of no pauses; suspend the run")
        return await self._pauses.pause(run_id, by=by)

    async def suspend_flow_run(self, run_id: str, *, timeout_s: float | None = None, by: str = "") -> FlowRun:
        """Halt the run; its process is stopped. See `PauseChanges.suspend`."""
        return await self._pauses.suspend(run_id, timeout_s=timeout_s, by=by)

    async def resume_flow_run(
        self, run_id: str, given: Any, *, key: str | None = None, by: str = "", since: str | None = None
    ) -> FlowRun:
        """Let a run go on that is paused or suspended. See `PauseChanges.resume`.

        Raises:
            Conflict: also when it is suspended and its deployment is gone: what is answered then would be lost.
        """
        stored = await self.get_flow_run(run_id)
        deployment = stored.run.deployment
        if stored.run.state is RunState.SUSPENDED and deployment not in self._deployments.current():
            raise Conflict(
                f"flow run {run_id} stays suspended: deployment {deployment!r} is not in the rules any more; bring it back, or cancel the run"
            )
        return await self._pauses.resume(run_id, given, key=key, by=by, since=since)

    async def change_flow_run_state(self, run_id: str, state: str, *, message: str = "", by: str = "") -> None:
        """Put the run into a state that somebody decides: Cancelled and Suspended as `cancel_flow_run` and `suspend_flow_run` do; Completed,
        Failed and Crashed at once, where a worker that has it stops its processes then.

        Raises:
            NotFound: no such run.
            Conflict: there is no such move from the state that it is in.
            InvalidInput: it is none of those states.
        """
        to = next((each for each in SET_STATES if each.lower() == state.lower()), None)
        if to is None:
            known = [each.value for each in RunState if each in SET_STATES]
            raise InvalidInput(
                f"{state[:80]!r} is none of the states that can be set, {', '.join(known)}{did_you_mean(state, known)}",
                path=("state",),
            )
        if to is RunState.CANCELLED:
            await self.cancel_flow_run(run_id)
        elif to is RunState.SUSPENDED:
            await self.suspend_flow_run(run_id, by=by)
        else:
            await self._pauses.end(run_id, to, message=message or (f"set by {by}" if by else "set by request"))

    async def delete_flow_run(self, run_id: str) -> FlowRun:
        """Forget a run that has ended, with its log and its task runs. Gives what it was.

        Raises:
            NotFound: no such run.
            Conflict: it has not ended.
        """
        stored = await self.get_flow_run(run_id)
        if stored.run.state not in TERMINAL:
            raise Conflict(
                f"flow run {run_id} is {stored.run.state}; only one that has ended is deleted: cancel it first"
            )
        # the record last: what is left over after a crash in between can be found by it
        await self._stores.logs.forget(run_id)
        await self._stores.task_runs.forget(run_id)
        await self._stores.runs.delete(run_id, stored.version)
        return stored.run

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
        return await self._pauses.stored(run_id)

    async def describe_flow_run(self, run_id: str, *, log_tail: int = 0) -> dict[str, Any]:
        """The run for templates: as the API has it, with its `name`, and with `log_tail` the text of so many of the last lines of its log.

        Raises:
            NotFound: no such run.
        """
        run = (await self.get_flow_run(run_id)).run
        shown = {**shown_run(run), "name": display_name(run)}
        if log_tail:
            found = await self._stores.logs.last(run_id, limit=log_tail, most_bytes=_TAIL_BYTES)
            shown["log_tail"] = "\n".join(line.text for line in found.lines)
        return shown

    async def describe_deployment(self, name: str) -> dict[str, Any]:
        """The deployment for templates: as the rules have it, without its environment. Raises `NotFound`."""
        return self._deployment(name).model_dump(mode="json", exclude={"env", "secret_parameters"})

    async def describe_work_pool(self, name: str) -> dict[str, Any]:
        """The work pool for templates: as the rules have it, and whether it is paused. Raises `NotFound`."""
        pool = self._pool(name)
        found = await self._stores.flags.get(pool_flag(name))
        return {**pool.model_dump(mode="json"), "paused": is_pool_paused(pool, None if found is None else found[0])}

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
