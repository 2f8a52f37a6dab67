"""Refused requests of the audit trail, put together by what they were for and why they were refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["RefusedFor", "refusals_by_cause"]

MOST_SAMPLES = 3


class Refusal(Protocol):
    """A note of the trail; `count` of them are alike."""

    @property
    def at(self) -> str: ...
    @property
    def who(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def count(self) -> int: ...


@dataclass(slots=True)
class RefusedFor:
    """Requests to one thing that were refused for one cause."""

    what: str
    cause: str
    count: int
    last: str
    senders: set[str]
    samples: list[Refusal]  #: the newest ones whose details differ


def refusals_by_cause(notes: Iterable[Refusal]) -> list[RefusedFor]:
    """The most frequent first; `notes` are the newest first."""
    found: dict[tuple[str, str], RefusedFor] = {}
    for note in notes:
        group = found.setdefault((note.what, note.cause), RefusedFor(note.what, note.cause, 0, note.at, set(), []))
        group.count += note.count
        group.senders.add(note.who)
        if len(group.samples) < MOST_SAMPLES and all(note.detail != each.detail for each in group.samples):
            group.samples.append(note)
    return sorted(found.values(), key=lambda group: (-group.count, group.what, group.cause))
