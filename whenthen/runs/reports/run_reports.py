"""What one attempt of a run tells of itself, from its processes to the stores: lines go to the run's log, moves of task runs are stored in
batches, events are put into the queue of those who may publish them.

While a store is away nothing is read any more: what the processes tell waits in their sockets, and then in their files. Called by `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from whenthen.cancellation import end_task
from whenthen.runs.reports.report_lines import (
    BadReport,
    Dropped,
    Kept,
    LogReport,
    Report,
    ToldEvent,
    read_report_line,
)
from whenthen.runs.reports.report_socket import Answer, ReportSocket
from whenthen.runs.reports.reported_events import event_of_report, told_event, told_move
from whenthen.runs.reports.task_runs import MAX_TASK_RUNS, TaskRunMove
from whenthen.runs.reports.told_artifacts import ToldArtifacts
from whenthen.runs.reports.unread_files import UnreadFiles
from whenthen.runs.run_output import RunLog
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import BusUnavailable, WhenthenError

__all__ = ["LOCK_NAME", "OWNER_NAME", "REPORTS_NAME", "ReportSettings", "ReportSink", "RunReports"]

log = logging.getLogger(__name__)

REPORTS_NAME: Final = "reports"  #: the folder of files that were not taken over the socket
OWNER_NAME: Final = "run.json"  #: of which run and attempt they are
LOCK_NAME: Final = "lock"  #: locked for as long as the worker lives


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    batch_moves: int = 500
    batch_wait_s: float = 0.1
    file_poll_s: float = 0.5  #: from one look at the files to the next while the run goes on
    close_wait_s: float = 2.0  #: for connections that stay open when the run's processes have ended
    retry_pause_s: float = 1.0


class ReportSink:
    """Takes what was told and stores it. Without a socket: for what a worker left, too."""

    def __init__(
        self,
        run: FlowRun,
        stores: Stores,
        output: RunLog,
        *,
        clock: Callable[[], datetime],
        task_run_events: bool = False,
        settings: ReportSettings | None = None,
        forget: Callable[[str], None] = lambda file: None,
    ) -> None:
        """`task_run_events` asks for an event of each move of a task run. `forget` is called with files of which everything is stored."""
        self._run = run
        self._store = stores.task_runs
        self._events = stores.told_events
        self._output = output
        self._clock = clock
        self._forget = forget
        self._task_run_events = task_run_events
        self._settings = settings or ReportSettings()
        self._moves: list[TaskRunMove] = []
        self._known: set[str] = set()
        self._unlisted: set[int] = set()  #: hashes of ids of task runs over the limit; counted, never listed
        self._artifacts = ToldArtifacts(run, stores.artifacts, output, retry_pause_s=self._settings.retry_pause_s)
        self._bad = 0
        self._timer: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def hear(self, lines: Sequence[bytes]) -> None:
        """Take lines. Returns when there is room for more."""
        for line in lines:
            try:
                report = read_report_line(line, attempt=self._run.attempt)
            except BadReport as error:
                self._bad += 1
                if self._bad == 1:
                    await self._output.write_system_line(f"a report of the run is passed over: {error}")
                continue
            await self._take(report)

    async def flush(self) -> None:
        """Returns when all moves and artifacts that were heard are stored."""
        async with self._lock:
            while self._moves:
                batch = self._moves[: self._settings.batch_moves]
                await self._store_moves(batch)
                del self._moves[: len(batch)]
            await self._artifacts.flush()

    async def close(self) -> None:
        """Flush, and say what was left out."""
        await self.flush()
        await self._artifacts.tell_left_out()
        if self._bad > 1:
            await self._output.write_system_line(f"{self._bad} reports of the run were passed over: they are none")
        if self._unlisted:
            await self._output.write_system_line(
                f"{len(self._unlisted)} further task runs are not listed: of one attempt {MAX_TASK_RUNS:,} are kept"
            )
        await self.abandon()

    async def abandon(self) -> None:
        """Stop without a flush."""
        if self._timer is not None:
            await end_task(self._timer)
            self._timer = None

    async def _take(self, report: Report) -> None:
        output = self._output
        if isinstance(report, TaskRunMove):
            await self._take_move(report)
        elif isinstance(report, LogReport):
            await output.write_logged(report.text, at=report.at, level=report.level, name=report.name)
        elif isinstance(report, Dropped):
            await output.write_system_line(
                f"{report.lines} lines of the run's log are left out: the worker did not read them in time"
            )
        elif isinstance(report, ToldEvent):
            await self._take_event(report)
        elif isinstance(report, Kept):
            await self.flush()
            self._forget(report.file)
        elif await self._artifacts.take(report):
            self._begin_flush()

    async def _take_move(self, move: TaskRunMove) -> None:
        if move.id not in self._known:
            if len(self._known) >= MAX_TASK_RUNS:
                if len(self._unlisted) < 10 * MAX_TASK_RUNS:
                    self._unlisted.add(hash(move.id))
                return
            self._known.add(move.id)
        name, message = self._output.mask(move.name), self._output.mask(move.message)
        if name != move.name or message != move.message:
            move = replace(move, name=name, message=message)
        self._moves.append(move)
        if len(self._moves) >= self._settings.batch_moves:
            await self.flush()
        else:
            self._begin_flush()

    def _begin_flush(self) -> None:
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._flush_soon())

    async def _take_event(self, told: ToldEvent) -> None:
        try:
            fields = self._output.mask_value(told.fields)
            event = event_of_report(fields, self._run, self._clock())  # whoever publishes it makes it anew
            await self._put(told_event(fields), event.id)
        except WhenthenError as error:
            name = str(told.fields.get("event"))[:200]
            await self._output.write_system_line(f"event {name!r} was not emitted: {error}")

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._settings.batch_wait_s)
        await self.flush()

    async def _store_moves(self, moves: Sequence[TaskRunMove]) -> None:
        while True:
            try:
                await self._store.append(self._run.id, moves)
                break
            except BusUnavailable:
                await asyncio.sleep(self._settings.retry_pause_s)
        if self._task_run_events:
            tasks = [move for move in moves if move.kind == "task"]
            await asyncio.gather(*(self._put(told_move(move), f"{move.id}-{move.n}") for move in tasks))

    async def _put(self, told: dict[str, Any], id: str) -> None:
        """
        Raises:
            InvalidInput: it is too large.
        """
        while True:
            try:
                return await self._events.put(self._run.id, told, id=id)
            except BusUnavailable:
                await asyncio.sleep(self._settings.retry_pause_s)


class RunReports:
    """The socket and the files of one attempt, in a folder of its own."""

    def __init__(
        self, run: FlowRun, folder: Path, *, kinds: Collection[str] = (), answer: Answer | None = None
    ) -> None:
        """`answer` answers requests of `kinds`."""
        self._run = run
        self._folder = folder / REPORTS_NAME
        self._files = UnreadFiles(self._folder)
        self._reading = asyncio.Lock()
        self._sink: ReportSink | None = None
        self._begun = asyncio.Event()  #: a process may speak before its start has returned here
        self._settings = ReportSettings()
        self._poll: asyncio.Task[None] | None = None
        self._locked: int | None = None
        self._socket = ReportSocket(
            folder,
            hear=self._hear,
            closed_files=self._read_closed,
            answer=answer or _no_answer,
            kinds=kinds,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the run needs to tell of itself."""
        return {"WHENTHEN_RUN_SOCKET": str(self._socket.path), "WHENTHEN_RUN_TOKEN": self._socket.token}

    @property
    def held(self) -> tuple[int, ...]:
        """Descriptors that say that the folder is somebody's, for as long as a process has them."""
        return () if self._locked is None else (self._locked,)

    async def open(self) -> None:
        """Listen. What is heard waits until there is a sink (`begin`).

        Raises:
            OSError: the system refuses.
        """
        self._folder.mkdir(mode=0o700)
        self._locked = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = self._folder / OWNER_NAME
        part = owner.with_suffix(".part")
        part.write_bytes(orjson.dumps({"run": self._run.id, "attempt": self._run.attempt}))
        part.rename(owner)
        await self._socket.open()

    def begin(self, sink: ReportSink, settings: ReportSettings | None = None) -> None:
        """Give what is heard to `sink`."""
        self._sink = sink
        self._settings = settings or self._settings
        self._begun.set()
        self._poll = asyncio.create_task(self._look_at_files())

    def forget(self, name: str) -> None:
        """Remove a file of lines that came over the socket, too."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    async def close(self) -> None:
        """The processes have ended: returns when all that they told is stored."""
        await self._socket.close(wait_s=self._settings.close_wait_s)
        await self._end_poll()
        if self._sink is not None:
            for name in self._files.names():
                await self._read(name, ended=True)
            await self._sink.close()
        self._unlock()

    async def abandon(self) -> None:
        """Stop; what was not stored is nobody's. May be called after `close`."""
        await self._socket.abandon()
        await self._end_poll()
        if self._sink is not None:
            await self._sink.abandon()
        self._unlock()

    async def _hear(self, lines: Sequence[bytes]) -> None:
        await self._begun.wait()
        assert self._sink is not None
        await self._sink.hear(lines)

    async def _read_closed(self, names: Collection[str]) -> None:
        for name in sorted(names):
            await self._read(name, ended=True)

    async def _look_at_files(self) -> None:
        while True:
            await asyncio.sleep(self._settings.file_poll_s)
            for name in self._files.names():
                await self._read(name, ended=False)

    async def _read(self, name: str, *, ended: bool) -> None:
        await self._begun.wait()
        assert self._sink is not None
        async with self._reading:
            clock = asyncio.get_running_loop().time
            began = clock()
            for lines in self._files.chunks(name, ended=ended):
                await self._sink.hear(lines)
                await asyncio.sleep(min(clock() - began, 0.05))
                began = clock()

    async def _end_poll(self) -> None:
        if self._poll is not None:
            await end_task(self._poll)
            self._poll = None

    def _unlock(self) -> None:
        if self._locked is not None:
            # first: from here on the folder is nobody's, and would be taken for that of a worker that died
            with contextlib.suppress(OSError):
                (self._folder / OWNER_NAME).unlink()
            with contextlib.suppress(OSError):
                os.close(self._locked)
            self._locked = None


async def _no_answer(kind: str, body: dict[str, Any]) -> Any:
    raise BadReport(f"this worker does not answer {kind}")
