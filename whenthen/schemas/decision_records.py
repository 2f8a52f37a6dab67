"""Decisions as they are stored: a batch for each commit of a shard, in one message or several. Pure.

    {"batch": "5f…", "prev": 41, "part": 0, "parts": 1, "shard": 0, "writer": "…", "rules": 3, "after": 100, "seq": 150,
     "automations": ["nightly"], "counts": [[0, "fired", 1], [0, "cooldown", 7012]], "rows": [[0, "", "fired", 143, …]]}

Counts are exact. Rows are every `fired`, and of each automation and other reason the last few of the batch. Written by
`engine.decisions` before the commit that makes them true; which batches are committed is said in
`engine.decisions.committed`. What an automation's decisions add up to is a `KeptDecisions`, part of the shard's state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from whenthen.schemas.firings import Decision

__all__ = ["DecisionBatch", "DecisionCounts", "DecisionRow", "KeptDecisions", "encode_batch", "row_of"]

#: by automation and reason
DecisionCounts = dict[str, dict[str, int]]
#: a row as it is stored, without the number of its automation: path, reason, seq, event, at_us, key, detail, firing
StoredRow = list[Any]

MOST_BYTES = 200_000  #: of the record of an automation
MOST_CHARS = 512  #: of a key or a detail; the rest is cut
ROW_AROUND = 12  #: bytes: the number of the automation, and commas


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """One decision as it is on record."""

    automation: str
    path: str  #: which trigger of a composite; empty for the root
    reason: str  #: a `Reason`, or one that a later version knows
    seq: int  #: position of the event; 0 for a moment
    event: str | None  #: its id
    at_us: int
    key: str
    detail: str
    firing: str | None
    rules: int  #: revision of the rules; 0 when it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBatch:
    """A message of the stream `DECISIONS`: one part of what a commit decided."""

    batch: str  #: names the commit's decisions; all parts have it, and so has a part that was sent twice
    prev: int  #: stream sequence of the last part of the shard's batch before; 0 when there was none
    part: int  #: from 0
    parts: int
    shard: int
    writer: str  #: process that wrote it
    rules: int  #: revision with which it was decided; a batch never spans two
    after: int  #: positions of `EVENTS` above this one
    seq: int  #: up to this one were evaluated
    counts: DecisionCounts  #: of this part; parts add up
    rows: tuple[DecisionRow, ...]

    @property
    def last(self) -> bool:
        """Whether it is the last part, by whose sequence the batch is named in `prev` and in the shard's offset."""
        return self.part == self.parts - 1

    @classmethod
    def decode(cls, data: bytes) -> DecisionBatch:
        """Read a message. Fields that a later version added are left out.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it is none.
        """
        fields = orjson.loads(data)
        names = fields["automations"]
        counts: DecisionCounts = {}
        for number, reason, count in fields["counts"]:
            counts.setdefault(names[number], {})[reason] = count
        rules = fields["rules"]
        return cls(
            **{
                name: fields[name]
                for name in ("batch", "prev", "part", "parts", "shard", "writer", "rules", "after", "seq")
            },
            counts=counts,
            rows=tuple(_row(names[row[0]], row[1:], rules) for row in fields["rows"]),
        )


def row_of(decision: Decision) -> StoredRow:
    """A decision as its row."""
    return [
        decision.path,
        decision.reason,
        decision.seq,
        decision.event,
        decision.at_us,
        _cut(decision.key),
        _cut(decision.detail),
        decision.firing,
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}…"


def _row(automation: str, row: Sequence[Any], rules: int) -> DecisionRow:
    path, reason, seq, event, at_us, key, detail, firing = row[:8]
    return DecisionRow(
        automation=automation,
        path=path,
        reason=reason,
        seq=seq,
        event=event,
        at_us=at_us,
        key=key,
        detail=detail,
        firing=firing,
        rules=rules,
    )


def encode_batch(
    head: Mapping[str, Any],
    counts: Mapping[str, Mapping[str, int]],
    rows: Mapping[str, Iterable[StoredRow]],
    *,
    part_bytes: int,
) -> list[dict[str, Any]]:
    """The parts of a batch, each to be dumped with its `prev`: `head` has what all parts share, `rows` are by automation.

    A part has at most about `part_bytes` of rows and counts.
    """
    parts = [_new_part()]
    size = 0
    names = list(dict.fromkeys([*counts, *rows]))
    for name in names:
        part = parts[-1]
        if size > part_bytes:
            part, size = _new_part(), 0
            parts.append(part)
        number = len(part["automations"])
        part["automations"].append(name)
        size += len(orjson.dumps(name)) + ROW_AROUND
        for reason, count in counts.get(name, {}).items():
            part["counts"].append([number, reason, count])
            size += 24
        for row in rows.get(name, ()):
            if size > part_bytes:
                part, size, number = _new_part(), 0, 0
                part["automations"].append(name)
                parts.append(part)
            part["rows"].append([number, *row])
            size += row_bytes(row)
    for number, part in enumerate(parts):
        part.update(head, part=number, parts=len(parts))
    return parts


def row_bytes(row: StoredRow) -> int:
    """How many bytes a row takes, with what stands around it."""
    return len(orjson.dumps(row)) + ROW_AROUND


def _new_part() -> dict[str, Any]:
    return {"automations": [], "counts": [], "rows": []}


@dataclass(slots=True)
class KeptDecisions:
    """What is kept of one automation's decisions: how many there were of each reason, and the last rows of each."""

    since_us: int = 0  #: clock of the shard when counting began
    upto: int = 0  #: position of `EVENTS` up to which they are in it (`DecisionBatch.seq` of the last one)
    counts: dict[str, int] = field(default_factory=dict)
    #: by reason, oldest first; a ninth field is the revision
    rows: dict[str, list[StoredRow]] = field(default_factory=dict)

    def add(self, counts: Mapping[str, int], rows: Iterable[StoredRow], *, rules: int, keep: int) -> None:
        """Add what a batch says of the automation."""
        for reason, count in counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        for row in rows:
            kept = self.rows.setdefault(row[1], [])
            kept.append([*row, rules])
            if len(kept) > keep:
                del kept[: len(kept) - keep]

    def encode(self, clock_us: int) -> bytes:
        """As the state of a window, which begins with the shard's clock. Of rows that have more than `MOST_BYTES` the older
        half goes, whose details are longest."""
        while True:
            state = orjson.dumps([clock_us, self.since_us, self.upto, self.counts, list(self.rows.values())])
            if len(state) <= MOST_BYTES:
                return state
            longest = max(self.rows.values(), key=lambda rows: sum(map(row_bytes, rows)))
            del longest[: (len(longest) + 1) // 2]

    @classmethod
    def decode(cls, state: bytes) -> KeptDecisions:
        """Read a state. Raises ValueError, IndexError, TypeError: it is none."""
        _, since_us, upto, counts, rows = orjson.loads(state)[:5]
        return cls(since_us=since_us, upto=upto, counts=counts, rows={each[0][1]: each for each in rows if each})

    def newest(self, automation: str) -> Iterator[DecisionRow]:
        """The rows, the last decided first."""
        rows = [row for each in self.rows.values() for row in each]
        # the order within one moment is that in which the batch has them
        for row in sorted(rows, key=lambda row: (row[4], row[2]), reverse=True):
            yield _row(automation, row, row[8])
