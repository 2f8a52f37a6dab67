"""Which value does a provider's path or template find in a request, if any? Compiled once; what is missing is None and no error. Pure.

Called by `sources.provider_mapping`. Plain paths and templates of plain names, as nearly all are, are looked up directly; everything
else is rendered by `templates`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from whenthen.schemas.errors import FieldPath, RenderError
from whenthen.schemas.providers import After
from whenthen.sources.labels import label_of
from whenthen.templates import compile_value

__all__ = ["CompiledPick"]

Context = dict[str, Any]
Read = Callable[[Context], Any]

_PLAIN_PATH = re.compile(r"\$((?:\.[A-Za-z_][A-Za-z0-9_-]*)+)")
_PLAIN_NAME = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\s*\}\}", re.ASCII)


class CompiledPick:
    """The first of its alternatives that is there. `path` is where it reads, `headers` which headers.

    Raises:
        InvalidInput: a path or template is wrong, or reads a name that is not known.
    """

    __slots__ = ("_reads", "constant", "headers", "names", "path", "value")

    def __init__(self, alternatives: Sequence[str | After], known: Collection[str], where: FieldPath) -> None:
        self.headers: set[str] = set()
        self.names: set[str] = set()  #: variables that it reads
        self.path: FieldPath = where
        self.constant: str | None = None
        self._reads: list[Read] = []
        for place, given in enumerate(alternatives):
            inside = where if len(alternatives) == 1 else (*where, place)
            text = given.of if isinstance(given, After) else given
            read = self._compile(text, known, inside, first=place == 0)
            self._reads.append(read if isinstance(given, str) else _after(read, given.after))
        if len(alternatives) == 1 and not self.names and isinstance(alternatives[0], str):
            self.constant = self._reads[0]({})
        #: the value; None or an empty text when nothing is there. Called for every label, so nothing stands between
        self.value: Read = self._reads[0] if len(self._reads) == 1 else self._first

    def _first(self, context: Context) -> Any:
        for read in self._reads:
            found = read(context)
            if found is not None and found != "":
                return found
        return None

    def _compile(self, text: str, known: Collection[str], where: FieldPath, *, first: bool) -> Read:
        value = compile_value(text, known=known, known_steps=known, path=where)
        self.names |= value.names_used | {str(step) for step in value.steps_used}
        if value.reads_root:
            self.names |= set(known)
        plain = _PLAIN_PATH.fullmatch(text)
        if plain is not None:
            keys = tuple(plain[1][1:].split("."))
            self._note(keys, first=first)
            return _dig(keys)
        parts = _PLAIN_NAME.split(text)
        rest = "".join(parts[::2])
        if len(parts) > 1 and not any(mark in rest for mark in ("{{", "{%", "{#", "}}")):
            paths = [tuple(part.split(".")) for part in parts[1::2]]
            for keys in paths:
                self._note(keys, first=first)
            return _text(parts[::2], [_dig(keys) for keys in paths])
        if not value.names_used and not value.steps_used and not value.reads_root:
            constant = value.render({})
            return lambda context: constant

        def render(context: Context) -> Any:
            try:
                return value.render(context)
            except RenderError:
                return None

        return render

    def _note(self, keys: tuple[str, ...], *, first: bool) -> None:
        if keys[0] == "headers" and len(keys) > 1:
            self.headers.add(keys[1])
        if first:
            self.path = keys


def _dig(keys: tuple[str, ...]) -> Read:
    if len(keys) == 3:  # most paths; written out, as the loop takes twice as long
        root, field, inner = keys

        def read_two(context: Context) -> Any:
            value = context.get(root)
            if type(value) is not dict:
                return None
            value = value.get(field)
            return value.get(inner) if type(value) is dict else None

        return read_two

    def read(context: Context) -> Any:
        value: Any = context
        for key in keys:
            if type(value) is not dict:
                return None
            value = value.get(key)
        return value

    return read


def _text(literals: Sequence[str], reads: Sequence[Read]) -> Read:
    """A text around single values; nothing when one of them is missing or blank."""
    begin, *after = literals
    if len(reads) == 1:  # as nearly all are
        only, end = reads[0], after[0]

        def read_one(context: Context) -> str | None:
            value = only(context)
            if value is None:
                return None
            text = value if type(value) is str else label_of(value)
            return f"{begin}{text}{end}" if text and not text.isspace() else None

        return read_one

    def read(context: Context) -> str | None:
        parts = [begin]
        for inner, literal in zip(reads, after, strict=True):
            value = inner(context)
            if value is None:
                return None
            text = value if type(value) is str else label_of(value)
            if not text or not text.strip():
                return None
            parts += text, literal
        return "".join(parts)

    return read


def _after(inner: Read, begin: str) -> Read:
    def read(context: Context) -> str | None:
        value = inner(context)
        return value[len(begin) :] if isinstance(value, str) and value.startswith(begin) else None

    return read
