"""YAML text as plain data, with the place of everything at hand.

Called by `folder` for each file: once for the data alone, which is fast, and a second time with places for a file that
has a problem to point at. Works on the event stream of libyaml and not on PyYAML's constructors: nothing recurses, so
nesting can be bounded; aliases are shared and their expanded size is counted; a key that comes twice is seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from yaml import MarkedYAMLError, YAMLError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from whenthen.rules.reading.scalars import SPECIAL_START, WORDS, describe, number, short
from whenthen.schemas.errors import FieldPath

__all__ = ["MAX_DEPTH", "MAX_EXPANDED", "MAX_FILE_BYTES", "MAX_VALUES", "Document", "Fault", "Places", "read_document"]

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_VALUES = 1_000_000  #: of one file
MAX_PLACES = 300_000  #: values whose places are known; what comes behind is found at the nearest one before
MAX_DEPTH = 100  #: lists and mappings inside one another
MAX_EXPANDED = 100_000  #: values that the aliases of one file may stand for

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_KEY = object()
_MERGE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something wrong with the text itself. Line and column count from 1."""

    line: int
    column: int
    detail: str
    path: FieldPath = ()
    twice: bool = False  #: a key stands twice, and the last one was taken


@dataclass(slots=True)
class Places:
    """Where each path was written: `(line, column)` of its value, of its key, and its plain scalar as it was spelt."""

    values: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    spelling: dict[FieldPath, str] = field(default_factory=dict)

    def value(self, path: FieldPath) -> tuple[int, int]:
        """The place of the value at `path`, or of the nearest thing around it that was written."""
        for end in range(len(path), -1, -1):
            if (place := self.values.get(path[:end])) is not None:
                return place
        return (1, 1)

    def key(self, path: FieldPath) -> tuple[int, int]:
        """The place of the key that ends `path`."""
        return self.keys.get(path) or self.value(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says. `broken` means that reading stopped early and `data` is what came before; `too_large` that it did so
    because there is too much."""

    data: Any
    faults: tuple[Fault, ...]
    broken: bool = False
    too_large: bool = False


class _Stop(Exception):
    """Reading can not go on."""

    too_large = False

    def __init__(self, mark: Any, detail: str, path: FieldPath = ()) -> None:
        super().__init__(detail)
        self.fault = _fault(mark, detail, path)


class _TooLarge(_Stop):
    """There are too many values."""

    too_large = True


class _Frame:
    """An open list or mapping."""

    __slots__ = ("anchor", "height", "items", "key", "key_mark", "mapping", "mark", "merged", "path", "start")

    def __init__(self, items: Any, mapping: bool, anchor: str | None, start: int, path: FieldPath, mark: Any) -> None:
        self.items = items
        self.mapping = mapping
        self.anchor = anchor
        self.start = start  #: how many values had been read when it opened
        self.path = path
        self.mark = mark
        self.height = 1
        self.key: Any = _NO_KEY
        self.key_mark: Any = None
        self.merged: list[Any] | None = None


def read_document(raw: bytes, places: Places | None = None) -> Document:
    """Read the one YAML document in `raw`; an empty one gives None. Fills `places` when it is given.

    Never raises for bad text: what is wrong comes back as faults, in the order of the text.
    """
    if len(raw) > MAX_FILE_BYTES:
        detail = f"the file has {len(raw)} bytes; at most {MAX_FILE_BYTES} are read, split it"
        return _refused(Fault(line=1, column=1, detail=detail))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        byte = raw[error.start] if error.start < len(raw) else 0
        return _refused(
            Fault(line=line, column=column, detail=f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8")
        )
    if found := _UNPRINTABLE.search(text):
        line, column = text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start())
        detail = f"control character U+{ord(found[0]):04X} is not allowed in YAML; remove it"
        return _refused(Fault(line=line, column=column, detail=detail))
    reader = _Reader(text, places)
    try:
        reader.run()
    except _Stop as stop:
        faults = (*reader.faults, stop.fault)
        return Document(data=reader.data, faults=faults, broken=True, too_large=stop.too_large)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fault = _fault(mark, _syntax_message(text, mark, error))
        return Document(data=reader.data, faults=(*reader.faults, fault), broken=True)
    except YAMLError as error:
        fault = Fault(line=1, column=1, detail=f"not YAML: {error}")
        return Document(data=reader.data, faults=(*reader.faults, fault), broken=True)
    return Document(data=reader.data, faults=tuple(reader.faults))


class _Reader:
    """One pass over the events of one text."""

    def __init__(self, text: str, places: Places | None) -> None:
        self.data: Any = None
        self.faults: list[Fault] = []
        self._parser = CParser(text)
        self._places = places
        self._anchors: dict[str, tuple[Any, int, int]] = {}  #: value, how many values it is, how deep it is
        self._open: set[str] = set()
        self._count = 0
        self._expanded = 0
        self._stack: list[_Frame] = []

    def run(self) -> None:
        """Read all events. The hot loop: plain text scalars in a mapping or list pass through the first branch only."""
        next_event: Any = self._parser.get_event
        stack = self._stack
        special = SPECIAL_START
        places = self._places
        limit = MAX_VALUES if places is None else MAX_PLACES
        documents = 0
        while (event := next_event()) is not None:
            kind = type(event)
            if kind is ScalarEvent:
                self._count += 1
                if self._count > limit:
                    if places is None or self._count > MAX_VALUES:
                        detail = f"the file has more than {MAX_VALUES} values; split it"
                        raise _TooLarge(event.start_mark, detail)
                    self._places = places = None
                    limit = MAX_VALUES
                value: Any = event.value
                if event.tag is not None:
                    self._refuse_tag(event)
                if event.implicit[0] and (not value or value[0] in special):
                    value = self._resolve(event)
                if event.anchor is not None:
                    self._anchors[event.anchor] = (value, 1, 0)
                if not stack:
                    self.data = value
                    if places is not None:
                        places.values[()] = _position(event.start_mark)
                    continue
                top = stack[-1]
                if places is not None and (not top.mapping or top.key is not _NO_KEY):
                    path = self._path()
                    places.values[path] = _position(event.start_mark)
                    if event.implicit[0]:
                        places.spelling[path] = event.value
                if not top.mapping:
                    top.items.append(value)
                elif top.key is not _NO_KEY:
                    self._put(top, value)
                elif type(value) is str and value != "<<":
                    if value in top.items:
                        self._twice(top, value, event)
                    top.key = value
                    if places is not None:
                        places.keys[(*top.path, value)] = _position(event.start_mark)
                else:
                    self._odd_key(top, value, event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self._enter(event, kind is MappingStartEvent)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._leave()
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                documents += 1
                if documents > 1:
                    detail = "a second document starts here; a rules file has one, put the rest into another file"
                    raise _Stop(event.start_mark, detail)

    def _path(self) -> FieldPath:
        top = self._stack[-1]
        if not top.mapping:
            return (*top.path, len(top.items))
        return (*top.path, top.key if type(top.key) is str else "<<")

    def _put(self, top: _Frame, value: Any) -> None:
        if top.key is _MERGE:
            self._merge(top, value)
        else:
            top.items[top.key] = value
        top.key = _NO_KEY

    def _enter(self, event: Any, mapping: bool) -> None:
        stack = self._stack
        path: FieldPath = ()
        if event.tag is not None:
            self._refuse_tag(event)
        if stack:
            top = stack[-1]
            if top.mapping and top.key is _NO_KEY:
                raise _Stop(event.start_mark, "a list or mapping can not be a key; keys are text", top.path)
            if self._places is not None:
                path = self._path()
        if len(stack) >= MAX_DEPTH:
            raise _Stop(event.start_mark, f"nested more than {MAX_DEPTH} deep; flatten it", path)
        items: Any = {} if mapping else []
        if not stack:
            self.data = items
        self._count += 1
        if event.anchor is not None:
            self._open.add(event.anchor)
            self._anchors.pop(event.anchor, None)
        if self._places is not None:
            self._places.values[path] = _position(event.start_mark)
        stack.append(_Frame(items, mapping, event.anchor, self._count - 1, path, event.start_mark))

    def _leave(self) -> None:
        frame = self._stack.pop()
        if frame.merged is not None:
            for source in frame.merged:
                for key, value in source.items():
                    frame.items.setdefault(key, value)
        if frame.anchor is not None:
            self._open.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.items, self._count - frame.start, frame.height)
        if not self._stack:
            return
        top = self._stack[-1]
        if frame.height >= top.height:
            top.height = frame.height + 1
        if top.mapping:
            self._put(top, frame.items)
        else:
            top.items.append(frame.items)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        top = self._stack[-1] if self._stack else None
        if name in self._open:
            raise _Stop(event.start_mark, f"*{name} contains itself; write the values out", self._where(top))
        if name not in self._anchors:
            raise _Stop(
                event.start_mark, f"*{name} names no anchor; put &{name} before the value meant", self._where(top)
            )
        if top is None:
            raise _Stop(event.start_mark, f"*{name} stands alone; write the value itself")
        value, size, height = self._anchors[name]
        if top.mapping and top.key is _NO_KEY:
            raise _Stop(event.start_mark, f"*{name} can not be a key; write the text itself", top.path)
        self._count += size
        self._expanded += size
        if self._expanded > MAX_EXPANDED:
            detail = f"aliases stand for more than {MAX_EXPANDED} values in this file; write fewer or smaller ones"
            raise _Stop(event.start_mark, detail, self._where(top))
        if len(self._stack) + height > MAX_DEPTH:
            raise _Stop(
                event.start_mark, f"*{name} nests more than {MAX_DEPTH} deep here; flatten it", self._where(top)
            )
        if height >= top.height:
            top.height = height + 1
        if self._places is not None:
            self._places.values[self._path()] = _position(event.start_mark)
        if top.mapping:
            self._put(top, value)
        else:
            top.items.append(value)

    def _where(self, top: _Frame | None) -> FieldPath:
        if top is None or self._places is None:
            return ()
        return top.path if top.mapping and top.key is _NO_KEY else self._path()

    def _merge(self, top: _Frame, value: Any) -> None:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self._add(top.key_mark, "`<<` takes a mapping or a list of mappings, as in `<<: *defaults`", top.path)
            return
        top.merged = [*(top.merged or []), *sources]

    def _twice(self, top: _Frame, key: str, event: Any) -> None:
        where = ""
        if self._places is not None:
            first = self._places.keys.get((*top.path, key))
            where = f" (first in line {first[0]})" if first else ""
        detail = f"the key {short(key)} comes twice in this mapping{where}; remove one"
        self._add(event.start_mark, detail, (*top.path, key), twice=True)

    def _odd_key(self, top: _Frame, value: Any, event: Any) -> None:
        top.key_mark = event.start_mark
        if value == "<<" and event.implicit[0]:
            top.key = _MERGE
            return
        key = event.value
        if not isinstance(value, str):
            self._add(
                event.start_mark, f"the key {key or '(nothing)'} reads as {describe(value)}; put it in quotes", top.path
            )
        top.key = key
        if self._places is not None:
            self._places.keys[(*top.path, key)] = _position(event.start_mark)

    def _resolve(self, event: Any) -> Any:
        value: str = event.value
        if value in WORDS:
            return WORDS[value]
        if value[0] in "+-.0123456789":
            try:
                return number(value)
            except ValueError as error:
                self._add(event.start_mark, str(error), self._where(self._stack[-1] if self._stack else None))
        return value

    def _refuse_tag(self, event: Any) -> None:
        tag = short(event.tag.replace("tag:yaml.org,2002:", "!!"))
        self._add(event.start_mark, f"the tag {tag} is not used here; remove it, and put text in quotes", ())

    def _add(self, mark: Any, detail: str, path: FieldPath, *, twice: bool = False) -> None:
        if len(self.faults) < 1000:
            self.faults.append(replace(_fault(mark, detail, path), twice=twice))


def _syntax_message(text: str, mark: Any, error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "can not be read")
    if mark is not None:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        if line[mark.column : mark.column + 1] == "\t" or (
            not line[: mark.column].strip() and "\t" in line[: mark.column + 1]
        ):
            return "not YAML: a tab; indent with spaces"
        found = line[mark.column : mark.column + 1]
        bracket = _bracket_message(found, error)
        if bracket:
            return f"not YAML: {bracket}"
        if found and found in "*&!|>%@`{[":
            return f"not YAML: {problem}, at {found}; text that starts or contains such a character needs quotes"
    context = f" ({error.context})" if error.context and error.problem else ""
    return f"not YAML: {problem}{context}; check the indentation, colons and quotes here"


def _bracket_message(found: str, error: MarkedYAMLError) -> str:
    """What is wrong with the brackets, where `found` is what the reader can not take; empty where it is something else."""
    opened = error.context_mark
    if opened is not None and str(error.context).startswith("while parsing a flow ") and found not in ("{", "["):
        opener, closer = "[]" if "sequence" in str(error.context) else "{}"
        line, column = _position(opened)
        missing = f"the {opener} of line {line}, column {column} is not closed"
        if found in ("]", "}"):
            return f"{missing} before this {found}; write {closer}, or put text that contains a bracket in quotes"
        return f"{missing} here; write {closer}, or a comma between two values"
    if found in ("]", "}"):
        return f"there is nothing open that this {found} closes; remove it, or put text that contains it in quotes"
    return ""


def _fault(mark: Any, detail: str, path: FieldPath = ()) -> Fault:
    line, column = _position(mark) if mark is not None else (1, 1)
    return Fault(line=line, column=column, detail=detail, path=path)


def _position(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _refused(fault: Fault) -> Document:
    return Document(data=None, faults=(fault,), broken=True)
