"""Which batches of the stream `DECISIONS` are true: those whose commit was made. Pure.

A batch is stored before its commit, and says which batch of its shard was committed before it (`prev`, the stream sequence of that
batch's last part). The shard's offset names the last one that is committed (`Offset.decisions`). So:

- A batch is committed if the offset names it, or a later batch names it as its predecessor: that one was written
  by a process that had made the commit, or had loaded it.
- All others are leftovers of a process that was killed or fenced before its commit. What they tell was evaluated again,
  and written anew under the same predecessor.

A reader therefore holds a batch back until one of the two names it. It counts nothing twice and loses nothing, whatever dies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from whenthen.schemas.decision_records import DecisionBatch

__all__ = ["CommittedBatches"]

MOST_HELD = 1000  #: batches that are held back; more of one predecessor than processes that died there are impossible


@dataclass(slots=True)
class _Held:
    """The parts of a batch that is not known to be committed. Its predecessor is the last one that was given."""

    parts: dict[int, DecisionBatch] = field(default_factory=dict)
    last_seqs: list[int] = field(default_factory=list)  #: of its last part, which may have been stored twice


class CommittedBatches:
    """Takes the messages of one shard in the order of the stream, and gives the parts of committed batches, in order.

    `accepted` is the last batch that was given, by the sequence of its last part; a reader that goes on where another one stopped
    starts with what that one had, and reads from the message after it.
    """

    def __init__(self, accepted: int = 0) -> None:
        self.accepted = accepted
        self.gaps = 0  #: batches whose predecessor was not there: removed by retention, or the stream was made again
        self._held: dict[str, _Held] = {}

    def message(self, seq: int, batch: DecisionBatch) -> list[DecisionBatch]:
        """Take the message at a sequence; gives the parts that it shows to be committed."""
        given: list[DecisionBatch] = []
        named = self._named(batch.prev)
        if named is not None:
            given = self._accept(named, batch.prev)
        elif batch.batch not in self._held and batch.prev > self.accepted:
            # its predecessor was committed, and is not here
            self.gaps += bool(self.accepted)
            self._held.clear()
            self.accepted = batch.prev
        if batch.prev != self.accepted:
            return given  # written by a process that had lost the shard
        held = self._held.get(batch.batch)
        if held is None:
            if len(self._held) >= MOST_HELD:
                del self._held[next(iter(self._held))]
            held = self._held[batch.batch] = _Held()
        held.parts[batch.part] = batch
        if batch.last:
            held.last_seqs.append(seq)
        return given

    def offset(self, decisions: int) -> list[DecisionBatch]:
        """Take what the shard's offset names (`Offset.decisions`), as it was read after the messages; gives the parts that it
        shows to be committed."""
        named = self._named(decisions)
        return self._accept(named, decisions) if named is not None else []

    def _named(self, seq: int) -> str | None:
        return next((name for name, held in self._held.items() if seq in held.last_seqs), None)

    def _accept(self, name: str, seq: int) -> list[DecisionBatch]:
        parts = self._held[name].parts
        self._held.clear()
        self.accepted = seq
        return [parts[number] for number in sorted(parts)]
