"""Which of what happens a client is shown: kinds, and the filters of the lists. Pure.

A filter narrows the kinds that have it. Kinds that have none of the filters are left out, unless they are named.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from whenthen.engine.live.live_items import Item
from whenthen.schemas.errors import InvalidInput, did_you_mean
from whenthen.schemas.list_filters import is_about, row_text_test

__all__ = ["KINDS", "Kind", "LiveFilter", "Wanted", "new_filter"]

LEAST_ID_CHARS = 4  #: of an id prefix, as in the lists


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be asked of one kind, as of its list in the history."""

    stream: str  #: its letter
    equal: tuple[str, ...]
    id: str = "id"


KINDS: Mapping[str, Kind] = {
    "events": Kind("e", ("name",)),
    "decisions": Kind("d", ("automation", "reason", "event", "firing", "key"), id="event"),
    "firings": Kind("g", ("automation", "state", "key", "event")),
    "actions": Kind("g", ("automation", "state", "firing", "type")),
    "runs": Kind("r", ("deployment", "state", "work_pool")),
    "audit": Kind("a", ("kind", "who")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client asks for."""

    kinds: Sequence[str] = ()  #: none: those that the filters fit
    equal: Mapping[str, str] = field(default_factory=dict)  #: `name` may be a glob
    labels: Mapping[str, str] = field(default_factory=dict)  #: of the resource of events
    related: str = ""  #: id of a related resource of events
    id_prefix: str = ""
    text: str = ""  #: anywhere, whatever its case


class LiveFilter:
    """What is shown to one client. Made by `new_filter`."""

    def __init__(self, wanted: Wanted, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        self.streams = tuple(dict.fromkeys(KINDS[kind].stream for kind in kinds))
        self._wanted = wanted
        self._texts = {kind: row_text_test(kind, wanted.text) for kind in kinds} if wanted.text else {}
        self._name = re.compile(fnmatch.translate(wanted.equal["name"])) if "name" in wanted.equal else None
        self._equal = {
            kind: [pair for pair in wanted.equal.items() if pair[0] in KINDS[kind].equal and pair[0] != "name"]
            for kind in kinds
        }

    def of(self, stream: str) -> list[str]:
        """The kinds of a stream that are shown."""
        return [kind for kind in self.kinds if KINDS[kind].stream == stream]

    def takes(self, item: Item) -> bool:
        """Whether the item is shown."""
        equal = self._equal.get(item.kind)
        if equal is None:
            return False
        row, kind = item.row, KINDS[item.kind]
        if any(row[name] != value for name, value in equal):
            return False
        if self._wanted.id_prefix and not row[kind.id].startswith(self._wanted.id_prefix):
            return False
        if item.kind == "events" and not self._takes_event(item):
            return False
        return not self._texts or self._texts[item.kind](row)

    def _takes_event(self, item: Item) -> bool:
        if self._name is not None and self._name.match(item.row["name"]) is None:
            return False
        labels, related = self._wanted.labels, self._wanted.related
        if not (labels or related):
            return True
        return is_about(orjson.loads(item.row["doc"]), labels, related)


def new_filter(wanted: Wanted) -> LiveFilter:
    """The filter that is wanted.

    Raises:
        InvalidInput: there is no such kind or filter, or no kind that is wanted has it.
    """
    for kind in wanted.kinds:
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise InvalidInput(f"{kind[:40]!r} is none of {known}{did_you_mean(kind[:40], KINDS)}", path=("of",))
    if wanted.id_prefix and len(wanted.id_prefix) < LEAST_ID_CHARS:
        why = f"{wanted.id_prefix!r} is too short; write {LEAST_ID_CHARS} characters of the id or more"
        raise InvalidInput(why, path=("id",))
    given = [*wanted.equal, *(["label"] if wanted.labels else []), *(["related"] if wanted.related else [])]
    having = {name: [kind for kind in wanted.kinds or KINDS if _has(kind, name)] for name in given}
    for name, kinds in having.items():
        if not kinds:
            of = ", ".join(wanted.kinds or KINDS)
            raise InvalidInput(f"{of} have no filter {name[:40]!r}", path=(name,))
    kinds = list(dict.fromkeys(wanted.kinds))
    if not kinds:
        kinds = [kind for kind in KINDS if not given or any(kind in some for some in having.values())]
    return LiveFilter(wanted, kinds)


def _has(kind: str, name: str) -> bool:
    return kind == "events" if name in ("label", "related") else name in KINDS[kind].equal
