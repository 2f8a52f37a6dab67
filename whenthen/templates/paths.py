"""JSONPath: values of a JSON document by path, with their types kept.

Called by `templates.values`, and by the rooms that read keys and values of events. Plain paths (`$.a.b[0]['c d']`) are
followed here, for speed; all others by `path_query`, which counts the values that it visits.
Meaning: RFC 9535 and docs/templates.md, "Paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from whenthen.schemas.errors import RenderError
from whenthen.templates.budget import MAX_VISITS, Budget
from whenthen.templates.environment import present
from whenthen.templates.path_parser import MAX_PATH, parse_path
from whenthen.templates.path_query import MAX_MATCHES, Index, Name, Query, Search, Segment, follow

__all__ = ["MAX_MATCHES", "MAX_PATH", "MAX_VISITS", "Path", "compile_path", "spell_step"]

_NAME = re.compile(r"\.([^\W\d][\w-]*)")
#: what a quoted name can not have as it is
_QUOTED = re.compile(r"[\x00-\x1f'\\]")


class Path:
    """A compiled path. `text` is how it was written."""

    __slots__ = ("_query", "reads_root", "steps", "text")

    def __init__(self, text: str, steps: tuple[str | int, ...], query: Query | None) -> None:
        self.text = text
        self.steps = steps  #: keys and indexes from the root; of an indefinite path those before the first other step
        self.reads_root = not steps or "$" in text[1:]  #: it may read more than what is below its first step
        self._query = query  #: None when it can match at most once

    def find(self, root: Any) -> list[Any]:
        """All matches in document order; none is an empty list."""
        if self._query is not None:
            return self._search(self._query, root)
        for step in self.steps:
            try:
                root = follow(root, step)
            except LookupError:
                return []
        return [root]

    def one(self, root: Any, budget: Budget | None = None) -> Any:
        """The value of a definite path; the list of all matches of an indefinite one, charged to `budget`.

        Raises:
            RenderError: a definite path does not exist in `root`; names the first missing step and what is there.
        """
        if self._query is not None:
            return self._search(self._query, root, budget)
        node = root
        for step in self.steps:
            if type(node) is dict and step in node and type(step) is str:
                node = node[step]  # by far the most common step, without a call
                continue
            try:
                node = follow(node, step)
            except LookupError:
                raise RenderError(self._missing(root)) from None
        return node

    def _search(self, query: Query, root: Any, budget: Budget | None = None) -> list[Any]:
        search = Search(root, MAX_VISITS if budget is None else budget.visits)
        try:
            matches = query.find(root, search)
        except RecursionError:
            raise RenderError(f"{self.text}: the document is nested too deep for this path") from None
        except RenderError as error:
            raise RenderError(f"{self.text}: {error}") from None
        finally:
            if budget is not None:
                budget.visits = search.left
        if len(matches) > MAX_MATCHES:
            raise RenderError(f"{self.text}: {len(matches)} matches; at most {MAX_MATCHES} are allowed")
        return matches

    def _missing(self, root: Any) -> str:
        walked = "$"
        for step in self.steps:
            try:
                root = follow(root, step)
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
    query = parse_path(text)
    if query.steps is not None:
        return Path(text, query.steps, None)
    known: list[str | int] = []
    for segment in query.segments:
        match segment:
            case Segment(selectors=(Name(name=step),), descends=False):
                known.append(step)
            case Segment(selectors=(Index(index=number),), descends=False):
                known.append(number)
            case _:
                break
    return Path(text, tuple(known), query)


def spell_step(step: str | int) -> str:
    """One step as it is written in a path."""
    if isinstance(step, int):
        return f"[{step}]"
    if _NAME.fullmatch(f".{step}"):
        return f".{step}"
    return "['" + _QUOTED.sub(_escape, step) + "']"


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}" if match[0] < " " else "\\" + match[0]


def _absent(node: Any, step: str | int, walked: str) -> str:
    if isinstance(node, Mapping):
        return f"no {str(step)!r} in {walked}; {present(node)}"
    if isinstance(node, (list, tuple)):
        if isinstance(step, int):
            return f"no [{step}] in {walked}, a list of {len(node)}"
        return f"{walked} is a list of {len(node)}, it has no {step!r}; take an item with [0] or all with [*]"
    kind = "null" if node is None else {str: "text", bool: "a boolean"}.get(type(node), "a number")
    return f"{walked} is {kind}, it has no {str(step)!r}"
