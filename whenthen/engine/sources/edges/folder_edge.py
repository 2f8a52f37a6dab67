"""A folder: looked at as a whole whenever something in it changed, and every few seconds, as no notification is to be relied on.

What a change is, is decided in `whenthen.sources.readings`. What was reported is stored, so that nothing that happens while no
process reads is missed.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import os
import stat
import time
import zlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from watchfiles import awatch

from whenthen.cancellation import end_task
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.event_sources import FolderReading
from whenthen.sources.readings import FileChange, FileMark, FolderMemory, SourceMessage

__all__ = ["FolderEdge", "look_at"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0  #: without any notification
MAX_FILES = 100_000  #: of one folder; what is known of one takes about 100 bytes
PARTS = 64  #: in which the state is stored: one that has changed is written whole
MAX_NS = 2**63 - 1  #: of a time: in the years 1677 and 2262
AT_ONCE = 200  #: changes that are delivered at one time
SAVINGS = 10  #: as many files as the folder has are delivered with about so many storings of the state
WATCH_AGAIN_S = 5.0


@dataclass(slots=True)
class Look:
    """One listing of a folder."""

    seen: dict[str, FileMark] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)  #: what could not be looked at, and why

    def is_unseen(self, path: str) -> bool:
        """Whether a path is, or lies in, what could not be looked at."""
        if not self.unseen:
            return False
        parts = path.split("/")
        return any("/".join(parts[:end]) in self.unseen for end in range(1, len(parts) + 1))


class FolderEdge:
    def __init__(self, reading: FolderReading, state: SourceState, *, host: str) -> None:
        self._reading = reading
        self._state = state
        self._host = host
        self._memory = FolderMemory()
        self._first: Look | None = None  #: until what was there at the beginning is stored
        self._generation = 0
        self._said: frozenset[str] = frozenset()

    async def run(self, intake: MessageIntake) -> None:
        """Report changes until it is cancelled. Called again after it failed.

        Raises:
            SourceTrouble: the folder is not there, can not be read, or has too many files.
        """
        reading = self._reading
        if not await self._load():
            if self._first is None:  # what comes while it can not be stored is new, however long that takes
                self._first = await asyncio.to_thread(look_at, reading)
            self._memory.known = dict(self._first.seen) if reading.existing == "skip" else {}
            await self._save(range(PARTS))
        self._first = None
        intake.reads()
        woken = asyncio.Event()
        watching = asyncio.create_task(self._watch(woken), name=f"folder {reading.path}")
        try:
            while True:
                woken.clear()
                look = await asyncio.to_thread(look_at, reading)
                self._say_unseen(look, intake)
                stable_s = reading.stable.total_seconds()
                now = time.monotonic()
                changes = self._memory.look(look.seen, now=now, stable_s=stable_s, unseen=look.is_unseen)
                await self._deliver(changes, intake)
                due = self._memory.next_due(stable_s)
                wait_s = LOOK_EVERY_S if due is None else min(max(due - time.monotonic(), 0.05), LOOK_EVERY_S)
                try:
                    async with asyncio.timeout(wait_s):
                        await woken.wait()
                        if due is not None:  # while a file is being written it tells much and often
                            await asyncio.sleep(min(0.5, stable_s / 2))
                except TimeoutError:
                    pass
        finally:
            await end_task(watching)

    async def _watch(self, woken: asyncio.Event) -> None:
        """Wake the loop when the system tells of a change; where it can not, the loop looks by the clock alone."""
        while True:
            try:
                async with aclosing(_changes_of(self._reading)) as changes:
                    async for _ in changes:
                        woken.set()
            except (OSError, RuntimeError) as error:
                log.info("folder %s: it is looked at every %g s only: %s", self._reading.path, LOOK_EVERY_S, error)
            await asyncio.sleep(WATCH_AGAIN_S)

    async def _deliver(self, changes: list[FileChange], intake: MessageIntake) -> None:
        """Deliver, and store what was delivered from time to time: of many files each storing is much."""
        parts: set[int] = set()
        unsaved = 0
        for begin in range(0, len(changes), AT_ONCE):
            some = changes[begin : begin + AT_ONCE]
            await asyncio.gather(*(intake.deliver(self._message(change)) for change in some))
            for change in some:
                self._memory.took(change)
                parts.update(map(_part_of, filter(None, (change.path, change.before))))
            unsaved += len(some)
            if unsaved >= len(self._memory.known) // SAVINGS or begin + AT_ONCE >= len(changes):
                await self._save(parts)
                parts, unsaved = set(), 0

    def _message(self, change: FileChange) -> SourceMessage:
        mark = change.mark
        body = {
            "change": change.change,
            "path": change.path,
            "name": change.path.rpartition("/")[2],
            "folder": self._reading.path.rstrip("/") or "/",
            "host": self._host,
            "size": mark.size,
            "modified": _time_of(mark.modified_ns),
            "before": change.before,
        }
        # a process that died before it stored the state reports the same again under the same number, and no other does
        place = f"{self._generation}:{change.change}:{change.before or ''}:{change.path}"
        delivery = f"{place}:{mark.size}:{mark.modified_ns}:{mark.inode}"
        return SourceMessage(body=orjson.dumps(body), delivery=delivery, about={"folder": self._reading.path})

    async def _load(self) -> bool:
        """Take what is remembered, if there is anything."""
        head = await self._state.load("head")
        if head is None:
            return False
        self._generation = int(head["generation"])
        parts = await asyncio.gather(*(self._state.load(str(part)) for part in range(PARTS)))
        self._memory.known = {path: FileMark(*mark) for part in parts for path, *mark in part or ()}
        return True

    async def _save(self, parts: Iterable[int]) -> None:
        """Store what is known. The head comes last: the next number is used only once what the last one reported is stored."""
        wanted: dict[int, list[tuple[str, int, int, int]]] = {part: [] for part in parts}
        for path, mark in self._memory.known.items():
            if (found := wanted.get(_part_of(path))) is not None:
                found.append((path, *mark))
        await asyncio.gather(*(self._state.save(str(part), rows) for part, rows in wanted.items()))
        self._generation += 1
        await self._state.save("head", {"generation": self._generation})

    def _say_unseen(self, look: Look, intake: MessageIntake) -> None:
        unseen = frozenset(look.unseen)
        if unseen - self._said:
            path, why = next(iter(look.unseen.items()))
            more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
            log.warning(
                "folder %s: %s%s can not be looked at: %s; let the user of this process read it",
                self._reading.path,
                path,
                more,
                why,
            )
        self._said = unseen
        intake.watch.detail = f"{len(unseen)} paths can not be looked at, such as {min(unseen)}" if unseen else ""


def _time_of(ns: int) -> str | None:
    """None of a time that is beyond what is kept of one."""
    return None if abs(ns) == MAX_NS else datetime.fromtimestamp(ns / 1e9, UTC).isoformat()


def look_at(reading: FolderReading) -> Look:
    """List the regular files of a folder; links are not followed.

    Raises:
        SourceTrouble: the folder itself can not be listed, so that nothing is known of its files; or there are too many.
    """
    look = Look()
    waiting = [("", reading.path)]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    _look_at_entry(entry, prefix, reading, look, waiting)
                    if len(look.seen) > MAX_FILES:
                        raise SourceTrouble(
                            f"folder {reading.path}: more than {MAX_FILES} files; read parts of it as sources of their own, or "
                            "name fewer with `match`"
                        )
        except OSError as error:
            why = error.strerror or str(error)
            if not prefix:
                raise SourceTrouble(
                    f"folder {folder}: {why}; it must be there, and readable for the user of this process"
                ) from None
            look.unseen[prefix.rstrip("/")] = why
    return look


def _look_at_entry(
    entry: os.DirEntry[str], prefix: str, reading: FolderReading, look: Look, waiting: list[tuple[str, str]]
) -> None:
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    path = f"{prefix}{name}"
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # it went as it was looked at
    except OSError as error:
        look.unseen[path] = error.strerror or str(error)
        return
    if stat.S_ISDIR(found.st_mode):
        if reading.recursive:
            waiting.append((f"{path}/", entry.path))
    elif stat.S_ISREG(found.st_mode) and fnmatch.fnmatchcase(name, reading.match):
        # whoever writes a file may give it any time, also one that JSON has no number for
        modified_ns = max(min(found.st_mtime_ns, MAX_NS), -MAX_NS)
        look.seen[path] = FileMark(found.st_size, modified_ns, found.st_ino)


async def _changes_of(reading: FolderReading) -> AsyncGenerator[object, None]:
    async for changes in awatch(
        reading.path,
        recursive=reading.recursive,
        debounce=200,
        step=50,
        ignore_permission_denied=True,
        watch_filter=None,
    ):
        yield changes


def _part_of(path: str) -> int:
    return zlib.crc32(path.encode("utf-8", "surrogatepass")) % PARTS
