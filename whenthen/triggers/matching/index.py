"""Which triggers could match an event, without looking at the others.

Every filter is indexed by one of its tests, the most selective one: the test that the fewest filters share, where an exact
value is preferred to a prefix and a prefix to a suffix. Filters without any such test are on a list that is checked for every
event. An event looks up its name, its labels, its related labels and the payload fields that some condition compares
with a constant; the cost is the number of those look-ups, not the number of rules.

    field            test                            slot
    name             expect: s3.file.uploaded        exact["s3.file.uploaded"]
    label bucket     match: {bucket: team-7-*}       prefix["team-7-"]
    related id       match_related: {id: job-1}      exact["job-1"]
    payload.kind     when: event.payload.kind == 3   exact[3], found by a trie over the paths

Invariant: `candidates(event)` holds every filter that admits the event (a property test compares it with asking
each filter). An index over every test with counting (as a matcher for static rule sets has) was slower at loading and no faster
at matching, since one selective test leaves few candidates to check.

Called by `triggers.evaluator`. Meaning: docs/rules.md, "What an event costs".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from whenthen.schemas.events import Event
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.matching.globs import Glob, GlobKind

__all__ = ["RuleIndex"]

#: added to the number of filters that share a test: an exact test before a prefix, a prefix before a suffix
_PENALTY = {"exact": 0.0, "number": 0.0, "prefix": 0.5, "suffix": 0.75}
_NAME = ("name",)


@dataclass(frozen=True, slots=True)
class _Slot:
    """One index entry that a filter can use: a field, how it is compared, and with which value."""

    field: tuple[str, ...]  #: ("name",), ("label", l), ("related", l), ("path", *steps)
    kind: str  #: exact (a text or a boolean), number, prefix, suffix: True and 1 are one value to Python
    value: Any


class RuleIndex:
    """An immutable index over filters; numbers stand for positions in the given sequence."""

    __slots__ = ("_labels", "_names", "_paths", "_related", "_scan")

    def __init__(self, filters: Sequence[Filter]) -> None:
        options = [list(_options(rule)) for rule in filters]
        shared: Counter[_Slot] = Counter(slot for option in options for slots in option for slot in slots)
        self._names = _Field()
        self._labels: dict[str, _Field] = {}
        self._related: dict[str, _Field] = {}
        self._paths = _Trie()
        self._scan: list[int] = []
        for number, option in enumerate(options):
            if not option:
                self._scan.append(number)
                continue
            for slot in min(option, key=lambda slots: _cost(slots, shared)):
                self._insert(slot, number)

    def candidates(self, event: Event) -> list[int]:
        """Positions of the filters that could admit `event`, ascending, each once."""
        data = event.data
        found = self._scan.copy()
        self._names.collect(data["event"], found)
        if self._labels:
            fields = self._labels
            for label, value in data["resource"].items():
                if label in fields:
                    fields[label].collect(value, found)
        if self._related:
            fields = self._related
            for resource in event.related:
                for label, value in resource.items():
                    if label in fields:
                        fields[label].collect(value, found)
        if self._paths.children:
            self._paths.collect(data, found)
        if len(found) > 1:
            return sorted(set(found))
        return found

    def _insert(self, slot: _Slot, number: int) -> None:
        place = slot.field[0]
        if place == "path":
            self._paths.at(slot.field[1:]).add(slot, number)
        elif place == "name":
            self._names.add(slot, number)
        else:
            fields = self._labels if place == "label" else self._related
            fields.setdefault(slot.field[1], _Field()).add(slot, number)


class _Field:
    """Filters indexed by tests of one field."""

    __slots__ = ("exact", "numbers", "prefix", "prefix_lengths", "suffix", "suffix_lengths")

    def __init__(self) -> None:
        self.exact: dict[Any, list[int]] = {}
        self.numbers: dict[Any, list[int]] = {}
        self.prefix: dict[str, list[int]] = {}
        self.suffix: dict[str, list[int]] = {}
        self.prefix_lengths: tuple[int, ...] = ()
        self.suffix_lengths: tuple[int, ...] = ()

    def add(self, slot: _Slot, number: int) -> None:
        if slot.kind == "exact":
            self.exact.setdefault(slot.value, []).append(number)
        elif slot.kind == "number":
            self.numbers.setdefault(slot.value, []).append(number)
        elif slot.kind == "prefix":
            self.prefix.setdefault(slot.value, []).append(number)
            if len(slot.value) not in self.prefix_lengths:
                self.prefix_lengths = tuple(sorted((*self.prefix_lengths, len(slot.value))))
        else:
            self.suffix.setdefault(slot.value, []).append(number)
            if len(slot.value) not in self.suffix_lengths:
                self.suffix_lengths = tuple(sorted((*self.suffix_lengths, len(slot.value))))

    def collect(self, value: str, found: list[int]) -> None:
        if value in self.exact:
            found += self.exact[value]
        if self.prefix:
            table = self.prefix
            size = len(value)
            for length in self.prefix_lengths:
                if length > size:
                    break
                if (head := value[:length]) in table:
                    found += table[head]
        if self.suffix:
            table = self.suffix
            size = len(value)
            for length in self.suffix_lengths:
                if length > size:
                    break
                if (tail := value[size - length :]) in table:
                    found += table[tail]

    def collect_json(self, value: Any, found: list[int]) -> None:
        """As `collect` for a JSON value: 1 equals 1.0 as in CEL, but not true."""
        kind = type(value)
        if kind is str:
            self.collect(value, found)
        elif kind is bool:
            if value in self.exact:
                found += self.exact[value]
        elif (kind is int or kind is float) and value in self.numbers:
            found += self.numbers[value]


class _Trie:
    """Payload paths that conditions compare with constants."""

    __slots__ = ("children", "field")

    def __init__(self) -> None:
        self.children: dict[str, _Trie] = {}
        self.field: _Field | None = None

    def at(self, path: tuple[str, ...]) -> _Field:
        node = self
        for step in path:
            node = node.children.setdefault(step, _Trie())
        if node.field is None:
            node.field = _Field()
        return node.field

    def collect(self, value: Any, found: list[int]) -> None:
        if self.field is not None:
            self.field.collect_json(value, found)
        children = self.children
        if children and type(value) is dict:
            if len(children) <= len(value):
                for step, child in children.items():
                    if step in value:
                        child.collect(value[step], found)
            else:
                for step, below in value.items():
                    if step in children:
                        children[step].collect(below, found)


def _cost(slots: Sequence[_Slot], shared: Counter[_Slot]) -> float:
    return sum(
        shared[slot] + _PENALTY[slot.kind] + (1 / len(slot.value) if slot.kind in ("prefix", "suffix") else 0)
        for slot in slots
    )


def _options(rule: Filter) -> Iterator[list[_Slot]]:
    """The tests by which a filter can be indexed; each is a list of slots of which the event must match one."""
    if (slots := _slots(_NAME, rule.names)) is not None:
        yield slots
    for test in rule.labels:
        if (slots := _slots(("label", test.label), test.globs)) is not None:
            yield slots
    for tests in rule.related:
        for test in tests:
            if (slots := _slots(("related", test.label), test.globs)) is not None:
                yield slots
    if rule.condition is not None:
        hidden = frozenset[str]() if rule.computing is None else rule.computing.names
        for path, constant in rule.condition.equalities:
            if not _is_computed(path, hidden) and (slot := _path_slot(path, constant)) is not None:
                yield [slot]
        for path, constants in rule.condition.memberships:
            if _is_computed(path, hidden):
                continue
            members = [_path_slot(path, constant) for constant in constants]
            if members and None not in members:
                yield list(dict.fromkeys(slot for slot in members if slot is not None))


def _slots(field: tuple[str, ...], globs: Iterable[Glob]) -> list[_Slot] | None:
    slots = []
    for glob in globs:
        if glob.kind is GlobKind.EXACT:
            slots.append(_Slot(field, "exact", glob.literal))
        elif glob.kind in (GlobKind.PREFIX, GlobKind.OTHER) and glob.literal:
            slots.append(_Slot(field, "prefix", glob.literal))
        elif glob.kind is GlobKind.SUFFIX and glob.literal:
            slots.append(_Slot(field, "suffix", glob.literal))
        else:
            return None
    return list(dict.fromkeys(slots)) or None


def _is_computed(path: tuple[str, ...], hidden: frozenset[str]) -> bool:
    """Whether the path leads to what a trigger computes, of which the event as it comes tells nothing."""
    return bool(hidden) and path[:2] == ("event", "resource") and (len(path) < 3 or path[2] in hidden)


def _path_slot(path: tuple[str, ...], constant: Any) -> _Slot | None:
    """The slot of `event.<path> == constant`; None when the index has no such field."""
    if len(path) < 2 or path[0] != "event" or path[1] in ("occurred", "received"):
        return None
    if path[1] == "event" and len(path) == 2:
        return _Slot(_NAME, "exact", constant) if isinstance(constant, str) else None
    if path[1] == "resource" and len(path) == 3:
        return _Slot(("label", path[2]), "exact", constant) if isinstance(constant, str) else None
    exact = isinstance(constant, (str, bool))
    return _Slot(("path", *path[1:]), "exact" if exact else "number", constant)
