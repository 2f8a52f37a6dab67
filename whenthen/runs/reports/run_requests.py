"""What a worker answers to the runs that it executes: slots of limits that are counted among all workers, runs of other deployments, pauses.

A limit is a variable of the deployment's `env`, `WHENTHEN_LIMIT_DATABASE: "3"`, as for a flow that runs as a script. What is counted here are
slots that are given back; limits whose slots come free with time are left to the process. Slots belong to an attempt: they come free when it
has ended, however it ended. Called by `report_socket`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.pauses.asked_pauses import AskedPauses
from whenthen.runs.pauses.pause_changes import NotPaused, PauseOver
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import ACTIVE, FlowRun, is_run_id
from whenthen.schemas.errors import BusUnavailable, Conflict, InvalidInput, NotFound, WhenthenError

__all__ = ["KINDS", "NoSuchLimit", "RunRequests", "TooDeep"]

log = logging.getLogger(__name__)

KINDS: Final = (
    *("concurrency.acquire", "concurrency.release", "run_deployment", "read_flow_run"),
    *("pause_flow_run", "suspend_flow_run", "resume_flow_run", "wait_while_paused"),
)
MOST_SLOTS: Final = 1_000  #: of one request
MOST_NAMES: Final = 20  #: of limits in one request
LONGEST_DELAY: Final = timedelta(days=366)
_FIRST_WAIT_S: Final = 0.05
_LONGEST_WAIT_S: Final = 1.0  #: between two looks at slots that are held
_SLOTS: Final = re.compile(r"\s*(\d{1,6})\s*")


class NoSuchLimit(WhenthenError):
    """A limit is not known where it has to be, or has fewer slots than are asked for."""

    reason = "no_such_limit"


class TooDeep(WhenthenError):
    """A chain of runs and firings, each started by the one before, is as long as it may be."""

    reason = "too_deep"


class RunRequests:
    """Answers one attempt of a run."""

    def __init__(
        self,
        run: FlowRun,
        environment: Mapping[str, str],
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        *,
        clock: Callable[[], datetime],
        max_depth: int = 8,
    ) -> None:
        """`environment` is that of the run's process; a chain of runs and firings, each started by the one before, is at most `max_depth` long."""
        self._run = run
        self._environment = environment
        self._stores = stores
        self._orchestrator = orchestrator
        self._clock = clock
        self._max_depth = max_depth
        self.pauses = AskedPauses(run, stores, clock=clock)
        self._leases: dict[str, list[tuple[str, str]]] = {}  #: what is held: limit and holder of each slot
        self._slot_change = asyncio.Lock()  # threads of one run would else change the same record against each other

    async def answer(self, kind: str, body: dict[str, Any]) -> Any:
        """
        Raises:
            InvalidInput, NotFound, NoSuchLimit, Conflict, BusUnavailable: said to who asked.
        """
        if kind == "concurrency.acquire":
            return await self._acquire(body)
        if kind == "concurrency.release":
            return await self._release(str(body.get("lease")))
        if kind == "run_deployment":
            return await self._start(body)
        if kind == "pause_flow_run":
            return await self.pauses.pause(body)
        if kind == "wait_while_paused":
            return await self.pauses.wait()
        if kind == "suspend_flow_run":
            return await self._suspend(body)
        if kind == "resume_flow_run":
            return await self._resume(body)
        return await self._read(str(body.get("id")))

    async def close(self) -> None:
        """Give back what the attempt still holds. What can not be given back is free when others find that the attempt has ended."""
        for lease in list(self._leases):
            try:
                await self._release(lease)
            except (BusUnavailable, Conflict) as error:
                log.info("flow run %s: slots are left to be found free: %s", self._run.id, error)

    # Slots

    async def _acquire(self, body: dict[str, Any]) -> Any:
        names, occupy, timeout_s = body.get("names"), body.get("occupy"), body.get("timeout_s")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MOST_NAMES:
            raise InvalidInput(f"names of limits, at most {MOST_NAMES}", path=("names",))
        if not isinstance(occupy, int) or not 1 <= occupy <= MOST_SLOTS:
            raise InvalidInput(f"a number of slots from 1 to {MOST_SLOTS}", path=("occupy",))
        limits: dict[str, int] = {}
        for name in sorted(set(names)):
            written = self._environment.get(_variable(name))
            counted = None if written is None else _SLOTS.fullmatch(written)
            if body.get("mode") != "concurrency" or counted is None:
                return {"in_process": True}  # which says what is wrong with it, if something is
            limits[name] = int(counted[1])
            if occupy > limits[name]:
                raise NoSuchLimit(f"{occupy} slots of {name!r} will never be free: there are {limits[name]}")
        lease = secrets.token_hex(8)
        until = None
        if isinstance(timeout_s, int | float):
            until = asyncio.get_running_loop().time() + timeout_s
        wait_s = _FIRST_WAIT_S
        while not await self._take_all(lease, limits, occupy):
            left_s = wait_s if until is None else until - asyncio.get_running_loop().time()
            if left_s <= 0:
                return {"timed_out": True}
            await asyncio.sleep(min(wait_s, left_s))
            wait_s = min(1.5 * wait_s, _LONGEST_WAIT_S)
        return lease

    async def _take_all(self, lease: str, limits: Mapping[str, int], occupy: int) -> bool:
        """All the slots, or none: one that is held while others are waited for would be a deadlock's."""
        holders = [f"{self._run.id}.{self._run.attempt}.{lease}.{number}" for number in range(occupy)]
        held = self._leases[lease] = []
        try:
            for name, limit in limits.items():
                for holder in holders:
                    held.append((name, holder))
                    async with self._slot_change:
                        taken = await self._stores.slots.acquire(_key(name), holder, limit, self._is_held)
                    if not taken:
                        held.pop()
                        await self._release(lease)
                        return False
        except BaseException:
            await self._release(lease)
            raise
        return True

    async def _release(self, lease: str) -> None:
        for name, holder in self._leases.get(lease, []):
            async with self._slot_change:
                await self._stores.slots.release(_key(name), holder)
        self._leases.pop(lease, None)

    async def _is_held(self, holder: str) -> bool:
        """Whether the attempt that holds a slot goes on."""
        run_id, _, rest = holder.partition(".")
        stored = await self._stores.runs.get(run_id)
        attempt = rest.partition(".")[0]
        return stored is not None and stored.run.state in ACTIVE and str(stored.run.attempt) == attempt

    # Runs

    async def _start(self, body: dict[str, Any]) -> dict[str, Any]:
        name, parameters, key = str(body.get("name")), body.get("parameters"), body.get("key")
        if not isinstance(parameters, dict):
            raise InvalidInput("a mapping", path=("parameters",))
        delay = timedelta(0)
        if body.get("scheduled_time"):
            try:
                at = datetime.fromisoformat(str(body["scheduled_time"]))
                delay = max(timedelta(0), at - self._clock())
            except (ValueError, TypeError):
                raise InvalidInput("a time with an offset", path=("scheduled_time",)) from None
            if delay > LONGEST_DELAY:
                raise InvalidInput(f"at most {LONGEST_DELAY.days} days ahead", path=("scheduled_time",))
        run = await self._orchestrator.run_deployment(
            self._known(name),
            parameters,
            key=key if isinstance(key, str) and key else f"run/{self._run.id}/{secrets.token_hex(16)}",
            delay=delay,
            lineage=self._deeper(),
            trace=self._run.trace,
            triggered_by=f"run:{self._run.id}",
        )
        return _item(run)

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

    async def _read(self, run_id: str) -> dict[str, Any]:
        if not is_run_id(run_id):
            raise NotFound(f"{run_id[:80]!r} is no id of a flow run")
        return _item((await self._orchestrator.get_flow_run(run_id)).run)

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


def _item(run: FlowRun) -> dict[str, Any]:
    """A run as the API has it."""
    return {**asdict(run), "state": run.state.value}


def _variable(name: str) -> str:
    """As `flows.services.environment_values` names it."""
    return f"WHENTHEN_LIMIT_{re.sub('[^A-Za-z0-9]', '_', name).upper()}"


def _key(name: str) -> str:
    return f"@limit/{_variable(name)}"
