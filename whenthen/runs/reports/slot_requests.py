"""Slots of named limits that the code of one attempt asks its worker for; they come free when the attempt has ended, however it ended.

Called by `run_requests`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from math import isinf
from typing import Any, Final

from whenthen.runs.shared.named_limits import NamedLimits, read_wanted
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import BusUnavailable, Conflict
from whenthen.schemas.work_pools import NamedLimit

__all__ = ["SlotRequests"]

log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.05
_LONGEST_WAIT_S: Final = 1.0  #: between two looks at slots that are held


class SlotRequests:
    """The slots of one attempt."""

    def __init__(self, run: FlowRun, environment: Mapping[str, str], limits: NamedLimits) -> None:
        """`environment` is that of the run's process."""
        self._run = run
        self._environment = environment
        self._limits = limits
        self._leases: dict[str, tuple[list[str], Mapping[str, NamedLimit]]] = {}  #: what is held: holders and limits
        self._change = asyncio.Lock()  # threads of one run would else change the same record against each other

    async def acquire(self, body: dict[str, Any]) -> Any:
        """The name of what is held then, `{"timed_out": True}`, or `{"in_process": True}` for a limit that is the process's own.

        Raises:
            InvalidInput, NoSuchLimit, BusUnavailable: said to who asked.
        """
        wanted = read_wanted(body)
        limits = self._limits.known(wanted, self._environment)
        if limits is None:
            return {"in_process": True}
        lease = secrets.token_hex(8)
        holders = [f"{self._run.id}.{self._run.attempt}.{lease}.{number}" for number in range(wanted.occupy)]
        until, timeout_s = None, body.get("timeout_s")
        if isinstance(timeout_s, int | float):
            until = asyncio.get_running_loop().time() + timeout_s
        self._leases[lease] = (holders, limits)
        try:
            next_s = _FIRST_WAIT_S
            while free_in_s := await self._take(holders, limits):
                wait_s = next_s if isinf(free_in_s) else free_in_s
                left_s = wait_s if until is None else until - asyncio.get_running_loop().time()
                if left_s <= 0:
                    del self._leases[lease]
                    return {"timed_out": True}
                await asyncio.sleep(min(wait_s, left_s))
                next_s = min(1.5 * next_s, _LONGEST_WAIT_S)
        except BaseException:
            # what could not be given back is found free when the attempt has ended
            self._leases.pop(lease, None)
            raise
        if wanted.mode == "rate_limit":
            del self._leases[lease]  # nothing is given back
        return lease

    async def release(self, lease: str) -> None:
        holders, limits = self._leases.get(lease, ([], {}))
        async with self._change:
            await self._limits.give_back(holders, limits)
        self._leases.pop(lease, None)

    async def close(self) -> None:
        """Give back what the attempt still holds. What can not be given back is free when others find that the attempt has ended."""
        for lease in list(self._leases):
            try:
                await self.release(lease)
            except (BusUnavailable, Conflict) as error:
                log.info("flow run %s: slots are left to be found free: %s", self._run.id, error)

    async def _take(self, holders: list[str], limits: Mapping[str, NamedLimit]) -> float:
        async with self._change:
            return await self._limits.take(holders, limits)
