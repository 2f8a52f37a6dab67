"""`concurrency` and `rate_limit`: not more than so many at once, not more than so many a second.

In a worker the server counts: the limits of the rules, among all who ask. So it does for a program with `WHENTHEN_URL`, which leases the slots.
Elsewhere the limits are environment variables, `WHENTHEN_LIMIT_DATABASE=3`, and hold within the process; where that would silently allow more, in
a process of a pool, the call is refused. As in Prefect a name that has no limit lets all pass, with a warning, unless `strict=True`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from whenthen.flows.argument_kinds import COUNT, NAMES, SECONDS, TRUTH, check, checked_arguments
from whenthen.flows.clock import LONGEST_WAIT_S, sleep, steady
from whenthen.flows.execution.reporter import REPORTER, SILENT
from whenthen.flows.execution.run_contexts import FLOW, IN_CHILD, place_given_away
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.flow_errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
)
from whenthen.flows.services.environment_values import checked_name, from_environment, variable_of
from whenthen.flows.services.process_limits import Limit, ProcessLimits, SlotRequest, read_limit
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread
from whenthen.flows.unsupported import needs_server, not_supported

__all__ = ["aconcurrency", "arate_limit", "concurrency", "rate_limit"]

Names = str | list[str]
Mode = Literal["concurrency", "rate_limit"]


class _OfThisProcess:
    """The limits of the process; a child of a fork has its own, as it runs none of what its parent was running."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._limits = ProcessLimits()

    def get(self) -> ProcessLimits:
        if self._pid != os.getpid():
            self._pid, self._limits = os.getpid(), ProcessLimits()
        return self._limits


#: slots belong to the process, and there is no other place for what belongs to it
PROCESS = _OfThisProcess()


#: what a lease of a server has besides: here a slot is given back when its block ends, however that is
SLOTS = {"occupy": COUNT, "timeout_seconds": SECONDS.or_none, "strict": TRUTH}
LEASE = {"lease_duration": SECONDS, "raise_on_lease_renewal_failure": TRUTH.or_none}


