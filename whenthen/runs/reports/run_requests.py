"""What a worker answers to the runs that it executes: slots of named limits, runs of other deployments, what runs share, and routes of the API.

Called by `report_socket`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.pauses.asked_pauses import AskedPauses
from whenthen.runs.pauses.pause_changes import NotPaused, PauseOver
from whenthen.runs.reports.api_requests import ApiRequests
from whenthen.runs.reports.shared_requests import SHARED_KINDS, SharedRequests
from whenthen.runs.reports.slot_requests import SlotRequests
from whenthen.runs.run_states import shown_run
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import InvalidInput, WhenthenError

__all__ = ["KINDS", "RunRequests", "TooDeep"]

KINDS: Final = (
    *("concurrency.acquire", "concurrency.release", "run_deployment", "read_flow_run"),
    *("pause_flow_run", "suspend_flow_run", "resume_flow_run", "wait_while_paused"),
    *(*SHARED_KINDS, "api"),
)
LONGEST_DELAY: Final = timedelta(days=366)


class TooDeep(WhenthenError):
    """A chain of runs and firings, each started by the one before, is as long as it may be."""

    reason = "too_deep"


class RunRequests:
    """Answers one attempt of a run."""

    def __init__(
        self,
        run: FlowRun,
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        *,
        slots: SlotRequests,
        shared: SharedRequests,
        clock: Callable[[], datetime],
        max_depth: int = 8,
    ) -> None:
        """A chain of runs and firings, each started by the one before, is at most `max_depth` long."""
        self._run = run
        self._orchestrator = orchestrator
        self._clock = clock
        self._max_depth = max_depth
        self.pauses = AskedPauses(run, stores, clock=clock)
        self._slots = slots
        self._shared = shared
        self._api = ApiRequests(stores, orchestrator, start=self._start_asked)

    async def answer(self, kind: str, body: dict[str, Any]) -> Any:
        """
        Raises:
            InvalidInput, NotFound, NoSuchLimit, Conflict, BusUnavailable: said to who asked.
        """
        if kind == "concurrency.acquire":
            return await self._slots.acquire(body)
        if kind == "concurrency.release":
            return await self._slots.release(str(body.get("lease")))
        if kind == "run_deployment":
            return shown_run(await self._start(body))
        if kind == "pause_flow_run":
            return await self.pauses.pause(body)
        if kind == "wait_while_paused":
            return await self.pauses.wait()
        if kind == "suspend_flow_run":
            return await self._suspend(body)
        if kind == "resume_flow_run":
            return await self._resume(body)
        if kind in SHARED_KINDS:
            return await self._shared.answer(kind, body)
        if kind == "api":
            return await self._api.answer(body)
        return shown_run((await self._orchestrator.get_flow_run(str(body.get("id")))).run)

    async def close(self) -> None:
        """Give back what the attempt still holds. What can not be given back is free when others find that the attempt has ended."""
        await self._slots.close()

    # Runs

    async def _start_asked(self, name: str, body: dict[str, Any]) -> FlowRun:
        """Start a run for a body of the API."""
        delay, key = body.get("delay", 0), body.get("key")
        if not isinstance(delay, int | float) or not 0 <= delay <= LONGEST_DELAY.total_seconds():
            raise InvalidInput(f"seconds, at most {LONGEST_DELAY.days} days", path=("delay",))
        return await self._started(name, body.get("parameters", {}), key, timedelta(seconds=delay))

    async def _start(self, body: dict[str, Any]) -> FlowRun:
        delay = timedelta(0)
        if body.get("scheduled_time"):
            try:
                at = datetime.fromisoformat(str(body["scheduled_time"]))
                delay = max(timedelta(0), at - self._clock())
            except (ValueError, TypeError):
                raise InvalidInput("a time with an offset", path=("scheduled_time",)) from None
            if delay > LONGEST_DELAY:
                raise InvalidInput(f"at most {LONGEST_DELAY.days} days ahead", path=("scheduled_time",))
        return await self._started(str(body.get("name")), body.get("parameters"), body.get("key"), delay)

    async def _started(self, name: str, parameters: Any, key: Any, delay: timedelta) -> FlowRun:
        if not isinstance(parameters, dict):
            raise InvalidInput("a mapping", path=("parameters",))
        return await self._orchestrator.run_deployment(
            self._known(name),
            parameters,
            key=key if isinstance(key, str) and key else f"run/{self._run.id}/{secrets.token_hex(16)}",
            delay=delay,
            lineage=self._deeper(),
            trace=self._run.trace,
            triggered_by=f"run:{self._run.id}",
        )

    async def _suspend(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("own"):
            return await self.pauses.suspend(body)
        timeout_s = body.get("timeout_s")
        await self._orchestrator.suspend_flow_run(_hex(body), timeout_s=timeout_s, by=f"run {self._run.id}")
        return {}

    async def _resume(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            await self._orchestrator.resume_flow_run(_hex(body), body.get("input"), by=f"run {self._run.id}")
        except NotPaused:
            return {"not_paused": True}
        except PauseOver:
            return {"timed_out": True}
        return {}

    def _deeper(self) -> dict[str, Any]:
        """The lineage of a run that this one starts: one step deeper, as if a rule had started it.

        Raises:
            TooDeep: the chain is as long as it may be.
        """
        lineage = self._run.lineage or {"depth": 0, "firing": None, "automations": []}
        depth = int(lineage.get("depth") or 0) + 1
        if depth > self._max_depth:
            raise TooDeep(
                f"{depth - 1} runs and firings have led to this run, each started by the one before; at most {self._max_depth} may "
                "(`max_depth`): flows that start each other would not end"
            )
        return {**lineage, "depth": depth}

    def _known(self, name: str) -> str:
        """The deployment's name; of `flow/name`, as Prefect has it, the part behind the slash, unless that is its name here."""
        return name if self._orchestrator.knows(name) else name.rpartition("/")[2]


def _hex(body: Mapping[str, Any]) -> str:
    """The id of the run that a request names, which Prefect writes with hyphens."""
    return str(body.get("flow_run_id")).replace("-", "")
