"""Which of all flow runs are on a page: the newest that match, in bounded memory however many there are and however large. Pure.

Fed with the newest revision of each run, in any order, by the stores of runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from whenthen.runs.stores import RunFilter, RunPage, Stored

__all__ = ["RunPageCollector"]


@dataclass(slots=True)
class RunPageCollector:
    """At most `limit` runs whose records have `most_bytes` together, unless the first one alone has more."""

    wanted: RunFilter
    limit: int
    most_bytes: int
    _found: dict[str, tuple[Stored, int]] = field(default_factory=dict)  #: by run id, with the bytes of its record
    _bytes: int = 0
    _floor: tuple[str, str] = ("", "")  #: of the newest run that was left to the next page: what is older is, too

    def take(self, stored: Stored, size: int) -> None:
        """Take a revision; it stands in for an earlier one of its run, which changed while all were read."""
        run = stored.run
        _, before = self._found.pop(run.id, (None, 0))
        self._bytes -= before
        if not self.wanted.admits(run) or (run.created, run.id) <= self._floor:
            return
        self._found[run.id] = stored, size
        self._bytes += size
        if len(self._found) > 2 * self.limit or (self._bytes > 2 * self.most_bytes and len(self._found) > 1):
            self._trim()

    def page(self) -> RunPage:
        """The page, the newest run first."""
        self._trim()
        page = RunPage(stored for stored, _ in self._found.values())
        page.more = self._floor > ("", "")
        return page

    def _trim(self) -> None:
        newest = sorted(self._found.items(), key=lambda item: (item[1][0].run.created, item[1][0].run.id), reverse=True)
        kept: dict[str, tuple[Stored, int]] = {}
        held = 0
        for run_id, (stored, size) in newest:
            if len(kept) == self.limit or (kept and held + size > self.most_bytes):
                self._floor = (stored.run.created, run_id)
                break
            kept[run_id] = stored, size
            held += size
        self._found, self._bytes = kept, held
