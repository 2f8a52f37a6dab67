"""Which files of a folder are new, changed, moved or gone? Decided of two looks at it. Pure: no clock, no file system.

Called by `engine.sources`, which looks and stores what is known. Meaning: docs/sources.md, "A folder".

A look is a whole listing, never a single notification: what a notification missed is seen by the next look, so nothing depends on the
system having told of each change. A file counts once it was the same in looks that lie `stable` apart; one that is away counts as deleted
after the same time, so that an editor which writes by deleting and renaming makes a change of one file, and a rename is one move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["FileChange", "FileMark", "FolderMemory"]


class FileMark(NamedTuple):
    """By what a file is known to be the same."""

    size: int
    modified_ns: int
    inode: int


class _Waiting(NamedTuple):
    mark: FileMark | None  #: None: it is away
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    change: Literal["created", "modified", "moved", "deleted"]
    path: str  #: relative to the folder, with slashes
    mark: FileMark  #: for a deleted file the last one
    before: str | None = None  #: the path that a moved file had


@dataclass(slots=True)
class FolderMemory:
    """What is known of a folder: `known` are the files that were reported, or were there at the beginning."""

    known: dict[str, FileMark] = field(default_factory=dict)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)

    def look(
        self,
        seen: Mapping[str, FileMark],
        *,
        now: float,
        stable_s: float,
        unseen: Callable[[str], bool] = lambda path: False,
    ) -> list[FileChange]:
        """What is to be reported of a folder in which `seen` was found, in the order of the paths. `now` is in seconds, and does not jump.

        `unseen` says of a path whether it could not be looked at: such a file is neither gone nor changed. What is reported is
        known only once `took` is called with it: a change that could not be delivered is reported by the next look.
        """
        settled: dict[str, FileMark | None] = {}
        for path, mark in seen.items():
            if self.known.get(path) == mark:
                self._waiting.pop(path, None)
            elif self._has_settled(path, mark, now, stable_s):
                settled[path] = mark
        for path in self.known.keys() - seen.keys():
            if unseen(path):
                self._waiting.pop(path, None)
            elif self._has_settled(path, None, now, stable_s):
                settled[path] = None
        for path in [path for path in self._waiting if path not in seen and path not in self.known]:
            del self._waiting[path]  # came and went before it was reported
        return self._changes(settled)

    def took(self, change: FileChange) -> None:
        """Note that a change was delivered."""
        self._waiting.pop(change.path, None)
        if change.change == "deleted":
            self.known.pop(change.path, None)
            return
        self.known[change.path] = change.mark
        if change.before is not None:
            self._waiting.pop(change.before, None)
            self.known.pop(change.before, None)

    def next_due(self, stable_s: float) -> float | None:
        """When a look has something to say though nothing changes any more; None when nothing waits."""
        return min((waiting.since + stable_s for waiting in self._waiting.values()), default=None)

    def _has_settled(self, path: str, mark: FileMark | None, now: float, stable_s: float) -> bool:
        waiting = self._waiting.get(path)
        if waiting is None or waiting.mark != mark:
            waiting = self._waiting[path] = _Waiting(mark, now)
        return now - waiting.since >= stable_s

    def _changes(self, settled: Mapping[str, FileMark | None]) -> list[FileChange]:
        gone = {self.known[path]: path for path, mark in settled.items() if mark is None}
        moved: set[str] = set()
        found: list[FileChange] = []
        for path, mark in sorted(settled.items()):
            if mark is None:
                continue
            before = gone.get(mark) if path not in self.known else None
            if before is not None and before not in moved:
                moved.add(before)
                found.append(FileChange(change="moved", path=path, mark=mark, before=before))
            else:
                found.append(FileChange(change="modified" if path in self.known else "created", path=path, mark=mark))
        for path, mark in settled.items():
            if mark is None and path not in moved:
                found.append(FileChange(change="deleted", path=path, mark=self.known[path]))
        return sorted(found, key=lambda change: change.path)
