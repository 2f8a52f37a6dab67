"""Globs over event names and labels: what matches, and which literal part the index can use.

`*` is any characters (dots and slashes too), `?` is one, `[abc]` and `[!abc]` are sets, a leading `!` negates. These are the rules of
`fnmatch.fnmatchcase`, which Prefect uses, matched in time linear in pattern and value: stars are never nested, each
piece between two stars is searched for once, left to right.

Called by `triggers.matching.filters` and `triggers.matching.index`. Meaning: docs/rules.md, "Globs".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

__all__ = ["Glob", "GlobKind", "any_of", "compile_glob"]

_SPECIAL = re.compile(r"[*?\[]")


class GlobKind(StrEnum):
    """The form of a glob, most selective first."""

    EXACT = "exact"  #: the text is `literal`
    PREFIX = "prefix"  #: it starts with `literal`
    SUFFIX = "suffix"  #: it ends with `literal`
    OTHER = "other"  #: it starts with `literal` (may be empty) and more
    ANY = "any"  #: everything matches
    NOT = "not"  #: negated


@dataclass(frozen=True, slots=True, kw_only=True)
class Glob:
    """A compiled glob. `matches` takes a text; a missing label never matches, negated or not."""

    text: str
    kind: GlobKind
    literal: str
    matches: Callable[[str], bool]


def compile_glob(text: str) -> Glob:
    """Compile one glob. Every text is a glob: an unclosed `[` stands for itself."""
    if text.startswith("!"):
        inner = compile_glob_body(text[1:])
        return Glob(text=text, kind=GlobKind.NOT, literal="", matches=partial(_negate, inner.matches))
    return compile_glob_body(text)


def compile_glob_body(text: str) -> Glob:
    """Compile a glob without a leading `!`."""
    if not _SPECIAL.search(text):
        return Glob(text=text, kind=GlobKind.EXACT, literal=text, matches=text.__eq__)
    pieces = _pieces(text)
    if pieces == ["", ""]:
        return Glob(text=text, kind=GlobKind.ANY, literal="", matches=_always)
    if all(isinstance(piece, str) for piece in pieces):
        literals = [piece for piece in pieces if isinstance(piece, str)]
        if len(literals) == 1:
            return Glob(text=text, kind=GlobKind.EXACT, literal=literals[0], matches=literals[0].__eq__)
        if len(literals) == 2 and not literals[1]:
            prefix = literals[0]
            return Glob(text=text, kind=GlobKind.PREFIX, literal=prefix, matches=partial(_starts, prefix))
        if len(literals) == 2 and not literals[0]:
            suffix = literals[1]
            return Glob(text=text, kind=GlobKind.SUFFIX, literal=suffix, matches=partial(_ends, suffix))
    first = pieces[0]
    return Glob(
        text=text,
        kind=GlobKind.OTHER,
        literal=first if isinstance(first, str) else _literal_head(text),
        matches=partial(_general, tuple(pieces)),
    )


def any_of(globs: Sequence[Glob]) -> Callable[[str], bool]:
    """One test for "any of these globs matches"."""
    if any(glob.kind is GlobKind.ANY for glob in globs):
        return _always
    if len(globs) == 1:
        return globs[0].matches
    if all(glob.kind is GlobKind.EXACT for glob in globs):
        return frozenset(glob.literal for glob in globs).__contains__
    return partial(_any, tuple(glob.matches for glob in globs))


def _always(text: str) -> bool:
    return True


def _negate(matches: Callable[[str], bool], text: str) -> bool:
    return not matches(text)


def _starts(prefix: str, text: str) -> bool:
    return text.startswith(prefix)


def _ends(suffix: str, text: str) -> bool:
    return text.endswith(suffix)


def _any(tests: tuple[Callable[[str], bool], ...], text: str) -> bool:
    return any(test(text) for test in tests)


class _Piece:
    """Characters between two stars that hold `?` or sets: a pattern of fixed length."""

    __slots__ = ("length", "pattern")

    def __init__(self, source: str, length: int) -> None:
        self.pattern = re.compile(source, re.DOTALL)
        self.length = length


def _pieces(text: str) -> list[str | _Piece]:
    """The parts between the stars; consecutive stars count as one."""
    pieces: list[str | _Piece] = []
    literal: list[str] = []
    source: list[str] = []
    length = 0
    special = False
    index = 0
    while index <= len(text):
        char = text[index] if index < len(text) else "*"
        if char == "*":
            if index < len(text) and pieces and not source and text[index - 1] == "*":
                index += 1
                continue
            pieces.append(_Piece("".join(source), length) if special else "".join(literal))
            literal, source, length, special = [], [], 0, False
            index += 1
            continue
        if char == "?":
            source.append(".")
            special = True
        elif char == "[" and (end := _set_end(text, index)) > 0:
            source.append(_set_source(text[index : end + 1]))
            special = True
            index = end
        else:
            literal.append(char)
            source.append(re.escape(char))
        length += 1
        index += 1
    return pieces


def _set_end(text: str, start: int) -> int:
    """Where the set that opens at `start` closes, or -1. A `]` right after `[` or `[!` is a member."""
    index = start + 1
    if index < len(text) and text[index] == "!":
        index += 1
    if index < len(text) and text[index] == "]":
        index += 1
    return text.find("]", index)


def _set_source(text: str) -> str:
    """The regular expression of one set, `[...]`, as `fnmatch` reads it."""
    return fnmatch.translate(text).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(r")\z")


def _literal_head(text: str) -> str:
    found = _SPECIAL.search(text)
    return text[: found.start()] if found else text


def _general(pieces: tuple[str | _Piece, ...], text: str) -> bool:
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return isinstance(first, _Piece) and len(text) == first.length and first.pattern.match(text) is not None
    start = first.length if isinstance(first, _Piece) else len(first)
    end = len(text) - (last.length if isinstance(last, _Piece) else len(last))
    if end < start or not _at(first, text, 0) or not _at(last, text, end):
        return False
    for piece in pieces[1:-1]:
        if isinstance(piece, _Piece):
            found = piece.pattern.search(text, start, end)
            if found is None:
                return False
            start = found.end()
        else:
            at = text.find(piece, start, end)
            if at < 0:
                return False
            start = at + len(piece)
    return True


def _at(piece: str | _Piece, text: str, position: int) -> bool:
    if isinstance(piece, _Piece):
        return piece.pattern.match(text, position) is not None
    return text.startswith(piece, position)
