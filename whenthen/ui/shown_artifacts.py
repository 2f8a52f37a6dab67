"""What a run has to show, in a page: texts, tables and addresses of the run's code, of which nothing is markup and nothing is fetched.

Called by the page of a run. Markdown stands as it was written; an image is a link, since the pages ask nobody else for anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

__all__ = ["ShownArtifact", "shown_artifacts"]

MOST_CHARS: Final = 20_000  #: of a text
MOST_ROWS: Final = 200  #: of a table
MOST_COLUMNS: Final = 30
MOST_CELL_CHARS: Final = 300
_LINK: Final = re.compile(r"\[(?P<text>[^\]\n]{0,2000})\]\((?P<href>[^()\s]{1,4000})\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownArtifact:
    """One artifact as it is shown: a table, a link, how far something is, or a text."""

    id: str
    key: str
    type: str
    description: str
    updated: str
    text: str = ""
    left_out: int = 0  #: characters of the text, or rows of the table
    href: str = ""
    percent: float | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def shown_artifacts(artifacts: Sequence[Any]) -> list[ShownArtifact]:
    """Artifacts as the API has them, in their order."""
    return [_shown(each) for each in artifacts]


def _shown(artifact: Any) -> ShownArtifact:
    known = {name: getattr(artifact, name) for name in ("id", "key", "type", "description", "updated")}
    data = artifact.data
    if artifact.type == "progress" and isinstance(data, int | float) and not isinstance(data, bool):
        return ShownArtifact(**known, percent=max(0.0, min(100.0, float(data))))
    if artifact.type == "table" and (table := _table(data)) is not None:
        columns, rows, left_out = table
        return ShownArtifact(**known, columns=columns, rows=rows, left_out=left_out)
    if artifact.type == "image" and isinstance(data, str) and _is_web(data):
        return ShownArtifact(**known, text=data[:MOST_CELL_CHARS], href=data)
    text = data if isinstance(data, str) else orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str).decode()
    found = _LINK.fullmatch(text.strip())
    if found is not None and _is_web(found["href"]):
        return ShownArtifact(**known, text=found["text"] or found["href"], href=found["href"])
    return ShownArtifact(**known, text=text[:MOST_CHARS], left_out=max(0, len(text) - MOST_CHARS))


def _is_web(address: str) -> bool:
    """Whether a link may lead there: nothing that a browser would execute."""
    try:
        return len(address) <= 4000 and urlsplit(address).scheme in ("http", "https")
    except ValueError:
        return False


def _table(data: Any) -> tuple[list[str], list[list[str]], int] | None:
    """Columns and the first rows of a table as it is kept, and how many rows more there are: JSON of a list of objects or of lists, or of an
    object of columns."""
    try:
        found = orjson.loads(data) if isinstance(data, str) else data
    except orjson.JSONDecodeError:
        return None
    if isinstance(found, Mapping) and found and all(isinstance(column, list) for column in found.values()):
        names = list(found)[:MOST_COLUMNS]
        longest = max(len(found[name]) for name in names)
        made = [
            [found[name][at] if at < len(found[name]) else None for name in names]
            for at in range(min(longest, MOST_ROWS))
        ]
        return [str(name) for name in names], _cells(made), max(0, longest - MOST_ROWS)
    if not isinstance(found, list) or not found:
        return None
    shown, left_out = found[:MOST_ROWS], max(0, len(found) - MOST_ROWS)
    if all(isinstance(row, dict) for row in found):
        names = list(dict.fromkeys(str(name) for row in shown for name in row))[:MOST_COLUMNS]
        return names, _cells([row.get(name) for name in names] for row in shown), left_out
    if all(isinstance(row, list) for row in found):
        return [], _cells(row[:MOST_COLUMNS] for row in shown), left_out
    return None


def _cells(rows: Iterable[Sequence[Any]]) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= MOST_CELL_CHARS else f"{text[:MOST_CELL_CHARS]}…"
