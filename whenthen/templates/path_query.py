"""Follows a parsed JSONPath: segments, selectors and filters, with a budget counted in visited values.

Built by `path_parser`, used by `paths`. Meaning: RFC 9535; the order of matches is that of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from whenthen.schemas.errors import RenderError
from whenthen.templates.budget import MAX_VISITS

__all__ = [
    "MAX_MATCHES",
    "AllOf",
    "AnyOf",
    "Call",
    "Comparison",
    "Each",
    "Expression",
    "Filter",
    "Index",
    "Literal",
    "Name",
    "Not",
    "Query",
    "Search",
    "Segment",
    "Selector",
    "Slice",
    "Wildcard",
    "follow",
]

#: matches that one path may give
MAX_MATCHES = 100_000

NOTHING: Final = object()  #: the value of a query without a match; equal to itself only


class Search:
    """One search below `root`, with the visits that are left."""

    __slots__ = ("left", "patterns", "root")

    def __init__(self, root: Any, left: int = MAX_VISITS) -> None:
        self.root = root
        self.left = left
        self.patterns: set[str] = set()  #: regular expressions that were paid for

    def visit(self, values: int) -> None:
        """Charge visits.

        Raises:
            RenderError: the budget is spent.
        """
        self.left -= values
        if self.left < 0:
            raise RenderError(
                f"the search visits more than {MAX_VISITS} values; name the steps instead of .. and *,"
                " or send the event with less data"
            )


# -- selectors


@dataclass(frozen=True, slots=True)
class Name:
    name: str

    def select(self, node: Any, search: Search) -> Iterable[Any]:
        return (node[self.name],) if isinstance(node, (dict, Mapping)) and self.name in node else ()


@dataclass(frozen=True, slots=True)
class Index:
    index: int

    def select(self, node: Any, search: Search) -> Iterable[Any]:
        inside = isinstance(node, (list, tuple)) and -len(node) <= self.index < len(node)
        return (node[self.index],) if inside else ()


@dataclass(frozen=True, slots=True)
class Wildcard:
    def select(self, node: Any, search: Search) -> Iterable[Any]:
        return children(node)


@dataclass(frozen=True, slots=True)
class Slice:
    start: int | None
    end: int | None
    step: int | None

    def select(self, node: Any, search: Search) -> Iterable[Any]:
        if not isinstance(node, (list, tuple)) or self.step == 0:
            return ()
        found: Iterable[Any] = node[self.start : self.end : self.step]
        return found


@dataclass(frozen=True, slots=True)
class Filter:
    condition: Expression

    def select(self, node: Any, search: Search) -> Iterable[Any]:
        found = children(node)
        search.visit(len(found))
        return [item for item in found if self.condition.holds(item, search)]


Selector = Name | Index | Wildcard | Slice | Filter


@dataclass(frozen=True, slots=True)
class Segment:
    selectors: tuple[Selector, ...]
    descends: bool


@dataclass(frozen=True, slots=True)
class Query:
    """Segments that start at the root (`$`) or, in a filter, at the value that is tested (`@`)."""

    from_root: bool
    segments: tuple[Segment, ...]
    steps: tuple[str | int, ...] | None  #: when it can match at most once: its names and indexes

    def find(self, node: Any, search: Search) -> list[Any]:
        """All matches, in document order."""
        nodes = [search.root if self.from_root else node]
        for segment in self.segments:
            if segment.descends:
                nodes = [below for node in nodes for below in _descend(node, search)]
            found: list[Any] = []
            for node in nodes:
                search.visit(1)
                for selector in segment.selectors:
                    selected = selector.select(node, search)
                    before = len(found)
                    found.extend(selected)
                    search.visit(len(found) - before)
            nodes = found
        return nodes

    def value(self, node: Any, search: Search) -> Any:
        """The value of a query that can match at most once, or `NOTHING`."""
        assert self.steps is not None
        search.visit(len(self.steps))
        node = search.root if self.from_root else node
        try:
            for step in self.steps:
                node = follow(node, step)
        except LookupError:
            return NOTHING
        return node

    def holds(self, node: Any, search: Search) -> bool:
        """Whether it matches anything."""
        if self.steps is not None:
            return self.value(node, search) is not NOTHING
        return bool(self.find(node, search))


def children(node: Any) -> Collection[Any]:
    """The values directly below a list or an object."""
    found: Collection[Any] = ()
    if isinstance(node, (list, tuple)):
        found = node
    elif isinstance(node, (dict, Mapping)):
        found = node.values()
    return found


def _descend(node: Any, search: Search) -> list[Any]:
    """The value and all below it, each before those below it."""
    found: list[Any] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple, dict, Mapping)):
            found.append(item)
            search.visit(1 + len(item))
            below = children(item)
            stack.extend(reversed(below) if isinstance(below, (list, tuple)) else reversed(list(below)))
    return found


def follow(node: Any, step: str | int) -> Any:
    """The value at one name or index.

    Raises:
        LookupError: there is none.
    """
    if isinstance(step, str):
        if isinstance(node, (dict, Mapping)):
            return node[step]
    elif isinstance(node, (list, tuple)):
        return node[step]
    raise LookupError(step)


# -- expressions of filters


@dataclass(frozen=True, slots=True)
class Literal:
    constant: Any

    def value(self, node: Any, search: Search) -> Any:
        return self.constant


@dataclass(frozen=True, slots=True)
class Call:
    """A function. `logical` says that its result is true or false and can not be compared."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Literal | Query | Call, ...]
    takes_nodes: bool  #: its argument is the list of matches of a query
    logical: bool

    def value(self, node: Any, search: Search) -> Any:
        if self.takes_nodes:
            return self.function(
                search, *(part.find(node, search) for part in self.arguments if isinstance(part, Query))
            )
        return self.function(search, *(part.value(node, search) for part in self.arguments))

    def holds(self, node: Any, search: Search) -> bool:
        return bool(self.value(node, search))


