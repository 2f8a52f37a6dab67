"""What one shard decided, from the evaluator to the record: gathered, stored before the commit, and kept as state of the shard.

    recorder.add(decisions, rules=3)                  # while events are evaluated
    gathered = recorder.take(seq)                     # when a commit begins; goes on with the next batch
    stored = await recorder.store(gathered, ...)      # before the commit
    commit(windows of stored.records, decisions=stored.head, decisions_from=stored.low)

Meaning: docs/architecture.md, "Decisions on record". What is gathered is bounded by the automations that decided, and `full` says when
a commit should begin for it. Called by the loop of a shard; `store` never while another one is under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import orjson

from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.decisions.committed import CommittedBatches
from whenthen.engine.decisions.decision_log import DecisionLog
from whenthen.schemas.decision_records import (
    DecisionBatch,
    DecisionCounts,
    KeptDecisions,
    StoredRow,
    encode_batch,
    row_of,
)
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.firings import Decision, Reason

__all__ = ["RECORDS", "DecisionRecorder", "Gathered", "StoredDecisions"]

log = logging.getLogger(__name__)

RECORDS = "@decisions"  #: in place of a trigger, in the records of a shard; no id of a trigger begins with @
FULL_ROWS = 4000  #: gathered rows after which a commit should begin
PART_BYTES = 256 << 10
CHAIN_BYTES = 512 << 10  #: of batches that are not in the records yet, before records are written
RECORD_BYTES = 64 << 10  #: of records with one commit, at least
MOST_RECORDS = 400  #: with one commit, which then still is one batch
GIVE_UP_S = 10.0  #: after which a commit goes on without its batch; not while there is no connection, when no commit is made either
ASK_AGAIN_S = 30.0  #: after that
RETRY_S = 0.1  #: between two tries at what `DECISIONS` is asked


class Gathered:
    """Decisions of one or several evaluated batches, all with one revision of the rules, up to a position."""

    __slots__ = ("pairs", "rules", "seq")

    def __init__(self, rules: int) -> None:
        self.rules = rules
        self.seq = 0
        #: by automation and reason, how many and the rows that are to be kept of them
        self.pairs: dict[tuple[str, Reason], tuple[list[int], list[Decision]]] = {}

    def counts(self) -> DecisionCounts:
        """By automation and reason."""
        found: DecisionCounts = {}
        for (name, reason), (count, _) in self.pairs.items():
            found.setdefault(name, {})[reason.value] = count[0]
        return found

    def rows(self, keep: int) -> dict[str, list[StoredRow]]:
        """Every `fired`, and the last `keep` of other reasons, by automation."""
        found: dict[str, list[StoredRow]] = {}
        for (name, reason), (_, rows) in self.pairs.items():
            kept = rows if reason is Reason.FIRED else rows[max(0, len(rows) - keep) :]
            if kept:
                found.setdefault(name, []).extend(map(row_of, kept))
        return found


class StoredDecisions(NamedTuple):
    """What a commit has to store for the decisions before it."""

    head: int  #: `Offset.decisions`
    low: int  #: `Offset.decisions_from`
    records: list[tuple[str, bytes | None]]  #: windows under `RECORDS`: automation and state, None for one to forget


class DecisionRecorder:
    """The decisions of one shard."""

    def __init__(
        self,
        decision_log: DecisionLog,
        shard: int,
        *,
        writer: str = "",
        keep: int = 20,
        monotonic: Callable[[], float] = time.monotonic,
        forget_after_us: int = 7 * 86400 * 1_000_000,
    ) -> None:
        self._log = decision_log
        self._shard = shard
        self._writer = writer
        self._keep = keep
        self._monotonic = monotonic
        self._forget_after_us = forget_after_us
        self._gathered: Gathered | None = None
        self._rows = 0  #: gathered
        self._seq = 0  #: position that the batch before reached
        self._head = 0
        self.kept: dict[str, KeptDecisions] = {}  #: by automation, as of the last batch that was stored
        #: automations whose record lacks something, the one that lacks it longest first, and the batch after which it does
        self._dirty: dict[str, int] = {}
        self._gone: list[str] = []  #: whose records are to be forgotten
        self._chain: deque[tuple[int, int]] = deque()  #: batches that may not be in the records yet, with their bytes
        self._chain_bytes = 0
        self._ask_again_at = monotonic()

    # -- gathering

    def add(self, decisions: Sequence[Decision], *, rules: int) -> None:
        """Add what was decided with a revision of the rules. Between revisions `take` must have been called."""
        if not decisions:
            return
        gathered = self._gathered
        if gathered is None:
            gathered = self._gathered = Gathered(rules)
        pairs = gathered.pairs
        most = 2 * self._keep + 1
        keep = self._keep
        before = 0
        for decision in decisions:  # once for every event: one loop, no calls
            reason = decision.reason
            pair = (decision.automation, reason)
            found = pairs.get(pair)
            if found is None:
                pairs[pair] = ([1], [decision])
                self._rows += 1
                continue
            count, rows = found
            count[0] += 1
            rows.append(decision)
            before += 1
            if len(rows) >= most and reason is not Reason.FIRED:
                before -= len(rows) - keep
                del rows[: len(rows) - keep]
        self._rows += before

    @property
    def full(self) -> bool:
        """Whether so much is gathered that a commit should begin."""
        return self._rows >= FULL_ROWS

    @property
    def waiting(self) -> bool:
        """Whether anything is gathered."""
        return self._gathered is not None

    def take(self, seq: int) -> Gathered | None:
        """What was gathered, up to a position; None when nothing was."""
        gathered, self._gathered, self._rows = self._gathered, None, 0
        if gathered is not None:
            gathered.seq = seq
        return gathered

    # -- storing

    async def store(self, gathered: Gathered | None, *, clock_us: int) -> StoredDecisions:
        """Store what was gathered, and give what the commit is to store with it."""
        size = 0
        if gathered is not None:
            size = await self._append(gathered, clock_us)
        low = next(iter(self._dirty.values()), self._head)
        while self._chain and self._chain[0][0] <= low:
            self._chain_bytes -= self._chain.popleft()[1]
        records: list[tuple[str, bytes | None]] = [(name, None) for name in self._gone[:MOST_RECORDS]]
        del self._gone[:MOST_RECORDS]
        unwritten = size < 0  # what is in no batch must be in the records
        if self._chain_bytes > CHAIN_BYTES or unwritten:
            room = max(RECORD_BYTES, 2 * size)
            while self._dirty and (unwritten or (room > 0 and len(records) < MOST_RECORDS)):
                name = next(iter(self._dirty))
                del self._dirty[name]
                state = self.kept[name].encode(clock_us)
                room -= len(state)
                records.append((name, state))
        return StoredDecisions(self._head, next(iter(self._dirty.values()), self._head), records)

    async def _append(self, gathered: Gathered, clock_us: int) -> int:
        """Append a batch and add it to what is kept; gives its bytes, -1 when the log does not take it."""
        head, keep = self._head, self._keep
        counts, rows = gathered.counts(), gathered.rows(keep)
        fields = {
            "batch": uuid.uuid4().hex,
            "shard": self._shard,
            "writer": self._writer,
            "rules": gathered.rules,
            "after": self._seq,
            "seq": gathered.seq,
            "prev": head,
        }
        self._seq = gathered.seq
        size = 0
        sequence: int | None = None
        for part in encode_batch(fields, counts, rows, part_bytes=min(PART_BYTES, self._log.largest // 2)):
            data = orjson.dumps(part)
            sequence = await self._append_part(data, f"{part['batch']}.{part['part']}")
            if sequence is None:
                size = -1
                break
            size += len(data)
        if sequence is not None:
            if sequence <= head:  # the stream was made anew; what is in no record is not in it
                self._dirty = dict.fromkeys(self._dirty, 0)
                head = 0
            self._head = sequence
            self._chain.append((sequence, size))
            self._chain_bytes += size
        for name, reasons in counts.items():
            kept = self.kept.get(name)
            if kept is None:
                kept = self.kept[name] = KeptDecisions(since_us=clock_us)
            kept.add(reasons, rows.get(name, ()), rules=gathered.rules, keep=keep)
            kept.upto = gathered.seq
            self._dirty.setdefault(name, head)
        return size

    async def _append_part(self, data: bytes, message_id: str) -> int | None:
        """The sequence of a message, once it is stored; None when it can not be, for `GIVE_UP_S`."""
        give_up = self._monotonic() + GIVE_UP_S
        if self._monotonic() < self._ask_again_at:
            return None
        while True:
            try:
                return await self._log.append(self._shard, data, message_id)
            except (BusUnavailable, InvalidInput) as error:
                if error.reason == BusReason.DISCONNECTED:
                    give_up = self._monotonic() + GIVE_UP_S
                if self._monotonic() >= give_up or isinstance(error, InvalidInput):
                    self._ask_again_at = self._monotonic() + ASK_AGAIN_S
                    log.error("shard %d: decisions are counted, and not put into DECISIONS: %s", self._shard, error)
                    return None
                log.warning("shard %d: decisions are not stored yet: %s", self._shard, error)
            await asyncio.sleep(RETRY_S)

    # -- loading

    def restore(self, automation: str, state: bytes) -> None:
        """Take a record of the shard in, for each that it has, before `load`. One that can not be read is begun anew."""
        if not state:
            self.kept.pop(automation, None)
            return
        try:
            self.kept[automation] = KeptDecisions.decode(state)
        except (ValueError, IndexError, TypeError, KeyError) as error:
            log.warning("shard %d: the record of the decisions of %s is begun anew: %r", self._shard, automation, error)

    async def load(self, *, seq: int, head: int, low: int) -> None:
        """Add the batches that are not in the records, as the shard's offset names them.

        Raises:
            BusUnavailable: they can not be read; load again.
        """
        self._seq, self._head = seq, head
        self._dirty, self._chain = {}, deque()
        self._chain_bytes = 0
        batches = CommittedBatches(low)
        before = low

        def add(given: Iterable[DecisionBatch]) -> None:
            nonlocal before
            for part in given:
                self._add_committed(part, before)
            before = batches.accepted

        def receive(sequence: int, data: bytes) -> None:
            try:
                batch = DecisionBatch.decode(data)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                log.warning("shard %d: message %d of DECISIONS is no batch: %r", self._shard, sequence, error)
                return
            self._chain.append((sequence, len(data)))
            self._chain_bytes += len(data)
            add(batches.message(sequence, batch))

        if head > low:
            await self._read(low, receive)
            add(batches.offset(head))

    async def _read(self, after: int, receive: Callable[[int, bytes], None]) -> None:
        """Read batches. Where there is no stream for `GIVE_UP_S`, what is only there is lost, and the shard goes on."""
        give_up = self._monotonic() + GIVE_UP_S
        while True:
            try:
                await self._log.read(self._shard, after=after, receive=receive)
                return
            except BusUnavailable as error:
                if error.reason != BusReason.NO_STREAM:
                    raise
                if self._monotonic() >= give_up:
                    log.error("shard %d: its last decisions are not counted: %s", self._shard, error)
                    return
            await asyncio.sleep(RETRY_S)

    def _add_committed(self, part: DecisionBatch, before: int) -> None:
        """Add a part of a batch that follows the batch `before`."""
        rows: dict[str, list[StoredRow]] = {}
        for row in part.rows:
            rows.setdefault(row.automation, []).append(
                [row.path, row.reason, row.seq, row.event, row.at_us, row.key, row.detail, row.firing]
            )
        for name in dict.fromkeys([*part.counts, *rows]):
            kept = self.kept.setdefault(name, KeptDecisions(since_us=0))
            # the parts of one batch are given together, each with rows and counts of its own
            if part.seq < kept.upto or (part.seq == kept.upto and name not in self._dirty):
                continue
            kept.add(part.counts.get(name, {}), rows.get(name, ()), rules=part.rules, keep=self._keep)
            kept.upto = part.seq
            self._dirty.setdefault(name, before)

    def forget_absent(self, automations: Iterable[str], *, clock_us: int) -> None:
        """Forget what is kept of automations that are not in the rules and have decided nothing for long."""
        for name in self.kept.keys() - set(automations):
            newest = next((row.at_us for row in self.kept[name].newest(name)), 0)
            if newest < clock_us - self._forget_after_us and name not in self._dirty:
                del self.kept[name]
                self._gone.append(name)