@contextmanager
@checked_arguments(**SLOTS, **LEASE)
def concurrency(
    names: Names,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> Iterator[None]:
    """Hold `occupy` slots of each limit while the block runs, waiting for them.

    They are given back when the block ends, and in a worker when the attempt does. Those that a program beside the runs leases come free
    `lease_duration` seconds after it died; where a lease is lost while the block runs, a warning says so, and with
    `raise_on_lease_renewal_failure` the end of the block raises.

    Raises:
        TimeoutError: they were not free within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: a limit does not exist and `strict` is set, or has fewer slots than `occupy`.
    """
    call = _Call("concurrency", names, occupy, timeout_seconds, strict, max_retries, lease_duration)
    call.take()
    try:
        yield
    finally:
        call.release()
    if raise_on_lease_renewal_failure:
        call.check_lease()


@asynccontextmanager
@checked_arguments("concurrency", **SLOTS, **LEASE)
async def aconcurrency(
    names: Names,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> AsyncIterator[None]:
    """`concurrency` for async code."""
    call = _Call("concurrency", names, occupy, timeout_seconds, strict, max_retries, lease_duration)
    await call.atake()
    try:
        yield
    finally:
        await call.arelease()
    if raise_on_lease_renewal_failure:
        call.check_lease()


@checked_arguments(**SLOTS)
def rate_limit(names: Names, occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False) -> None:
    """Wait until each limit has `occupy` slots, and use them up; they come free with time.

    Raises:
        TimeoutError: they were not free within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: a limit does not exist and `strict` is set, or its slots do not come free with time.
    """
    _Call("rate_limit", names, occupy, timeout_seconds, strict, None).take()


@checked_arguments("rate_limit", **SLOTS)
async def arate_limit(
    names: Names, occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False
) -> None:
    """`rate_limit` for async code."""
    await _Call("rate_limit", names, occupy, timeout_seconds, strict, None).atake()


class _Call:
    """One `with concurrency(...)` or `rate_limit(...)`."""

    def __init__(
        self,
        mode: Mode,
        names: Names,
        occupy: int,
        timeout_seconds: float | None,
        strict: bool,
        max_retries: int | None,
        lease_s: float = 300,
    ) -> None:
        if max_retries is not None:
            not_supported("concurrency(max_retries=...)", f"{max_retries!r:.60}")
        self._mode = mode
        check(mode, {"names": NAMES}, {"names": [names] if isinstance(names, str) else names})
        self._names = [checked_name(one, "limit") for one in ([names] if isinstance(names, str) else names)]
        self._occupy = occupy
        self._timeout_s = timeout_seconds
        self._strict = strict
        self._lease: Any = None  #: what the worker knows the slots by
        self._lease_s = lease_s
        self._leased: Any = None  #: a `SlotLease` of a program beside the runs
        self._lost = ""
        self._limits: ProcessLimits | None = None
        self._request: SlotRequest | None = None

    def take(self) -> None:
        woken = threading.Event()
        scope = None if (flow := FLOW.get()) is None else flow.scope
        if self._begin(woken.set):
            return
        if scope is not None:
            scope.add(woken.set)
        try:
            with place_given_away():
                for wait_s in self._waits():
                    woken.wait(wait_s)
                    woken.clear()
                    if scope is not None:
                        scope.check()
        except BaseException:
            self.release()
            raise
        finally:
            if scope is not None:
                scope.remove(woken.set)

    async def atake(self) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        if not self._names or (self._is_asked() and await in_thread(self._is_given)):
            return
        if self._begin_here(lambda: loop.call_soon_threadsafe(woken.set)):
            return
        try:
            for wait_s in self._waits():
                try:
                    await asyncio.wait_for(woken.wait(), wait_s)
                except TimeoutError:
                    pass  # `_waits` tells whether it is over
                woken.clear()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            asked("concurrency.release", {"lease": lease})
        elif self._leased is not None:
            leased, self._leased = self._leased, None
            leased.release()
            self._lost = leased.lost
        elif self._request is not None and self._limits is not None:
            self._limits.withdraw(self._request, now=steady())

    async def arelease(self) -> None:
        if self._lease is not None or self._leased is not None:
            await in_thread(self.release)
        else:
            self.release()

    def check_lease(self) -> None:
        """
        Raises:
            ConcurrencySlotAcquisitionError: others may have had the slots while the block went on.
        """
        if self._lost:
            raise ConcurrencySlotAcquisitionError(f"{self._mode}: the lease of the slots was lost: {self._lost}")

    def _begin(self, notify: Callable[[], object]) -> bool:
        """Ask for the slots. Gives whether that was all."""
        if not self._names:
            return True
        return self._is_given() or self._begin_here(notify)

    def _is_given(self) -> bool:
        """Whether a server has given the slots. It may leave to the process what it does not count."""
        if not self._is_asked():
            return False
        body = {
            "mode": self._mode,
            "names": self._names,
            "occupy": self._occupy,
            "timeout_s": self._timeout_s,
            "strict": self._strict,
        }
        by_reporter = connected("concurrency.acquire")
        answer = asked("concurrency.acquire", body) if by_reporter else self._lease_of(body)
        if isinstance(answer, dict):
            if answer.get("timed_out"):
                raise self._too_late()
            if answer.get("in_process"):
                return False
            if answer.get("used"):
                return True
        if by_reporter:
            self._lease = answer
        else:
            self._leased = answer
        return True

    def _is_asked(self) -> bool:
        """Whether somebody else than this process may count."""
        if connected("concurrency.acquire"):
            return True
        # as with other values, what is set in the environment of a program comes first
        own = all(variable_of("LIMIT", name) in os.environ for name in self._names)
        return REPORTER.get() is SILENT and bool(os.environ.get("WHENTHEN_URL")) and not own

    def _lease_of(self, body: dict[str, Any]) -> Any:
        from whenthen.flows.services.connected.slot_leases import leased  # it imports much

        scope = None if (flow := FLOW.get()) is None else flow.scope
        until = None if self._timeout_s is None else steady() + self._timeout_s
        with place_given_away():
            return leased(body, self._lease_s, until=until, sleep=sleep if scope is None else scope.sleep)

    def _begin_here(self, notify: Callable[[], object]) -> bool:
        """Ask for slots of this process. Gives whether that was all."""
        limits = _limits_of(self._names, self._mode, self._occupy, self._strict)
        if not limits:
            return True
        self._limits = PROCESS.get()
        self._request = SlotRequest(limits, self._occupy, notify)
        self._limits.request(self._request, now=steady())
        return self._request.granted

    def _waits(self) -> Iterator[float | None]:
        """How long to wait, again and again until the slots are granted.

        Raises:
            TimeoutError: the time is over.
        """
        assert self._limits is not None
        assert self._request is not None
        until = None if self._timeout_s is None else steady() + min(self._timeout_s, LONGEST_WAIT_S)
        while True:
            again_s = self._limits.poll(self._request, now=steady())
            if self._request.granted:
                return
            left_s = None if until is None else until - steady()
            if left_s is not None and left_s <= 0:
                raise self._too_late()
            yield min((one for one in (again_s, left_s) if one is not None), default=None)

    def _too_late(self) -> AcquireConcurrencySlotTimeoutError:
        return AcquireConcurrencySlotTimeoutError(
            f"{self._mode}: {self._occupy} slot(s) of {', '.join(self._names)} were not free within {self._timeout_s} second(s)"
        )


def _limits_of(names: Sequence[str], mode: Mode, occupy: int, strict: bool) -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    unknown = []
    for name in names:
        variable = variable_of("LIMIT", name)
        written = from_environment("LIMIT", name, "limit")
        if written is None:
            unknown.append(name)
            continue
        limit = read_limit(written, variable)
        if occupy > limit.slots:
            raise ConcurrencySlotAcquisitionError(
                f"{mode}: {occupy} slots of {name!r} will never be free: there are {limit.slots} ({variable}={written})"
            )
        if mode == "rate_limit" and not limit.decay:
            raise ConcurrencySlotAcquisitionError(
                f"rate_limit: the slots of {name!r} do not come free with time; write {variable}='{limit.slots}, 1/s' for one each second"
            )
        limits[variable] = limit
    if unknown:
        remedy = f"set {variable_of('LIMIT', unknown[0])} to the number of slots"
        if strict:
            raise ConcurrencySlotAcquisitionError(f"{mode}: there is no limit {', '.join(unknown)}; {remedy}")
        engine_logger().warning("%s: there is no limit %s, so all pass; %s", mode, ", ".join(unknown), remedy)
    if limits and (IN_CHILD.get() or multiprocessing.parent_process() is not None):
        raise needs_server("concurrency", f" (found: process {os.getpid()} of a pool)")
    return limits
