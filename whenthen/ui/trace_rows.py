"""What led to what as rows of a tree: each thing below what it came of, with how long after the first cause it was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

__all__ = ["TraceRow", "trace_rows"]

MOST_ROWS = 400  #: of one page
WIDEST = 25  #: things below one thing; the others are counted


class TracedItem(Protocol):
    """One thing of a trace."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def at(self) -> str | None: ...


T = TypeVar("T", bound=TracedItem)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow(Generic[T]):
    """One line of the tree: an item, or how many are left out (`more`)."""

    depth: int
    item: T | None = None
    asked: bool = False  #: whether this is the one that was asked for
    after_s: float | None = None  #: seconds after the first time of the trace
    place: float = 0.0  #: of its time between the first (0) and the last (1)
    more: str = ""


def trace_rows(
    items: Sequence[T], links: Iterable[tuple[str, str]], *, asked: str, most: int = MOST_ROWS
) -> list[TraceRow[T]]:
    """Every item once, below what it came of (`links`, from `kind:id` to `kind:id`), at most `most`. Of what came of one thing
    at most `WIDEST` are shown, and what leads to the one that was `asked` for; the others are counted."""
    by_name = {f"{item.kind}:{item.id}": item for item in items}
    below: dict[str, list[str]] = defaultdict(list)
    above: dict[str, list[str]] = defaultdict(list)
    for source, target in links:
        if source in by_name and target in by_name:
            below[source].append(target)
            above[target].append(source)
    wanted = _reached([asked], above)
    times = {name: datetime.fromisoformat(item.at).timestamp() for name, item in by_name.items() if item.at}
    first = min(times.values(), default=0.0)
    span = max(times.values(), default=0.0) - first
    rows: list[TraceRow[T]] = []
    shown: set[str] = set()
    reached: set[str] = set()  #: also what came of things that are left out
    for root in [*(name for name in by_name if not above[name]), *by_name]:  # the second time those of cycles
        if root in reached:
            continue
        reached |= _reached([root], below)
        stack: list[tuple[str, int, str]] = [(root, 0, "")]  #: an item or a text, and how deep it is
        while stack:
            name, depth, more = stack.pop()
            if more:
                rows.append(TraceRow(depth=depth, more=more))
                continue
            if name in shown:
                continue
            if len(rows) >= most:
                rows.append(TraceRow(depth=0, more=f"{len(by_name) - len(shown):,} more"))
                return rows
            shown.add(name)
            after = times[name] - first if name in times else None
            place = after / span if after is not None and span else 0.0
            rows.append(TraceRow(depth=depth, item=by_name[name], asked=name == asked, after_s=after, place=place))
            kept, others = _chosen([child for child in below[name] if child not in shown], wanted, by_name)
            if others:
                stack.append(("", depth + 1, f"{others} more"))
                shown.update(child for child in below[name] if child not in kept)
            stack += [(child, depth + 1, "") for child in reversed(kept)]
    return rows


def _chosen(children: Sequence[str], wanted: Set[str], items: Mapping[str, TracedItem]) -> tuple[list[str], str]:
    """Those that are shown, and the count of the others by kind."""
    kept = [child for number, child in enumerate(children) if number < WIDEST or child in wanted]
    left = Counter(items[child].kind for child in children) - Counter(items[child].kind for child in kept)
    return kept, " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in left.items())


def _reached(names: Sequence[str], links: Mapping[str, Sequence[str]]) -> set[str]:
    """The names, and what can be reached from them."""
    found, new = set(names), list(names)
    while new:
        further = [name for name in links.get(new.pop(), ()) if name not in found]
        found.update(further)
        new += further
    return found
