"""The functions of filters in JSONPath: `length`, `count`, `value`, `match` and `search`.

Called through `path_parser`. Meaning: RFC 9535, 2.4, and for the regular expressions RFC 9485, matched by RE2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from whenthen.templates.path_query import NOTHING, Search

__all__ = ["FUNCTIONS", "Function"]

#: compiling an expression, once in a search: whether it is in the cache of this process makes no difference
_VISITS_PER_PATTERN = 5_000
_MAX_PATTERN = 1_000  #: characters of an expression; a longer one matches nothing
_PATTERN_BYTES = 262_144  #: memory of RE2 for one expression


@dataclass(frozen=True, slots=True)
class Function:
    run: Callable[..., Any]
    takes: int  #: arguments
    nodes: bool = False  #: its argument is a list of matches
    logical: bool = False  #: its result is a test, not a value


def _length(search: Search, value: Any) -> Any:
    return len(value) if isinstance(value, (str, list, tuple, dict, Mapping)) else NOTHING


def _count(search: Search, nodes: list[Any]) -> int:
    return len(nodes)


def _value(search: Search, nodes: list[Any]) -> Any:
    return nodes[0] if len(nodes) == 1 else NOTHING


def _match(search: Search, value: Any, pattern: Any) -> bool:
    return _found(search, value, pattern, whole=True)


def _search(search: Search, value: Any, pattern: Any) -> bool:
    return _found(search, value, pattern, whole=False)


def _found(search: Search, value: Any, pattern: Any, *, whole: bool) -> bool:
    if not isinstance(value, str) or not isinstance(pattern, str) or len(pattern) > _MAX_PATTERN:
        return False
    search.visit(1)
    if pattern not in search.patterns:
        search.visit(_VISITS_PER_PATTERN)
        search.patterns.add(pattern)
    compiled = _compile(pattern, whole)
    if compiled is None:
        return False
    size = int(compiled.programsize)
    search.visit(len(value) * (8 + size + max(0, size - 128)) >> 7)
    try:
        return compiled.search(value) is not None
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=128)
def _compile(pattern: str, whole: bool) -> Any:
    options = re2.Options()
    options.max_mem = _PATTERN_BYTES
    options.log_errors = False
    options.never_capture = True
    source = _dots(pattern)
    try:
        return re2.compile(rf"\A(?:{source})\z" if whole else source, options=options)
    except (re2.error, UnicodeEncodeError):
        return None


def _dots(pattern: str) -> str:
    """The expression as RE2 reads it: a dot is any character but line feed and carriage return."""
    written: list[str] = []
    escaped = in_class = False
    for char in pattern:
        if not escaped and not in_class and char == ".":
            written.append(r"[^\n\r]")
            continue
        if not escaped and char in "[]":
            in_class = char == "["
        escaped = not escaped and char == "\\"
        written.append(char)
    return "".join(written)


FUNCTIONS = {
    "length": Function(_length, 1),
    "count": Function(_count, 1, nodes=True),
    "value": Function(_value, 1, nodes=True),
    "match": Function(_match, 2, logical=True),
    "search": Function(_search, 2, logical=True),
}
