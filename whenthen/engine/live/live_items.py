"""What a message of a stream is to whoever watches: one item, or the decisions of a batch once it is committed. Pure.

An item has the fields that the history gives for the same message (`schemas.history_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.engine.bus.streams import AUDIT, DECISIONS, ENGINE, EVENTS, RUN_STATES
from whenthen.engine.decisions import CommittedBatches
from whenthen.engine.live.live_marks import Mark, Place
from whenthen.schemas.decision_records import DecisionBatch
from whenthen.schemas.history_rows import Message, Rows, message_rows, shown_row

__all__ = ["STREAMS", "CommittedItems", "Gap", "Item", "frame", "item_of"]

#: streams by the letter that stands for them in ids
STREAMS: Mapping[str, str] = {"e": EVENTS, "g": ENGINE, "r": f"KV_{RUN_STATES}", "a": AUDIT, "d": DECISIONS}


@dataclass(slots=True, eq=False)
class Item:
    """Something that happened, and where it stands. It is after `prev`, the `number`-th row of what is stored at `seq`."""

    kind: str
    stream: str  #: its letter
    identity: str
    seq: int
    row: dict[str, Any]  #: columns and document, as the history has them
    shard: int = 0
    prev: int = -1
    number: int = 0
    last: bool = True
    _frame: bytes = b""

    @property
    def frame(self) -> bytes:
        """Its server-sent event but for the id; made once for all clients."""
        if not self._frame:
            fields = {name: value for name, value in self.row.items() if name != "doc"}
            self._frame = frame(self.kind, shown_row({**orjson.loads(self.row.get("doc", "{}")), **fields}))
        return self._frame

    def shown(self, mark: Mark) -> bool:
        """Whether who was shown up to `mark` has seen it."""
        place = mark.places[self.shard]
        return mark.identity == self.identity and (
            self.seq <= place.seq or (self.prev == place.seq and self.number < place.rows)
        )

    def move(self, mark: Mark) -> None:
        """Set the mark of who was shown it."""
        mark.places[self.shard] = Place(self.seq) if self.last else Place(self.prev, self.number + 1)


@dataclass(slots=True, eq=False)
class Gap:
    """Something of a stream is missing, or may be."""

    stream: str
    reason: str  #: `retention`, `made_again`, `went_back`
    detail: str
    after: Mark  #: where it goes on

    def frame(self, kinds: Sequence[str]) -> bytes:
        """Its server-sent event."""
        fields = {"kinds": kinds, "stream": STREAMS[self.stream], "reason": self.reason, "detail": self.detail}
        return frame("gap", fields)


def frame(name: str, fields: Mapping[str, Any]) -> bytes:
    """A server-sent event without its id; JSON has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(fields))


def item_of(stream: str, identity: str, message: Message) -> Item | None:
    """What a message is; None for what is none of ours, or marks a deletion."""
    rows = Rows()
    message_rows(rows, message, pos=message.seq, at_us=message.time_us)
    found: Sequence[tuple[str, Sequence[dict[str, Any]]]] = (
        ("events", rows.events),
        ("firings", [row for row, _, _ in rows.firings.values()]),
        ("actions", list(rows.actions.values())),
        ("runs", list(rows.runs.values())),
        ("audit", [row for row, _, _ in rows.audit.values()]),
    )
    for kind, several in found:
        if several:
            return Item(kind, stream, identity, message.seq, several[0])
    return None


class CommittedItems:
    """Takes the messages of a shard in `DECISIONS`, and gives the decisions of what is committed."""

    def __init__(self, identity: str, shard: int, accepted: int) -> None:
        self._batches = CommittedBatches(accepted)
        self._identity = identity
        self._shard = shard
        self._times: dict[int, int] = {}
        self._last = accepted

    @property
    def accepted(self) -> int:
        """The last batch that was given."""
        return self._batches.accepted

    @property
    def held(self) -> bool:
        """Whether a message waits for its commit to be known."""
        return self._last > self.accepted

    def message(self, seq: int, time_us: int, batch: DecisionBatch) -> list[Item]:
        """Take the message at a sequence."""
        if seq <= self.accepted:
            return []
        self._last = seq
        self._times[seq] = time_us
        before = self.accepted
        return self._items(self._batches.message(seq, batch), before)

    def offset(self, decisions: int) -> list[Item]:
        """Take what the shard's offset names, as it was read after the messages."""
        before = self.accepted
        return self._items(self._batches.offset(decisions), before)

    def _items(self, given: Sequence[DecisionBatch], prev: int) -> list[Item]:
        seq = self.accepted
        at_us = self._times.get(seq, 0)
        self._times = {later: time_us for later, time_us in self._times.items() if later > seq}
        rows = Rows()
        for part in given:
            prev = part.prev
            rows.add_decisions(part, pos=seq, at_us=at_us, row=len(rows.decisions))
        most = len(rows.decisions) - 1
        return [
            Item("decisions", "d", self._identity, seq, row, self._shard, prev, number, last=number == most)
            for number, row in enumerate(rows.decisions)
        ]
