"""The stores of the built-in orchestrator, as protocols: runs, pause flags, logs, the queue, heartbeats, slots, variables,
artifacts.

`runs.memory_stores` implements them in memory, `engine.flow_runs` over NATS; tests/contract runs one suite against both.
The docstrings are the guarantees; nothing else may be relied on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from whenthen.runs.attempts.attempt_logs import LogBefore, LogLine, LogSlice
from whenthen.runs.reports.task_runs import TaskRunMove, TaskRunPage
from whenthen.runs.shared.artifacts import ArtifactPage, ArtifactRecord
from whenthen.runs.shared.named_limits import Lease, Rate
from whenthen.runs.shared.variables import VariableRecord
from whenthen.schemas.deployments import Deployment, FlowRun, RunState
from whenthen.schemas.work_pools import NamedLimit, NamedSecret, WorkerRecord, WorkPool

__all__ = [
    "ArtifactStore",
    "Deployments",
    "Flag",
    "FlagStore",
    "Heartbeats",
    "LogStore",
    "QueuedRun",
    "RunFilter",
    "RunPage",
    "RunQueue",
    "RunStore",
    "SlotStore",
    "Stored",
    "Stores",
    "TaskRunStore",
    "ToldEvents",
    "VariableStore",
    "WorkerStore",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """A run with the version that the store gave this revision. Versions of one run grow."""

    run: FlowRun
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are asked for."""

    deployment: str | None = None
    states: frozenset[RunState] | None = None
    work_pool: str | None = None
    before: tuple[str, str] | None = (
        None  #: those that were created before that: time and id of the last run of the page before
    )
    fits: Callable[[FlowRun], bool] | None = None  #: what else is asked of a run

    def admits(self, run: FlowRun) -> bool:
        return (
            self.deployment in (None, run.deployment)
            and (self.states is None or run.state in self.states)
            and self.work_pool in (None, run.work_pool)
            and (self.before is None or (run.created, run.id) < self.before)
            and (self.fits is None or self.fits(run))
        )


EVERY_RUN: Final = RunFilter()
PAGE_BYTES: Final = 8 << 20  #: of the records of one page of runs


class RunPage(list[Stored]):
    """Some of the runs that match. `more` says that there are further ones, which were created earlier."""

    more: bool = False


class RunStore(Protocol):
    """Flow runs with compare-and-set. Every method may raise `BusUnavailable`."""

    async def create(self, run: FlowRun) -> Stored:
        """Store the first revision, or return what is stored under the run's id already, whatever it is."""

    async def get(self, run_id: str) -> Stored | None:
        """The newest revision. Reads are linearizable: a revision that was acknowledged to any client is seen."""

    async def update(self, run: FlowRun, version: int) -> Stored:
        """Store the next revision, if `version` is still the newest.

        Raises:
            Conflict: another writer was faster.
        """

    async def delete(self, run_id: str, version: int) -> None:
        """Forget the run, if `version` is still the newest. Its id may be used again.

        Raises:
            Conflict: another writer was faster.
        """

    async def list(self, wanted: RunFilter = EVERY_RUN, *, limit: int = 100, most_bytes: int = PAGE_BYTES) -> RunPage:
        """The newest revisions that match, in descending order of creation: at most `limit`, and of records that have `most_bytes`
        together, unless the first one alone has more."""

    def watch(self, run_id: str | None = None) -> AsyncGenerator[Stored | None, None]:
        """First the newest revision of each run (or of this one), then None once, then each further revision.

        Revisions of one run come in order; intermediate ones may be skipped. It does not end by itself; close it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A pause flag: of a deployment (`deployment/<name>`), schedule (`schedule/<deployment>/<name>`) or automation.

    `work-pool/<name>` is that of a work pool. Three others are no pauses and have a position in `changed`: `expected/<deployment>` the last
    deadline of an expected completion that was looked at, `overdue/<deployment>` the moment up to which runs were looked at that take too
    long, and `position/<deployment>/<schedule>` the last time for which the schedule created a run, with a hash of its fields in `note`.
    `served/<work pool>` is the program that is about to serve it (`shared.served_places`).
    """

    paused: bool
    changed: str  #: RFC 3339
    note: str = ""
    until: str = ""  #: RFC 3339, of a pause that ends by itself
    reason: str = ""  #: why somebody paused it
    by: str = ""  #: who did


