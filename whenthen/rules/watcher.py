"""Rules that follow their folder: read again when a file changes, and taken only when they are sound.

Owned by `engine.process.rule_reloading`. watchfiles says when something changed (it polls by itself where the system has no
notifications, as on network file systems); where watching is not possible at all, the files are compared at an
interval.

A file that goes away, or is emptied, keeps what was in it in force for a grace period: an editor that saves, a checkout of another
branch or the swap of a mounted folder takes files away for a moment. What else changed is taken at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from watchfiles import Change, awatch

from whenthen.rules.folder import Checker, Rules, compile_files
from whenthen.rules.reading.source_files import SourceFile, absent_files, find_files, is_rules_file, read_files
from whenthen.schemas.errors import BusUnavailable, InvalidRules, Problem

__all__ = ["RulesWatcher"]

log = logging.getLogger(__name__)

#: readings of files that keep changing before one is taken as it is
SETTLING_TRIES = 20
WAKE_MS = 500  #: how often it is looked whether a file is away for too long

#: called with new rules and no problems, or with None and the problems of a set that was refused
Changed = Callable[[Rules | None, Sequence[Problem]], Awaitable[None]]


class RulesWatcher:
    """Keeps the last good rules of a folder or file.

    `changed` is called in the event loop after each change that gave another revision, that was refused, or that took
    the last refused one back; a refused set leaves `rules` as they are. A callback that refuses a set of its own
    accord raises InvalidRules; one that can not take it now raises BusUnavailable, and is called again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rules: Rules,
        changed: Changed,
        *,
        checkers: Sequence[Checker] | None = None,
        also: Sequence[Checker] = (),
        debounce_ms: int = 200,
        poll_s: float = 5.0,
        grace_s: float = 10.0,
        monotonic: Callable[[], float] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.rules = rules
        self.problems: tuple[Problem, ...] = tuple(problems)  #: of the last set when it was refused
        self._path = Path(path)
        self._changed = changed
        self._checkers = checkers
        self._also = also
        self._debounce_ms = debounce_ms
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._monotonic = monotonic  #: the event loop's clock unless one was given
        self._away: dict[str, float] = {}  #: files of `rules` that are away, and since when
        self._held_until: float | None = None  #: when the first of those that are held is not any more
        self._reading = asyncio.Lock()
        self._untaken = False  #: whether the last set is still to be taken

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        self._untaken = self._untaken or bool(self.problems)  # the files may have been mended before anyone watched
        async for changed in self._changes(stop):
            if stop.is_set():
                return
            if changed or self._untaken or self._grace_is_over():
                try:
                    await self.reload()
                except BusUnavailable as error:
                    log.warning("changed rules are not taken yet: %s", error)

    async def reload(self) -> bool:
        """Read the rules now; say whether another set was taken. Reading happens in a thread.

        A set counts once its files have not changed for the debounce time: an editor that empties a file before it
        writes the new text does not take all rules away in between. A file that is away counts as it was for the grace time.
        """
        async with self._reading:
            self._untaken = True
            taken = await self._reload()
            self._untaken = False
            return taken

    async def _reload(self) -> bool:
        try:
            rules = await self._settled()
            if rules.revision == self.rules.revision and not self.problems:
                return False
            await self._changed(rules, ())
        except InvalidRules as error:
            problems = tuple(error.problems)
            if problems != self.problems:
                self.problems = problems
                await self._changed(None, problems)
            return False
        taken = rules.revision != self.rules.revision
        self.rules = rules
        self.problems = ()
        return taken

    async def _settled(self) -> Rules:
        for _ in range(SETTLING_TRIES):
            before = await asyncio.to_thread(self._fingerprint)
            refused: InvalidRules | None = None
            rules = self.rules
            try:
                rules = await asyncio.to_thread(self._load, self._now())
            except InvalidRules as error:
                refused = error
            if refused is None and rules.revision == self.rules.revision:
                break
            await asyncio.sleep(self._debounce_ms / 1000)
            if await asyncio.to_thread(self._fingerprint) == before:
                break
        if refused is not None:
            raise refused
        return rules

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._monotonic is None else self._monotonic()

    def _load(self, now: float) -> Rules:
        """Read and check the files; those that went away lately as they were."""
        base, files = read_files(self._path)
        held = self._held(files, now)
        if held:
            names = {file.name for file in held}
            together = sorted([*held, *(file for file in files if file.name not in names)], key=lambda file: file.name)
            try:
                return compile_files(base, together, checkers=self._checkers, also=self._also, kept=self.rules)
            except InvalidRules as error:
                log.debug("the rules with the files that are away are not sound together: %s", error)
        return compile_files(base, files, checkers=self._checkers, also=self._also, kept=self.rules)

    def _held(self, files: Sequence[SourceFile], now: float) -> list[SourceFile]:
        """The files of the rules in force that are away for less than the grace time."""
        absent = absent_files(files, self.rules.files_read)
        for file in absent:
            if file.name not in self._away and self._grace_s:
                log.warning(
                    "rules file %s is away or empty; what it holds stays in force for %g s", file.name, self._grace_s
                )
        self._away = {file.name: self._away.get(file.name, now) for file in absent}
        held = [file for file in absent if now < self._away[file.name] + self._grace_s]
        self._held_until = min((self._away[file.name] + self._grace_s for file in held), default=None)
        return [dataclasses.replace(file, held=True) for file in held]

    def _grace_is_over(self) -> bool:
        """Whether a file that was held at the last reading is not any more."""
        return self._held_until is not None and self._now() >= self._held_until

    async def _changes(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """True at each change, and False now and then."""
        try:
            watched = self._path if self._path.is_dir() else self._path.parent
            async for changes in awatch(
                watched,
                watch_filter=self._concerns,
                debounce=self._debounce_ms,
                step=50,
                stop_event=stop,
                rust_timeout=WAKE_MS,
                yield_on_timeout=True,
            ):
                yield bool(changes)
        except (OSError, RuntimeError, ExceptionGroup) as error:  # a group is of watchfiles' tasks
            why = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            log.warning("the rules folder can not be watched and is compared every %s s: %s", self._poll_s, why)
            self._untaken = True  # what changed meanwhile was not told
            async for changed in self._polled(stop):
                yield changed

    async def _polled(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        before = await asyncio.to_thread(self._fingerprint)
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._poll_s)
            except TimeoutError:
                now = await asyncio.to_thread(self._fingerprint)
                yield now != before
                before = now

    def _concerns(self, _change: Change, path: str) -> bool:
        """Whether a change at `path` may change the rules: a rules file, or a folder that came or went."""
        if not self._path.is_dir():
            return Path(path).name == self._path.name
        try:
            relative = Path(path).relative_to(self._path.resolve())
        except ValueError:
            relative = Path(Path(path).name)
        if any(part.startswith(".") for part in relative.parts):
            return False
        if is_rules_file(relative.name) or not relative.suffix or Path(path).is_dir():
            return True
        below = f"{relative.as_posix()}/"  # a folder that went: its name may have a dot
        return not Path(path).exists() and any(name.startswith(below) for name in self.rules.files)

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        seen = []
        for file in find_files(self._path):
            try:
                status = file.stat()
                seen.append((str(file), status.st_mtime_ns, status.st_size))
            except OSError:
                seen.append((str(file), 0, 0))
        return tuple(seen)
