"""Decisions on record, asked by any process: what is kept of an automation, and what was decided at a position of `EVENTS`.

Called by the queries of the API. Everything is read from NATS, so it does not matter which process evaluates.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Offset, decode_window
from whenthen.engine.bus.request_client import BusReason, stream_info, unavailable
from whenthen.engine.bus.streams import DECISIONS, ENGINE
from whenthen.engine.bus.subjects import decisions_subject, offset_subject, window_subject
from whenthen.engine.decisions.committed import CommittedBatches
from whenthen.engine.decisions.decision_log import NatsDecisionLog
from whenthen.engine.decisions.recorder import RECORDS, DecisionRecorder
from whenthen.schemas.decision_records import DecisionBatch, DecisionRow, KeptDecisions
from whenthen.schemas.firings import Reason

__all__ = ["DecisionReader", "Recorded"]

_NO_MESSAGE = 10037  #: error code: no message found
STEP_BACK = 8  #: messages before the place of a position, where leftovers may have put it
PAGE = 20  #: messages of one request around a position
MOST_BATCHES = 2000  #: that are looked through behind an event that was held, until it is decided


@dataclass(slots=True)
class Recorded:
    """What is on record of an automation at a position."""

    evaluated: bool  #: whether the shard has been there
    rules: int = 0  #: revision of the rules with which the position was evaluated; 0 when it is not on record
    rows: list[DecisionRow] = field(default_factory=list)


class DecisionReader:
    """Reads what the shards put on record."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def offset(self, shard: int) -> Offset:
        """How far a shard is. Raises `BusUnavailable`."""
        data, seq = await self._last(offset_subject(shard))
        return Offset.decode(data, seq) if seq else Offset()

    async def kept(self, shard: int, automation: str) -> KeptDecisions:
        """What is kept of an automation's decisions, up to the shard's last commit.

        Raises:
            BusUnavailable: it can not be read.
        """
        offset = await self.offset(shard)  # before the record, which may only be newer then
        data, seq = await self._last(window_subject(shard, RECORDS, automation))
        recorder = DecisionRecorder(NatsDecisionLog(self._bus), shard, keep=1000)
        if seq and data:
            recorder.restore(automation, decode_window(data)[2])
        await recorder.load(seq=offset.seq, head=offset.decisions, low=offset.decisions_from)
        return recorder.kept.get(automation) or KeptDecisions()

    async def at(self, shard: int, automation: str | None, position: int) -> Recorded:
        """The rows of an automation, or of all, for the event at a position; there may be none although it was decided, as not every row is kept.

        Raises:
            BusUnavailable: it can not be read.
        """
        offset = await self.offset(shard)
        recorded = Recorded(evaluated=offset.seq >= position)
        if not recorded.evaluated:
            return recorded
        place = await self._place(shard, position)
        batches = CommittedBatches()

        def take(given: list[DecisionBatch]) -> None:
            for each in given:
                if each.after < position <= each.seq:
                    recorded.rules = each.rules
                recorded.rows += [
                    row for row in each.rows if automation in (None, row.automation) and row.seq == position
                ]

        looked = 0
        behind = False
        async for sequence, batch in self._from(shard, place):
            looked += 1
            given = batches.message(sequence, batch)
            take(given)
            if given:
                behind = given[-1].after >= position
            if behind and (looked >= MOST_BATCHES or not _is_held(recorded.rows)):
                break
        else:
            take(batches.offset((await self.offset(shard)).decisions))
        return recorded

    async def _from(self, shard: int, place: int) -> AsyncGenerator[tuple[int, DecisionBatch], None]:
        """Messages of a shard from a sequence on, with their sequences."""
        more = True
        while more:
            page: list[tuple[int, bytes]] = []

            def receive(message: Delivery, page: list[tuple[int, bytes]] = page) -> None:
                page.append((int(message.headers["Nats-Sequence"]), message.data))

            request = {"seq": max(1, place), "next_by_subj": decisions_subject(shard), "batch": PAGE}
            more = await self._bus.client.read_stored(DECISIONS, request, receive)
            for sequence, data in page:
                if (batch := _decoded(data)) is not None:
                    yield sequence, batch
                place = sequence + 1

    async def _place(self, shard: int, position: int) -> int:
        """A sequence of `DECISIONS` shortly before the batch of a position, by halves."""
        answer = await stream_info(self._bus.client, DECISIONS)
        low, high = int(answer["state"]["first_seq"]), int(answer["state"]["last_seq"]) + 1
        first = low
        while high - low > STEP_BACK:
            middle = (low + high) // 2
            message = await self._bus.client.request(
                f"$JS.API.DIRECT.GET.{DECISIONS}",
                orjson.dumps({"seq": middle, "next_by_subj": decisions_subject(shard)}),
            )
            batch = None if message.headers.get("Status") else _decoded(message.data)
            if batch is None or batch.after >= position:
                high = middle
            else:
                low = middle
        return max(first, low - STEP_BACK)

    async def _last(self, subject: str) -> tuple[bytes, int]:
        """The last message of a subject of `ENGINE` and its sequence, as the stream's leader has it; 0 when there is none."""
        answer = await self._bus.client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": subject})
        error = answer.get("error")
        if error is None:
            return base64.b64decode(answer["message"].get("data", "")), int(answer["message"]["seq"])
        if error.get("err_code") == _NO_MESSAGE:
            return b"", 0
        raise unavailable(f"{subject} can not be read: {error.get('description')}", BusReason.REFUSED)


def _decoded(data: bytes) -> DecisionBatch | None:
    """A batch, or None for what is none."""
    try:
        return DecisionBatch.decode(data)
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _is_held(rows: list[DecisionRow]) -> bool:
    """Whether an event was held for its predecessor, and none of its rows shows yet how it was decided."""
    return bool(rows) and all(row.reason == Reason.HELD_FOR_PREDECESSOR for row in rows)
