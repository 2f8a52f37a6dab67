"""What the built-in orchestrator keeps, as protocols: runs, flags, logs, the queue, heartbeats, slots.

`runs.memory_stores` implements them for tests and single processes, `engine.flow_runs.run_stores` over NATS; tests/contract runs one
suite against both. Guarantees are in the docstrings; nothing else may be relied on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from whenthen.schemas import Deployment, FlowRun, RunState

__all__ = [
    "Deployments",
    "Flag",
    "FlagStore",
    "Heartbeats",
    "LogLine",
    "LogStore",
    "QueuedRun",
    "RunQueue",
    "RunStore",
    "SlotStore",
    "Stored",
    "Stores",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """A run with the version that the store gave this revision. Versions of one run grow."""

    run: FlowRun
    version: int


class RunStore(Protocol):
    """Flow runs with compare-and-set. Every method may raise `BusUnavailable`."""

    async def create(self, run: FlowRun) -> Stored:
        """Store the first revision, or return what is stored under the run's id already, whatever it is."""

    async def get(self, run_id: str) -> Stored | None:
        """The newest revision. A revision that was acknowledged to anybody is seen."""

    async def update(self, run: FlowRun, version: int) -> Stored:
        """Store the next revision, if `version` is still the newest.

        Raises:
            Conflict: another writer was faster, or the run was deleted.
        """

    async def delete(self, run_id: str, version: int) -> None:
        """Forget a run and its revisions, if `version` is still the newest; a missing run is no error.

        Raises:
            Conflict: another writer was faster.
        """

    async def list(
        self, *, deployment: str | None = None, states: frozenset[RunState] | None = None, limit: int = 100
    ) -> list[Stored]:
        """The newest revisions that match, the run that was created last first."""

    def watch(self, run_id: str | None = None) -> AsyncGenerator[Stored | None, None]:
        """First the newest revision of each run (or of this one), then None once, then each further revision.

        Revisions of one run come in order; intermediate ones may be left out. Ends never; close it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A runtime switch of a deployment (`deployment/<name>`) or schedule (`schedule/<deployment>/<name>`).

    `position/<deployment>/<schedule>` keeps, in `note`, up to when the schedule was followed.
    """

    paused: bool
    changed: str  #: RFC 3339
    note: str = ""


class FlagStore(Protocol):
    """Small records under text keys, with compare-and-set."""

    async def get(self, key: str) -> tuple[Flag, int] | None:
        """The flag and its version."""

    async def put(self, key: str, flag: Flag, version: int) -> int:
        """Store it if `version` is still the newest; 0 means that there is none yet. Returns the new version.

        Raises:
            Conflict: another writer was faster.
        """

    async def all(self) -> dict[str, Flag]:
        """Every flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a run wrote. `stream` is stdout, stderr, or system for what the worker says about the run."""

    at: str
    stream: str
    text: str
    attempt: int = 1


class LogStore(Protocol):
    """What runs wrote."""

    async def append(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Keep the lines after what is there. Returns when they are kept."""

    async def read(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        """The lines in order; with `tail` only the last ones."""

    def follow(self, run_id: str) -> AsyncGenerator[LogLine, None]:
        """All lines from the first, then each further one. Ends never; close it."""


class QueuedRun(Protocol):
    """A run that was taken from the queue and is this taker's until it answers or stays silent too long."""

    @property
    def run_id(self) -> str: ...

    @property
    def deliveries(self) -> int:
        """How often it was taken, this time included."""

    async def ack(self) -> None:
        """Done: it leaves the queue. Returns when the queue knows."""

    async def nak(self, delay: timedelta) -> None:
        """Offer it again after `delay`."""

    async def in_progress(self) -> None:
        """Still busy with it; to be said more often than `RunQueue.patience`."""


class RunQueue(Protocol):
    """Runs that wait for a worker. At least once: a run may be offered again when its taker fell silent."""

    @property
    def patience(self) -> timedelta:
        """How long a taker may be silent before the run is offered again."""

    async def put(self, run_id: str, *, pool: str, deployment: str) -> bool:
        """Queue the run; False when it is queued (or taken and not answered) already."""

    async def take(self, pool: str, *, wait: timedelta) -> QueuedRun | None:
        """The next run of the pool; None when there is none within `wait`."""


class Heartbeats(Protocol):
    """Signs of life of runs that a worker has."""

    async def beat(self, run_id: str, worker: str) -> None: ...

    async def last(self, run_id: str) -> datetime | None:
        """When the last beat came; None when there was none or it is long ago."""

    async def clear(self, run_id: str) -> None: ...


class SlotStore(Protocol):
    """Who holds the slots of a deployment's concurrency limit."""

    async def acquire(self, name: str, holder: str, limit: int, alive: Callable[[str], Awaitable[bool]]) -> bool:
        """Take one of `limit` slots, or keep the one that `holder` has. Slots whose holder is not `alive` are freed.

        False when all are held. Never more than `limit` are held at once, whoever asks at the same time.
        """

    async def release(self, name: str, holder: str) -> None:
        """Give the slot back; no error without one."""

    async def holders(self, name: str) -> list[str]:
        """Who holds slots now, the first taker first."""


class Deployments(Protocol):
    """The deployments of the rules as they are now."""

    def current(self) -> Mapping[str, Deployment]:
        """All of them by name. A snapshot: a reload gives a new mapping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that the orchestrator, scheduler, worker and reaper share."""

    runs: RunStore
    flags: FlagStore
    logs: LogStore
    queue: RunQueue
    heartbeats: Heartbeats
    slots: SlotStore