class FlagStore(Protocol):
    """Pause flags by key, with compare-and-set."""

    async def get(self, key: str) -> tuple[Flag, int] | None:
        """The flag and its version."""

    async def put(self, key: str, flag: Flag, version: int) -> int:
        """Store it if `version` is still the newest; 0 means that there is none yet. Returns the new version.

        Raises:
            Conflict: another writer was faster.
        """

    async def delete(self, key: str, version: int) -> None:
        """Remove it if `version` is still the newest.

        Raises:
            Conflict: another writer was faster.
        """

    async def all(self) -> dict[str, Flag]:
        """Every flag."""


class LogStore(Protocol):
    """The logs of runs."""

    async def append(self, run_id: str, lines: Sequence[LogLine], *, before: LogBefore | None = None) -> list[int]:
        """Append lines of one attempt. Returns when they are stored, with names for `drop`. `before` is what the attempt has written
        before them; where the stored lines before are fewer, a line is read in their place that says how many are left out."""

    async def drop(self, run_id: str, names: Sequence[int]) -> None:
        """Remove what `append` gave these names."""

    async def forget(self, run_id: str) -> None:
        """Remove the whole log."""

    async def read(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        """The lines in order; with `tail` only the last ones."""

    async def page(self, run_id: str, *, after: int, limit: int, most_bytes: int) -> LogSlice:
        """At most `limit` lines from the place `after` on (0: the first), and of their text at most `most_bytes`, but for a single
        line. Places stay what they are when lines before them expire."""

    async def last(self, run_id: str, *, limit: int, most_bytes: int) -> LogSlice:
        """The last `limit` lines, or fewer whose text has `most_bytes`; `next` is the place behind them. What was acknowledged is among them."""


class TaskRunStore(Protocol):
    """The runs of tasks and flows within runs of deployments."""

    async def append(self, run_id: str, moves: Sequence[TaskRunMove]) -> None:
        """Keep moves of task runs of one run. Returns when they are stored; the same ones again change nothing."""

    async def forget(self, run_id: str) -> None:
        """Remove all of one run."""

    async def page(self, run_id: str, *, after: int, limit: int) -> TaskRunPage:
        """At most `limit` task runs from the number `after` on (0: the first), in the order in which they were first heard of."""


class ToldEvents(Protocol):
    """Events that runs told their workers, which wait for being published (`reports.reported_events`)."""

    async def put(self, run_id: str, told: dict[str, Any], *, id: str) -> None:
        """Returns when it is stored. The same `id` within some minutes is the same event.

        Raises:
            InvalidInput: it is too large.
        """


class ArtifactStore(Protocol):
    """What runs have to show. Kept for a time, and the oldest make room."""

    async def put(self, record: ArtifactRecord) -> None:
        """Keep it in the place of what has its id, key and run. Returns when it is stored."""

    async def get(self, id: str, *, run_id: str | None = None) -> ArtifactRecord | None:
        """The artifact of this id, if it is of that run.

        Raises:
            InvalidInput: it is no id.
        """

    async def of_key(self, key: str) -> ArtifactRecord | None:
        """The one of a key that changed last.

        Raises:
            InvalidInput: it is no key.
        """

    async def page(
        self, *, run_id: str | None = None, key: str | None = None, limit: int, before: int | None = None
    ) -> ArtifactPage:
        """At most `limit`, the last changed first, of a run and a key where these are given; `before` is the `seq` of the last one of the
        page before. May be cut for its size (`next`)."""


class VariableStore(Protocol):
    """Variables by name, with compare-and-set."""

    async def get(self, name: str) -> tuple[VariableRecord, int] | None:
        """The variable and its version."""

    async def put(self, record: VariableRecord, version: int) -> int:
        """Store it if `version` is still the newest; 0 means that there is none. Gives the new version.

        Raises:
            Conflict: another writer was faster.
        """

    async def delete(self, name: str, version: int) -> None:
        """Remove it if `version` is still the newest.

        Raises:
            Conflict: another writer was faster.
        """

    async def count(self) -> int:
        """How many there are."""

    async def all(self) -> list[VariableRecord]:
        """Every variable, by name."""


class QueuedRun(Protocol):
    """A delivery of the queue: this consumer's until it answers, or is silent for longer than `RunQueue.ack_wait`."""

    @property
    def run_id(self) -> str: ...

    @property
    def deliveries(self) -> int:
        """The number of deliveries, this one included."""

    async def ack(self) -> None:
        """Remove it from the queue. Returns when the queue has confirmed."""

    async def nak(self, delay: timedelta) -> None:
        """Have it redelivered after `delay`."""

    async def in_progress(self) -> None:
        """Restart the time after which it is redelivered (`RunQueue.ack_wait`)."""


class RunQueue(Protocol):
    """Runs that wait for a worker. Delivery is at least once."""

    @property
    def ack_wait(self) -> timedelta:
        """After how long without an answer a run is redelivered."""

    async def put(self, run_id: str, *, pool: str, deployment: str) -> bool:
        """Queue the run; False when it is in the queue already, delivered or not."""

    async def fetch(self, pool: str, *, wait: timedelta) -> QueuedRun | None:
        """The next delivery of the pool; None when there is none within `wait`."""


class Heartbeats(Protocol):
    """Heartbeats of runs that a worker has."""

    async def beat(self, run_id: str, worker: str) -> None: ...

    async def last(self, run_id: str) -> datetime | None:
        """The time of the last heartbeat; None when there was none or it has expired."""

    async def clear(self, run_id: str) -> None: ...


class WorkerStore(Protocol):
    """The workers that are at work. A record that is not renewed expires."""

    async def put(self, worker: WorkerRecord) -> None: ...

    async def remove(self, name: str) -> None: ...

    async def all(self) -> list[WorkerRecord]:
        """Each worker, by name."""


class SlotStore(Protocol):
    """The slots of deployments' concurrency limits, and their holders."""

    async def acquire(
        self,
        name: str,
        holders: Sequence[str],
        limit: int,
        alive: Callable[[str], Awaitable[bool]],
        *,
        key: str = "",
    ) -> bool:
        """Acquire one of `limit` slots for each of `holders`, or keep the one that it has: for all of them or for none, in one change.
        Where there are too few, slots whose holder is not `alive` are released.

        False when there are too few. At most `limit` slots are held at once, also under concurrent calls. Each `key` of a name has that
        many slots of its own; a holder has one slot of a name, and a key has no spaces.
        """

    async def release(self, name: str, holders: Collection[str]) -> None:
        """Release the slots of `holders`, in one change; no error for one that has none."""

    async def holders(self, name: str, *, key: str = "") -> list[str]:
        """The holders of slots of a key, in the order of acquisition."""

    async def rate(self, name: str) -> tuple[Rate, int] | None:
        """How many slots that come free with time were taken, and the version of that."""

    async def put_rate(self, name: str, rate: Rate, version: int) -> None:
        """Store it if `version` is still the newest; 0 means that there is none yet.

        Raises:
            Conflict: another writer was faster.
        """

    async def lease(self, id: str) -> Lease | None:
        """The lease of this id, whether its time is over or not."""

    async def put_lease(self, lease: Lease) -> None: ...

    async def drop_lease(self, id: str) -> None: ...


class Deployments(Protocol):
    """The deployments of the rules as they are now."""

    def current(self) -> Mapping[str, Deployment]:
        """All deployments by name. A snapshot: a reload of the rules makes a new mapping."""

    def work_pools(self) -> Mapping[str, WorkPool]:
        """The work pools by name, those among them that only deployments name."""

    def named_limits(self) -> Mapping[str, NamedLimit]:
        """The limits of the rules, by what their names have in common (`schemas.work_pools.same_name`)."""

    def named_secrets(self) -> Mapping[str, NamedSecret]:
        """The secrets of the rules, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores that orchestrator, scheduler, worker and reaper share."""

    runs: RunStore
    flags: FlagStore
    logs: LogStore
    task_runs: TaskRunStore
    told_events: ToldEvents
    artifacts: ArtifactStore
    variables: VariableStore
    queue: RunQueue
    heartbeats: Heartbeats
    slots: SlotStore
    workers: WorkerStore
