"""The execution of one attempt of a run: its process, its output, what it tells and asks, and its exit. Called by `worker`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from whenthen.cancellation import end_task
from whenthen.runs.attempts.containers import Container, container_of
from whenthen.runs.attempts.run_handling import Ending, Stop, ending_of, suspended_ending
from whenthen.runs.attempts.starting import open_reports, start_attempt
from whenthen.runs.attempts.stop_reasons import request_stop
from whenthen.runs.commands import IMPORTED_NAME
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.pauses.asked_pauses import AskedPauses
from whenthen.runs.reports.run_reports import ReportSink, RunReports
from whenthen.runs.reports.run_requests import KINDS, RunRequests
from whenthen.runs.reports.shared_requests import SharedRequests
from whenthen.runs.reports.slot_requests import SlotRequests
from whenthen.runs.result_file import read_imported, read_report
from whenthen.runs.run_output import LogLimits, RunLog
from whenthen.runs.shared.named_limits import NamedLimits
from whenthen.runs.stores import Stores
from whenthen.runs.warm.warm_pool import WarmPool
from whenthen.schemas.deployments import Deployment, FlowRun, RunState
from whenthen.schemas.errors import NotFound, RenderError, SetupError

__all__ = ["AttemptExecution"]

_REASON_NAME: Final = (
    "stopping"  #: beside the socket: why the process gets SIGTERM, for `flows.reporting.cancellation_request`
)
_READ_AFTER_EXIT_S: Final = 2.0  #: how long a pipe is read that a process outside the group keeps open


class AttemptExecution:
    """One attempt. `run` is called once."""

    def __init__(
        self,
        run: FlowRun,
        deployment: Deployment,
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        *,
        root: Path,
        environment: Mapping[str, str],
        resolve: Callable[[str], str],
        clock: Callable[[], datetime],
        kill_grace: timedelta,
        limits: LogLimits,
        hurry: asyncio.Event,
        warm: WarmPool,
        max_depth: int,
    ) -> None:
        """`environment` is passed on to the process; when `hurry` is set, what is being stopped is killed."""
        self._run = run
        self._deployment = deployment
        self._stores = stores
        self._orchestrator = orchestrator
        self._root = root
        self._environment = environment
        self._resolve = resolve
        self._clock = clock
        self._kill_grace = kill_grace
        self._limits = limits
        self._hurry = hurry
        self._warm = warm
        self._max_depth = max_depth
        self._output: RunLog | None = None
        self._read_secrets: set[str] = set()  #: by its code

    async def run(self, scratch: Path, stop: asyncio.Future[Stop]) -> Ending | None:
        """Start the process in the folder `scratch`, and stop it when `stop` has a reason. None when the attempt does not count.

        Raises:
            Shortage: the machine lacks what a start needs.
        """
        requests = self._requests()
        reports = RunReports(self._run, scratch, kinds=KINDS, answer=requests.answer)
        try:
            await open_reports(reports)
            return await self._run_heard(scratch, stop, reports, requests.pauses)
        finally:
            await reports.abandon()
            await requests.close()

    async def _run_heard(
        self, scratch: Path, stop: asyncio.Future[Stop], reports: RunReports, pauses: AskedPauses
    ) -> Ending | None:
        run, deployment = self._run, self._deployment
        output = self._log()
        container: Container | None = None
        try:
            pool = self._orchestrator.deployments.work_pools().get(run.work_pool)
            container = container_of(deployment, run, pool, self._environment)
            group, secrets = await start_attempt(
                deployment,
                run,
                root=self._root,
                scratch=scratch,
                inherited=self._environment,
                resolve=self._resolve,
                grace=self._kill_grace,
                reports=reports,
                warm=self._warm,
                container=container,
            )
        except (NotFound, RenderError, SetupError) as error:
            await output.write_system_line(str(error))
            await output.close()
            return Ending(state=RunState.FAILED, message=str(error), retry=False)
        output = self._output = self._log(secrets)
        reports.begin(
            ReportSink(
                run,
                self._stores,
                output,
                clock=self._clock,
                task_run_events=deployment.task_run_events,
                forget=reports.forget,
            )
        )
        async with group:
            copies = {
                asyncio.create_task(output.copy(group.stdout, "stdout")),
                asyncio.create_task(output.copy(group.stderr, "stderr")),
            }
            exited = asyncio.create_task(group.wait())
            leaving = asyncio.create_task(self._wait_for_leaving(pauses, stop))
            timer = None
            if deployment.timeout:
                seconds = deployment.timeout.total_seconds()
                timer = asyncio.get_running_loop().call_later(seconds, request_stop, stop, Stop.TIMEOUT)
            try:
                either: list[asyncio.Future[Any]] = [exited, stop]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                stopped = None if exited.done() else stop.result()
                if stopped is not None:
                    await output.write_system_line(f"stopping: {stopped}")
                    await asyncio.to_thread(_say_why, scratch, stopped)
                    await group.stop(self._hurry)
                    if container is not None:  # which does not notice that its client was killed
                        await container.remove()
                exit_code = await exited
                await asyncio.wait(copies, timeout=_READ_AFTER_EXIT_S)
                group.close_output()
                if stopped is not Stop.LOST:
                    await asyncio.wait(copies)
            finally:
                if timer is not None:
                    timer.cancel()
                await end_task(exited, leaving, *copies)
        if stopped is Stop.LOST:
            await output.abandon()
            return None
        await reports.close()
        if stopped in (Stop.DRAIN, Stop.SUSPENDED):
            await output.close()
            return None
        report = await asyncio.to_thread(read_report, scratch / "result.json")
        self._warm.learn(deployment, await asyncio.to_thread(read_imported, scratch / IMPORTED_NAME))
        if report.note:
            await output.write_system_line(report.note)
        await output.close()
        ending = suspended_ending(exit_code, stopped, report, pauses.suspension) or ending_of(
            exit_code, stopped, deployment.timeout, report, output.last_error_line
        )
        return replace(ending, message=output.mask(ending.message), result=output.mask_value(ending.result))

    async def _wait_for_leaving(self, pauses: AskedPauses, stop: asyncio.Future[Stop]) -> None:
        """Stop a process that was told to end, since it asked to be suspended, and goes on."""
        await pauses.suspended.wait()
        await asyncio.sleep(self._kill_grace.total_seconds())
        request_stop(stop, Stop.OVERSTAYED)

    def _log(self, secrets: tuple[str, ...] = ()) -> RunLog:
        run = self._run
        found = RunLog(self._stores.logs, run.id, run.attempt, clock=self._clock, limits=self._limits, secrets=secrets)
        for secret in self._read_secrets:
            found.hide(secret)
        return found

    def _requests(self) -> RunRequests:
        run, stores, deployments = self._run, self._stores, self._orchestrator.deployments
        limits = NamedLimits(stores, deployments, clock=self._clock)
        return RunRequests(
            run,
            stores,
            self._orchestrator,
            slots=SlotRequests(run, self._deployment.env, limits),
            shared=SharedRequests(run, stores, deployments, clock=self._clock, resolve=self._resolve, hide=self._hide),
            clock=self._clock,
            max_depth=self._max_depth,
        )

    def _hide(self, secret: str) -> None:
        """Mask a secret that the run's code has read: its process may ask before its start has returned here."""
        self._read_secrets.add(secret)
        if self._output is not None:
            self._output.hide(secret)


def _say_why(scratch: Path, stopped: Stop) -> None:
    with contextlib.suppress(OSError):  # the process may have removed its folder; then it is stopped like any other
        (scratch / _REASON_NAME).write_text(stopped, encoding="utf-8")
