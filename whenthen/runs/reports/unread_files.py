"""The files in which a run's processes leave what its worker did not take over the socket. Read as the work of strangers: any file may lie
there, with anything in it.

Lines come in the order in which a process wrote them. Called by `run_reports` while the run goes on and when it has ended, and by `left_reports`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from whenthen.runs.reports.report_lines import MAX_LINE_BYTES

__all__ = ["UnreadFiles"]

CHUNK_BYTES: Final = 64 * 1024
MOST_FILES: Final = 10_000  #: that are looked at; a process has few at a time
_NAME = re.compile(r"([0-9]{1,10}-[0-9a-f]{8})-([0-9]{6,})\.(jsonl|sent)")


class UnreadFiles:
    """The files in one folder, and how far each is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, int] = {}

    def names(self, *, sent: bool = False) -> list[str]:
        """The files that are there, those of one process in the order of their making; with `sent` those of what went over the socket, too."""
        found = []
        try:
            with os.scandir(self._folder) as entries:
                for entry, _ in zip(entries, range(MOST_FILES), strict=False):
                    match = _NAME.fullmatch(entry.name)
                    if match is not None and (sent or match[3] == "jsonl"):
                        found.append((match[1], int(match[2]), entry.name))
        except OSError:
            return []
        return [name for _, _, name in sorted(found)]

    def chunks(self, name: str, *, ended: bool) -> Iterator[list[bytes]]:
        """The lines that were not read yet, some at a time. With `ended` nobody writes to the file any more: it is removed."""
        try:
            opened = os.open(
                self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            )
        except OSError:
            self._forget(name, remove=ended)
            return
        try:
            place = self._places.get(name, 0)
            if stat.S_ISREG(os.fstat(opened).st_mode):
                rest = b""
                while data := os.pread(opened, CHUNK_BYTES, place + len(rest)):
                    *lines, rest = (rest + data).split(b"\n")
                    if len(rest) > MAX_LINE_BYTES:  # nobody of ours wrote it
                        place, rest = place + len(rest), b""
                    if lines:
                        place += sum(map(len, lines)) + len(lines)
                        self._places[name] = place
                        yield [line for line in lines if line]
        except OSError:
            pass
        finally:
            os.close(opened)
        if ended:
            self._forget(name, remove=True)

    def _forget(self, name: str, *, remove: bool) -> None:
        if remove:
            self._places.pop(name, None)
            try:
                os.unlink(self._folder / name)
            except OSError:
                return
