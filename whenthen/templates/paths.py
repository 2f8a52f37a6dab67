"""JSONPath: values of a JSON document by path, with their types kept.

Called by `templates.values`, and by the rooms that read keys and values of events. Plain paths (`$.a.b[0]['c d']`) are
evaluated here, for speed; wildcards, slices, unions, filters and one recursive descent go to jsonpath-ng.
Meaning: RFC 9535 and docs/templates.md, "Paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.ext.parser import parse

from whenthen.schemas import InvalidTemplate, RenderError
from whenthen.templates.environment import present

__all__ = ["MAX_PATH", "Path", "compile_path"]

#: characters of a path
MAX_PATH = 4096
#: steps of a path
MAX_STEPS = 64
#: matches that one path may give
MAX_MATCHES = 100_000

_NAME = re.compile(r"\.([^\W\d][\w-]*)")
_INDEX = re.compile(r"\[\s*(-?\d{1,9})\s*\]")
_QUOTED = re.compile(r"""\[\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*\]""", re.DOTALL)
_WILD = re.compile(r"\.\*|\.\.(?:[^\W\d][\w-]*|\*|(?=\[))")
_SELECTOR = re.compile(r"\[\s*['\"?*:\d-]")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", "'": "'", '"': '"'}


class Path:
    """A compiled path. `text` is how it was written."""

    __slots__ = ("_general", "steps", "text")

    def __init__(self, text: str, steps: tuple[str | int, ...], general: Any) -> None:
        self.text = text
        self.steps = steps  #: keys and indexes from the root; of an indefinite path those before the first other step
        self._general = general

    def find(self, root: Any) -> list[Any]:
        """All matches in document order; none is an empty list."""
        if self._general is not None:
            return self._search(root)
        for step in self.steps:
            try:
                root = _follow(root, step)
            except LookupError:
                return []
        return [root]

    def one(self, root: Any) -> Any:
        """The value of a definite path; the list of all matches of an indefinite one.

        Raises:
            RenderError: a definite path does not exist in `root`; names the first missing step and what is there.
        """
        if self._general is not None:
            return self._search(root)
        node = root
        for step in self.steps:
            if type(node) is dict and step in node and type(step) is str:
                node = node[step]  # by far the most common step, without a call
                continue
            try:
                node = _follow(node, step)
            except LookupError:
                raise RenderError(self._missing(root)) from None
        return node

    def _search(self, root: Any) -> list[Any]:
        try:
            matches = [match.value for match in self._general.find(root)]
        except RecursionError:
            raise RenderError(f"{self.text}: the document is nested too deep for this path") from None
        except (JSONPathError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise RenderError(f"{self.text}: can not be followed here: {str(error)[:200]}") from None
        if len(matches) > MAX_MATCHES:
            raise RenderError(f"{self.text}: {len(matches)} matches; at most {MAX_MATCHES} are allowed")
        return matches

    def _missing(self, root: Any) -> str:
        walked = "$"
        for step in self.steps:
            try:
                root = _follow(root, step)
            except LookupError:
                return f"{self.text}: {_absent(root, step, walked)}"
            walked += spell_step(step)
        return self.text

    def __repr__(self) -> str:
        return f"Path({self.text!r})"


def compile_path(text: str) -> Path:
    """Compile a JSONPath.

    Raises:
        InvalidTemplate: it is not a path; names the column, counted from 1.
    """
    if not text.startswith("$"):
        raise InvalidTemplate(f"column 1: a path starts with $, found {text[:40]!r}; write $.payload.name")
    if len(text) > MAX_PATH:
        raise InvalidTemplate(f"a path of {len(text)} characters; at most {MAX_PATH} are allowed")
    steps: list[str | int] = []
    at, plain, count, descents, unions = 1, True, 0, 0, 0
    while at < len(text):
        count += 1
        if match := _NAME.match(text, at):
            step: str | int = match[1]
        elif match := _INDEX.match(text, at):
            step = int(match[1])
        elif match := _QUOTED.match(text, at):
            step = _unquote(match[1] if match[1] is not None else match[2], at + 1)
        elif match := _WILD.match(text, at):
            plain = False
            descents += match[0].startswith("..")
        elif text[at] == "[":
            plain = False
            at, union = _end_of_bracket(text, at)
            unions += union
            continue
        else:
            raise _malformed(text, at)
        if plain:
            steps.append(step)
        at = match.end()
    if count > MAX_STEPS:
        raise InvalidTemplate(f"{text[:40]!r} has {count} steps; at most {MAX_STEPS} are allowed")
    if descents > 1:
        raise InvalidTemplate(f"{text!r} descends twice (..); one recursive descent is allowed, name the steps instead")
    if unions > 2:
        raise InvalidTemplate(f"{text!r} has {unions} unions ([a, b]); at most two are allowed")
    return Path(text, tuple(steps), None if plain else _general(text))


def _general(text: str) -> Any:
    try:
        return parse(text)
    except JSONPathError as error:
        column = getattr(error, "column", None)
        raise InvalidTemplate(f"column {(column or 0) + 1}: {text!r} is not a path: {str(error)[:200]}") from None
    except RecursionError:
        raise InvalidTemplate(f"{text[:40]!r} is nested too deep") from None
    except Exception as error:
        raise InvalidTemplate(f"column 1: {text!r} is not a path: {str(error)[:200]}") from error


def _end_of_bracket(text: str, start: int) -> tuple[int, bool]:
    """The end of the bracket that opens at `start`, and whether it is a union. Refuses expressions whose cost is not bounded."""
    if not _SELECTOR.match(text, start):
        raise InvalidTemplate(f"column {start + 2}: {text!r}: a name in brackets needs quotes: ['name']")
    depth, quote, at, union = 0, "", start, False
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
            if depth == 0:
                return at + 1, union
        elif char == ",":
            union = True
        elif char in "&|":
            if text[at + 1 : at + 2] != char:
                raise InvalidTemplate(f"column {at + 1}: {text!r}: write {char * 2} in a filter")
            at += 1
        elif char == "`" or text.startswith(("=~", ".."), at) or char == "$":
            raise InvalidTemplate(
                f"column {at + 1}: {text!r}: regular expressions, functions, descents and other roots"
                " are not supported in brackets; use a condition (when)"
            )
        at += 1
    raise InvalidTemplate(f"column {start + 1}: {text!r}: the bracket is not closed")


def _malformed(text: str, at: int) -> InvalidTemplate:
    rest = text[at : at + 20]
    if re.match(r"\.\d", rest):
        hint = "an index is [0], a key that starts with a digit ['0']"
    elif text[at] == "." and len(rest) == 1:
        hint = "a name is missing after the dot"
    else:
        hint = "write .name, [0] or ['any text']; text that is not a path starts with $$"
    return InvalidTemplate(f"column {at + 1}: {text!r}: unexpected {rest!r}; {hint}")


def _unquote(text: str, column: int) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "u" and len(code) == 5:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise InvalidTemplate(f"column {column + match.start() + 2}: unknown escape \\{code}")
        return _ESCAPES[code]

    if "\\" not in text:
        return text
    try:
        return _ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise InvalidTemplate(f"column {column}: an escape is half of a surrogate pair") from None


def _follow(node: Any, step: str | int) -> Any:
    if isinstance(step, str):
        if isinstance(node, (dict, Mapping)):
            return node[step]
    elif isinstance(node, (list, tuple)):
        return node[step]
    raise LookupError(step)


def spell_step(step: str | int) -> str:
    """One step as it is written in a path."""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _NAME.fullmatch(f".{step}") else "['" + step.replace("\\", "\\\\").replace("'", "\\'") + "']"


def _absent(node: Any, step: str | int, walked: str) -> str:
    if isinstance(node, Mapping):
        return f"no {str(step)!r} in {walked}; {present(node)}"
    if isinstance(node, (list, tuple)):
        if isinstance(step, int):
            return f"no [{step}] in {walked}, a list of {len(node)}"
        return f"{walked} is a list of {len(node)}, it has no {step!r}; take an item with [0] or all with [*]"
    kind = "null" if node is None else {str: "text", bool: "a boolean"}.get(type(node), "a number")
    return f"{walked} is {kind}, it has no {str(step)!r}"