@dataclass(frozen=True, slots=True)
class Comparison:
    operator: str
    left: Literal | Query | Call
    right: Literal | Query | Call

    def holds(self, node: Any, search: Search) -> bool:
        search.visit(1)
        a, b = self.left.value(node, search), self.right.value(node, search)
        match self.operator:
            case "==":
                return _equal(a, b, search)
            case "!=":
                return not _equal(a, b, search)
            case "<":
                return _less(a, b, search)
            case ">":
                return _less(b, a, search)
            case "<=":
                return _less(a, b, search) or _equal(a, b, search)
        return _less(b, a, search) or _equal(a, b, search)


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expression

    def holds(self, node: Any, search: Search) -> bool:
        return not self.operand.holds(node, search)


@dataclass(frozen=True, slots=True)
class AllOf:
    operands: tuple[Expression, ...]

    def holds(self, node: Any, search: Search) -> bool:
        return all(operand.holds(node, search) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class AnyOf:
    operands: tuple[Expression, ...]

    def holds(self, node: Any, search: Search) -> bool:
        return any(operand.holds(node, search) for operand in self.operands)


Expression = Query | Call | Comparison | Not | AllOf | AnyOf
Each = Literal | Query | Call


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(a: Any, b: Any, search: Search) -> bool:
    if _is_number(a):
        return _is_number(b) and bool(a == b)
    if isinstance(a, str):
        if not isinstance(b, str) or len(a) != len(b):
            return False
        search.visit(len(a) >> 6)
        return a == b
    if isinstance(a, (list, tuple)):
        if not isinstance(b, (list, tuple)) or len(a) != len(b):
            return False
        search.visit(len(a))
        return all(_equal(one, other, search) for one, other in zip(a, b, strict=True))
    if isinstance(a, (dict, Mapping)):
        if not isinstance(b, (dict, Mapping)) or len(a) != len(b):
            return False
        search.visit(2 * len(a))
        return all(key in b and _equal(value, b[key], search) for key, value in a.items())
    return a is b


def _less(a: Any, b: Any, search: Search) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        search.visit(min(len(a), len(b)) >> 6)
        return a < b
    return _is_number(a) and _is_number(b) and bool(a < b)
