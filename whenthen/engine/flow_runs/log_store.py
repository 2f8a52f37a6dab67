"""What runs wrote, in the stream `LOGS`: one message for each batch of lines, in the order of their storing (`runs.stores.LogStore`)."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import orjson

from whenthen.engine.bus.buckets import publish_with, purge_subject
from whenthen.engine.bus.protocol import read_headers
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.stream_reader import Received, stored_messages
from whenthen.engine.bus.subjects import log_subject
from whenthen.engine.flow_runs.flow_streams import LOGS
from whenthen.runs import attempt_logs

__all__ = ["NatsLogStore"]

_MAX_MESSAGE_BYTES = 512 * 1024
_AHEAD = 8  #: messages that are asked for at one time for a page, which ends within few
_MAX_LINES = (1 << attempt_logs.PLACE_BITS) - 2  #: in a message, so that a place tells each
_BEFORE = "Whenthen-Log-Before"  #: lines and bytes that the attempt has written before the message
_LEVELS = "Whenthen-Log-Levels"  #: of lines that were logged: number of the line, level, name of the task run; earlier versions pass it over
_DELETE = f"$JS.API.STREAM.MSG.DELETE.{LOGS}"


class NatsLogStore:
    """See `runs.stores.LogStore`. A place is the position of a message and how many of its lines are behind, the one among them
    that stands for what is left out before it."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client

    async def append(
        self, run_id: str, lines: Sequence[attempt_logs.LogLine], *, before: attempt_logs.LogBefore | None = None
    ) -> list[int]:
        if not lines:
            return []
        data = orjson.dumps([(line.at, line.stream, line.attempt, line.text) for line in lines])
        if len(lines) > 1 and (len(data) > _MAX_MESSAGE_BYTES or len(lines) > _MAX_LINES):
            middle = len(lines) // 2
            first, second = lines[:middle], lines[middle:]
            behind = before and attempt_logs.LogBefore(
                lines=before.lines + len(first),
                bytes=before.bytes + sum(attempt_logs.stored_bytes(line) for line in first),
            )
            return [
                *await self.append(run_id, first, before=before),
                *await self.append(run_id, second, before=behind),
            ]
        head = {} if before is None else {_BEFORE: f"{before.lines} {before.bytes}"}
        levels = [(index, line.level, line.name) for index, line in enumerate(lines) if line.level or line.name]
        if levels:
            head[_LEVELS] = json.dumps(levels, separators=(",", ":"))  # which is ASCII, as a header has to be
        return [await publish_with(self._client, log_subject(run_id), data, head)]

    async def drop(self, run_id: str, names: Sequence[int]) -> None:
        for name in names:
            await self._client.request(_DELETE, orjson.dumps({"seq": name, "no_erase": True}))

    async def forget(self, run_id: str) -> None:
        await purge_subject(self._client, LOGS, log_subject(run_id))

    async def read(self, run_id: str, *, tail: int | None = None) -> list[attempt_logs.LogLine]:
        lines: deque[attempt_logs.LogLine] = deque(maxlen=tail)
        gaps = attempt_logs.LogGaps()
        async for message in stored_messages(self._client, LOGS, _config(run_id)):
            lines.extend(line for line in _lines(message, gaps) if line is not None)
        return list(lines)

    async def page(self, run_id: str, *, after: int, limit: int, most_bytes: int) -> attempt_logs.LogSlice:
        """See `LogStore`. Pages that are read one after the other cost what they hold, and not the log before them."""
        start, done = after >> attempt_logs.PLACE_BITS, after & ((1 << attempt_logs.PLACE_BITS) - 1)
        config = _config(run_id)
        if start:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        found: list[attempt_logs.LogLine] = []
        size, place = 0, after
        gaps = attempt_logs.LogGaps()
        async with contextlib.aclosing(stored_messages(self._client, LOGS, config, ahead=_AHEAD)) as messages:
            async for message in messages:
                skipped = done if message.seq == start else 0
                for index, line in enumerate(_lines(message, gaps), 1):
                    if line is None or index <= skipped:
                        continue
                    size += len(line.text)
                    if len(found) == limit or (found and size > most_bytes):
                        return attempt_logs.LogSlice(lines=found, next=place, more=True)
                    found.append(line)
                    place = (message.seq << attempt_logs.PLACE_BITS) + index
        return attempt_logs.LogSlice(lines=found, next=place, more=False)

    async def last(self, run_id: str, *, limit: int, most_bytes: int) -> attempt_logs.LogSlice:
        """See `LogStore`. Costs what it gives, however long the log is: its batches are counted from the end, and then read from there."""
        start = await self._start_of_last(run_id, limit, most_bytes)
        config = _config(run_id) | {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        found: deque[attempt_logs.LogLine] = deque(maxlen=limit)
        size = place = 0
        gaps = attempt_logs.LogGaps()
        async with contextlib.aclosing(stored_messages(self._client, LOGS, config)) as messages:
            async for message in messages:
                lines = _lines(message, gaps)
                kept = [line for line in (lines[1:] if message.seq == start > 1 else lines) if line is not None]
                place = (message.seq << attempt_logs.PLACE_BITS) + len(lines)
                for line in kept:
                    if len(found) == limit:
                        size -= len(found[0].text)
                    found.append(line)
                    size += len(line.text)
                while size > most_bytes and len(found) > 1:
                    size -= len(found.popleft().text)
        return attempt_logs.LogSlice(lines=list(found), next=place, more=False)

    async def _start_of_last(self, run_id: str, limit: int, most_bytes: int) -> int:
        """The position of a batch from which on there are `limit` lines, or `most_bytes`; 1 when the whole log has fewer."""
        lines = size = 0
        ask = 1
        before: int | None = None
        while True:
            batches = await newest(
                self._client, LOGS, log_subject(run_id), limit=ask, pick=_counted, before=before, most_bytes=most_bytes
            )
            for before, count, data in batches:
                lines, size = lines + count, size + data
                if lines >= limit or size >= most_bytes:
                    return before
            if len(batches) < ask and batches.next is None:
                return 1
            ask *= 2


def _counted(message: StoredMessage) -> tuple[int, int, int]:
    """Position, lines and bytes of a batch."""
    return message.seq, len(orjson.loads(message.data)), len(message.data)


def _config(run_id: str) -> dict[str, object]:
    return {"deliver_policy": "all", "filter_subject": log_subject(run_id)}


def _lines(message: Received, gaps: attempt_logs.LogGaps) -> list[attempt_logs.LogLine | None]:
    """What stands for lines that are left out before a message, or None; and its lines."""
    lines = [
        attempt_logs.LogLine(at=at, stream=stream, attempt=attempt, text=text)
        for at, stream, attempt, text in orjson.loads(message.data)
    ]
    before = None
    headers = read_headers(message.head) if message.head else {}
    if written := headers.get(_BEFORE):
        count, size = written.split()
        before = attempt_logs.LogBefore(lines=int(count), bytes=int(size))
    for index, level, name in orjson.loads(headers.get(_LEVELS) or "[]"):
        lines[index] = replace(lines[index], level=level, name=name)
    return [gaps.gap(lines, before), *lines]
