"""Rules that follow their folder: read again when a file changes, and taken only when they are sound.

Owned by `engine.process.rule_reloading`. watchfiles says when something changed (it polls by itself where the system has no
notifications, as on network file systems); where watching is not possible at all, the files are compared at an
interval.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from watchfiles import Change, awatch

from whenthen.rules.folder import Checker, Rules, find_files, is_rules_file, load_rules
from whenthen.schemas import InvalidRules, Problem

__all__ = ["RulesWatcher"]

log = logging.getLogger(__name__)

#: readings of files that keep changing before one is taken as it is
SETTLING_TRIES = 20

#: called with new rules and no problems, or with None and the problems of a set that was refused
Changed = Callable[[Rules | None, Sequence[Problem]], None]


class RulesWatcher:
    """Keeps the last good rules of a folder or file.

    `changed` is called in the event loop after each change that gave another revision, that was refused, or that took
    the last refused one back; a refused set leaves `rules` as they are. A callback that refuses a set of its own
    accord raises InvalidRules.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rules: Rules,
        changed: Changed,
        *,
        checkers: Sequence[Checker] | None = None,
        debounce_ms: int = 200,
        poll_s: float = 5.0,
    ) -> None:
        self.rules = rules
        self.problems: tuple[Problem, ...] = ()  #: of the last set when it was refused
        self._path = Path(path)
        self._changed = changed
        self._checkers = checkers
        self._debounce_ms = debounce_ms
        self._poll_s = poll_s

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        async for _ in self._changes(stop):
            if stop.is_set():
                return
            await self.reload()

    async def reload(self) -> bool:
        """Read the rules now; say whether another set was taken. Reading happens in a thread.

        A set counts once its files have not changed for the debounce time: an editor that empties a file before it
        writes the new text does not take all rules away in between.
        """
        try:
            rules = await self._settled()
            if rules.revision == self.rules.revision and not self.problems:
                return False
            self._changed(rules, ())
        except InvalidRules as error:
            problems = tuple(error.problems)
            if problems != self.problems:
                self.problems = problems
                self._changed(None, problems)
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
                rules = await asyncio.to_thread(load_rules, self._path, checkers=self._checkers, kept=self.rules)
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

    async def _changes(self, stop: asyncio.Event) -> AsyncIterator[None]:
        try:
            watched = self._path if self._path.is_dir() else self._path.parent
            async for _ in awatch(
                watched, watch_filter=self._concerns, debounce=self._debounce_ms, step=50, stop_event=stop
            ):
                yield
        except (OSError, RuntimeError) as error:
            log.warning("the rules folder can not be watched and is compared every %s s: %s", self._poll_s, error)
            async for _ in self._polled(stop):
                yield

    async def _polled(self, stop: asyncio.Event) -> AsyncIterator[None]:
        before = await asyncio.to_thread(self._fingerprint)
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._poll_s)
            except TimeoutError:
                now = await asyncio.to_thread(self._fingerprint)
                if now != before:
                    before = now
                    yield

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
        return is_rules_file(relative.name) or not relative.suffix

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        seen = []
        for file in find_files(self._path):
            try:
                status = file.stat()
                seen.append((str(file), status.st_mtime_ns, status.st_size))
            except OSError:
                seen.append((str(file), 0, 0))
        return tuple(seen)
