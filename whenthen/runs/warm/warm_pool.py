"""The interpreters of a worker that wait for runs: for which deployments, how many, and until when.

One waits for each of the last runs that were started, so that a deployment that runs often has several, and for deployments that name
modules (`preload`) in what is left. Their number and their memory are bounded, the memory for all workers of a process (`warm_room`). Whatever is in doubt is ended, and the run starts in an
interpreter of its own. Called by `worker`. Meaning: docs/deployments.md, "Warm interpreters".
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from whenthen.cancellation import end_task
from whenthen.runs.commands import Launch, WarmStart, warm_start_of
from whenthen.runs.processes import ProcessGroup
from whenthen.runs.stores import Deployments
from whenthen.runs.warm.warm_process import NotWarm, WarmProcess
from whenthen.runs.warm.warm_room import Waiting, WarmRoom
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import NotFound, SetupError

__all__ = ["MOST_WAITING", "WarmPool", "WarmSettings"]

log = logging.getLogger(__name__)

MOST_WAITING = 2  #: interpreters of a worker, by default
LEARNT_AFTER = 2  #: runs of a deployment that names no modules, after which one waits for the next
TOLD_AFTER = 3  #: interpreters in a row that could not be used, though another one may, after which the log says so
LONGEST_PAUSE = timedelta(hours=1)  #: from one that could not be used to the next try


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmSettings:
    most: int = MOST_WAITING  #: interpreters that wait; 0: every run starts its own
    load_within: timedelta = timedelta(seconds=60)
    hand_over_within: timedelta = timedelta(seconds=5)
    look_every: timedelta = timedelta(seconds=5)  #: whether other rules want others
    again_after: timedelta = timedelta(
        seconds=60
    )  #: from one that could not be loaded to the next try, and then twice as long each time


@dataclass(slots=True)
class _Known:
    """What is known of a deployment."""

    runs: int = 0
    learnt: Sequence[str] = ()
    used: float = 0.0  #: when it ran last, by the loop's clock; 0: never here
    bytes: int = 0  #: that an interpreter of it took
    failures: int = 0  #: interpreters in a row that could not be used
    failed: WarmStart | None = None  #: what the last of them was started with
    not_before: float = 0.0  #: by the loop's clock, for the same again
    told: str = ""  #: what the log said last


class WarmPool:
    """Of one worker. `run` is one task of it; the others may be called at any time."""

    def __init__(
        self,
        deployments: Deployments,
        *,
        pool: str,
        root: Path,
        environment: Mapping[str, str],
        kill_grace: timedelta,
        settings: WarmSettings,
        room: WarmRoom,
    ) -> None:
        """Interpreters are started with `environment`, which has no secrets but those that every process of the worker is given. `room` is
        that of all workers of the process."""
        self._deployments = deployments
        self._pool = pool
        self._root = root
        self._environment = environment
        self._grace = kill_grace
        self._settings = settings
        self._room = room
        self._recent: deque[str] = deque(maxlen=max(settings.most, 1))  #: deployments of the last runs, the newest last
        self._known: dict[str, _Known] = {}
        self._waiting: dict[asyncio.Task[None], str] = {}  #: the life of each interpreter, and whose it is
        self._ready: dict[asyncio.Task[None], WarmProcess] = {}
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def ready(self) -> Counter[str]:
        """How many interpreters wait with all imports done, by deployment."""
        return Counter(self._waiting[task] for task in self._ready)

    async def run(self) -> None:
        """Start and end interpreters, until `close`."""
        self._closed = False
        while not self._closed and self._settings.most:
            try:
                await self._tend()
            except Exception:
                log.exception("interpreters that wait for runs can not be looked after")
            self._wake.clear()
            try:
                async with asyncio.timeout(self._settings.look_every.total_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def take(
        self, deployment: Deployment, launch: Launch, *, guard_keeps: Collection[int]
    ) -> ProcessGroup | None:
        """The process group of an interpreter in which the run begins; None when none waits that is sure to be right."""
        if deployment.entrypoint is None or self._closed or not self._settings.most:
            return None
        known = self._known.setdefault(deployment.name, _Known())
        known.runs += 1
        known.used = asyncio.get_running_loop().time()
        self._recent.append(deployment.name)
        self._wake.set()
        start = self._start_of(deployment)
        task = next((task for task, one in self._ready.items() if start is not None and one.start == start), None)
        if task is None:
            return None
        process = self._ready.pop(task)
        del self._waiting[task]
        await end_task(task)
        try:
            group = await process.hand_over(launch, guard_keeps=guard_keeps, within=self._settings.hand_over_within)
        except NotWarm as problem:
            self._put_off(deployment.name, process.start, problem)
            return None
        known.failures = 0
        return group

    def learn(self, deployment: Deployment, modules: Sequence[str] | None) -> None:
        """Note which modules of libraries a run has imported; None: it did not say."""
        if modules is not None and (known := self._known.get(deployment.name)) is not None:
            known.learnt = tuple(modules)
            self._wake.set()

    async def close(self) -> None:
        """End all of them, and start no more."""
        self._closed = True
        self._wake.set()
        await end_task(*self._waiting)

    async def _tend(self) -> None:
        pool = self._deployments.work_pools().get(self._pool)
        current = {}
        if pool is None or pool.type == "process":  # what waits is no container
            current = {name: one for name, one in self._deployments.current().items() if one.work_pool == self._pool}
        for name in self._known.keys() - current.keys():
            del self._known[name]
        starts: dict[str, WarmStart | None] = {}  # of few: to look at all of a thousand deployments takes long

        def start_of(name: str) -> WarmStart | None:
            if name not in starts:
                starts[name] = self._start_of(current[name]) if name in current else None
            return starts[name]

        await end_task(*[task for task, one in self._ready.items() if start_of(self._waiting[task]) != one.start])
        wanted = self._wanted(current, start_of)
        missing = Counter(wanted) - Counter(self._waiting.values())
        for name in list(missing.elements()):
            start = start_of(name)
            if start is None or not await self._make_room(name, wanted):
                continue
            task = asyncio.create_task(self._life(name, start))
            self._waiting[task] = name
            task.add_done_callback(self._forget)

    def _wanted(self, current: Mapping[str, Deployment], start_of: Callable[[str], WarmStart | None]) -> list[str]:
        """Whose interpreters should wait, at most `most`, those of the last runs first."""
        now = asyncio.get_running_loop().time()

        def may(name: str) -> bool:
            known = self._known_of(name)
            if name not in current or not (current[name].preload or (known.runs >= LEARNT_AFTER and known.learnt)):
                return False
            start = start_of(name)
            return start is not None and (known.not_before <= now or known.failed != start)

        recent = [name for name in reversed(self._recent) if may(name)]
        first = list(dict.fromkeys(recent))
        named = (name for name, one in current.items() if one.preload and name not in first and may(name))
        first += islice(named, self._settings.most - len(first))
        again = Counter(recent) - Counter(set(recent))
        return [*first, *again.elements()][: self._settings.most]

    async def _make_room(self, name: str, wanted: Sequence[str]) -> bool:
        """End what is not wanted while there are too many. Whether another one may be started."""
        spare = Counter(self._waiting.values()) - Counter(wanted)
        for task in [task for task in self._ready if spare[self._waiting[task]]]:
            if self._has_room(name):
                break
            if spare[self._waiting[task]] > 0:
                spare[self._waiting[task]] -= 1
                await end_task(task)
        return self._has_room(name)

    def _has_room(self, name: str) -> bool:
        known = self._known_of(name)
        return len(self._waiting) < self._settings.most and self._room.has(
            self._room.guess(known.bytes), used=known.used
        )

    async def _life(self, name: str, start: WarmStart) -> None:
        """Of one interpreter, until it ends, or is ended, or is taken."""
        known = self._known_of(name)
        task = asyncio.current_task()
        assert task is not None
        place = Waiting(used=lambda: known.used, end=task.cancel, bytes=self._room.guess(known.bytes))
        self._room.enter(place)
        try:
            await self._wait_for_run(name, start, known, place, task)
        finally:
            self._room.leave(place)

    async def _wait_for_run(
        self, name: str, start: WarmStart, known: _Known, place: Waiting, task: asyncio.Task[None]
    ) -> None:
        process: WarmProcess | None = None
        try:
            async with self._room.loading:
                process = await WarmProcess.begin(start, grace=self._grace)
                await process.load(known.learnt, within=self._settings.load_within)
            known.bytes = place.bytes = process.bytes
            if process.bytes > self._room.most_bytes:
                why = f"one takes {process.bytes:,} bytes, more than all that wait may ({self._room.most_bytes:,})"
                raise NotWarm(why, again=False)
            if not self._room.has(0, used=known.used):
                return
            place.ready = True
            self._ready[task] = process
            await process.gone()
            raise NotWarm("it ended while it waited", again=True)
        except (NotWarm, SetupError, OSError) as problem:
            self._put_off(name, start, problem)
        finally:
            if process is not None and task in self._waiting:  # else it was taken
                self._ready.pop(task, None)
                await process.end()

    def _put_off(self, name: str, start: WarmStart, problem: Exception) -> None:
        """Start none with this for a while."""
        known, again = self._known_of(name), getattr(problem, "again", False)
        pause = timedelta(seconds=1) if again else self._settings.again_after
        pause = min(pause * 2 ** min(known.failures, 20), LONGEST_PAUSE)
        known.failures += 1
        known.failed, known.not_before = start, asyncio.get_running_loop().time() + pause.total_seconds()
        text = f"runs of {name} start in interpreters of their own, since none can wait for them: {problem}"
        if (again and known.failures < TOLD_AFTER) or text == known.told:
            log.info("%s", text)
            return
        known.told = text
        log.warning("%s", text)

    def _start_of(self, deployment: Deployment) -> WarmStart | None:
        try:
            return warm_start_of(deployment, root=self._root, inherited=self._environment)
        except NotFound:  # the run will say so
            return None

    def _known_of(self, name: str) -> _Known:
        return self._known.setdefault(name, _Known())

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._ready.pop(task, None)
        self._waiting.pop(task, None)
        self._wake.set()
