"""Tables for people: what fits a line and what gives way when it does not. Pure: text in, lines out.

Called by `cli.listings`. An id is shortened to a prefix that is unique among those shown and never cut otherwise; names
end in an ellipsis; text wraps between words, or stands below its row. When even that is wider than the terminal, lines are
longer than it rather than ids shorter than they have to be.
"""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["Heading", "Shape", "clean", "narrow_table", "shorten", "wide_table"]

MIN_ID_CHARS = 8
#: an id without a generated part is shown whole up to this length
MAX_TEXT_ID_CHARS = 24
#: names are not cut below this, unless they are shorter themselves
MIN_NAME_CHARS = 8
#: text that would be narrower than this stands below its row
MIN_TEXT_CHARS = 24
GAP = "  "
INDENT = "    "
ELLIPSIS = "…"
#: the generated part of an id: that of a run or firing, or a UUID
_GENERATED = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-z])"
)


class Shape(Enum):
    """How the cells of a column give way."""

    FIXED = auto()  #: not at all: times, states
    NUMBER = auto()  #: not at all, and stands on the right
    ID = auto()  #: shortened to a unique prefix
    NAME = auto()  #: cut, with an ellipsis at its end
    TEXT = auto()  #: wrapped between words, or put below the row; the last column only


@dataclass(frozen=True, slots=True)
class Heading:
    """What a table needs to know of a column."""

    title: str
    shape: Shape


class _Parts(NamedTuple):
    """An id around its generated part."""

    head: str
    generated: str
    tail: str


def clean(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey: what is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else " " if char in "\r\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def shorten(ids: Iterable[str]) -> dict[str, str]:
    """Each id with a form that is as short as may be, stands for no other of `ids`, and is taken by the server.

    The generated part of an id keeps at least 8 characters, what stands before and behind it stays: `<run>-4` becomes
    `e7f44713-4`. An id without such a part stays whole up to 24 characters; a longer one is cut and ends in an ellipsis,
    which says that it is no id by itself.
    """
    every = sorted(set(ids))
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    found: dict[str, str] = {}
    for place, full in enumerate(every):
        parts = _parts(full)
        if parts is not None:
            families[parts.head, parts.tail].append(parts.generated)
        elif len(full) <= MAX_TEXT_ID_CHARS:
            found[full] = full
        else:
            unique = max(_distinct(every, place), MAX_TEXT_ID_CHARS - 1)
            found[full] = full if unique >= len(full) - 1 else full[:unique] + ELLIPSIS
    for (head, tail), family in families.items():
        for place, generated in enumerate(family):
            full = head + generated + tail
            sizes = range(max(_distinct(family, place), MIN_ID_CHARS), len(generated))
            forms = (head + generated[:size] + tail for size in sizes)
            found[full] = next((short for short in forms if _begins(every, short) <= {full}), full)
    return found


def _parts(text: str) -> _Parts | None:
    match = _GENERATED.search(text)
    return None if match is None else _Parts(text[: match.start()], match[0], text[match.end() :])


def _distinct(ordered: Sequence[str], place: int) -> int:
    """How many characters of one of several different texts, which are in order, no other begins with."""
    around = [ordered[other] for other in (place - 1, place + 1) if 0 <= other < len(ordered)]
    return max((_shared(ordered[place], other) for other in around), default=0) + 1


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _begins(ordered: Sequence[str], prefix: str) -> set[str]:
    """The first two at most that begin with `prefix`."""
    start = bisect.bisect_left(ordered, prefix)
    return {text for text in ordered[start : start + 2] if text.startswith(prefix)}


def wide_table(headings: Sequence[Heading], rows: Sequence[Sequence[str]]) -> list[str]:
    """Everything in full: the headings, and a line a row."""
    widths = [
        _widest(heading.title, column) for heading, column in zip(headings, _columns(headings, rows), strict=True)
    ]
    titles = [heading.title for heading in headings]
    return [_line(headings, widths, row) for row in (titles, *rows)]


def narrow_table(headings: Sequence[Heading], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The headings and the rows within `width`, ids shortened; see the module for what gives way."""
    columns = [
        _shortened(column) if heading.shape is Shape.ID else list(column)
        for heading, column in zip(headings, _columns(headings, rows), strict=True)
    ]
    widths = [_widest(heading.title, column) for heading, column in zip(headings, columns, strict=True)]
    below = False
    if headings[-1].shape is Shape.TEXT:
        room = width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
        if room < min(widths[-1], MIN_TEXT_CHARS):
            below = True
        else:
            widths[-1] = min(widths[-1], room)
    kept = len(headings) - below
    _cut_names(headings[:kept], columns, widths, width)
    lines = [_line(headings[:kept], widths, [heading.title for heading in headings[:kept]])]
    for number in range(len(rows)):
        row = [column[number] for column in columns]
        if below:
            lines.append(_line(headings[:kept], widths, row[:kept]))
            lines += [INDENT + part for part in _wrapped(row[-1], max(width - len(INDENT), MIN_TEXT_CHARS))]
        elif headings[-1].shape is Shape.TEXT:
            first, *more = _wrapped(row[-1], widths[-1]) or [""]
            lines.append(_line(headings, widths, [*row[:-1], first]))
            lines += [_line(headings, widths, [*[""] * (kept - 1), part]) for part in more]
        else:
            lines.append(_line(headings, widths, row))
    return lines


def _columns(headings: Sequence[Heading], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    return [tuple(row[place] for row in rows) for place in range(len(headings))]


def _shortened(column: Sequence[str]) -> list[str]:
    short = shorten(column)
    return [short[text] for text in column]


def _cut_names(headings: Sequence[Heading], columns: Sequence[Sequence[str]], widths: list[int], width: int) -> None:
    """Take from the widest names until the line fits, or none can give any more."""
    floors = {
        place: min(widths[place], max(_len(heading.title), MIN_NAME_CHARS))
        for place, heading in enumerate(headings)
        if heading.shape is Shape.NAME
    }
    excess = sum(widths[: len(headings)]) + len(GAP) * (len(headings) - 1) - width
    while excess > 0 and (able := [place for place, floor in floors.items() if widths[place] > floor]):
        widths[max(able, key=lambda place: widths[place])] -= 1
        excess -= 1


def _line(headings: Sequence[Heading], widths: Sequence[int], row: Sequence[str]) -> str:
    cells = [
        _right(text, size) if heading.shape is Shape.NUMBER else _left(text, size)
        for heading, size, text in zip(headings, widths, row, strict=False)
    ]
    return GAP.join(cells).rstrip()


def _left(text: str, size: int) -> str:
    if _len(text) > size:
        text = _cut(text, size)
    return text + " " * (size - _len(text))


def _right(text: str, size: int) -> str:
    return " " * (size - _len(text)) + text


def _cut(text: str, size: int) -> str:
    from rich.cells import set_cell_size

    return set_cell_size(text, size - 1).rstrip() + ELLIPSIS


def _wrapped(text: str, size: int) -> list[str]:
    """Lines of whole words; a word that is longer than a line is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and _len(lines[-1]) + 1 + _len(word) <= size:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [line if _len(line) <= size else _cut(line, size) for line in lines]


def _widest(title: str, column: Iterable[str]) -> int:
    return max(_len(title), max(map(_len, column), default=0))


def _len(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
